"""Parts of a data set without a common patient or picture: to learn from, to choose by, to be judged on."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def split(
    patients: Sequence[str],
    labels: Sequence[str],
    hashes: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    *,
    needed: Collection[str],
) -> dict[str, NDArray[np.int64]]:
    """Ascending indices of the images of each part in ``shares``, drawn in that order, and of the rest, ``train``.

    No patient and no file content is in two parts, and each part has about its share of the images of each label. The
    choice depends on the patients' names and the seed alone, not on the order of listing, the platform or a library's
    random numbers.

    Args:
        patients: [N] names.
        labels: [N], the class of each image.
        hashes: [N], of the content of each file; equal ones tie their patients together.
        shares: part -> share of the images of each label.
        seed: another one draws other patients.
        needed: labels that no part may lack.

    Raises:
        ValueError: a part would lack one of ``needed``.
    """
    groups = tied(patients, hashes)
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = sorted(members, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    counts = {group: Counter(labels[index] for index in members[group]) for group in order}
    totals = Counter(labels)
    part_of: dict[str, str] = {}
    for part, share in shares.items():
        taken: Counter[str] = Counter()
        for group in order:
            # At most half of a group over the share, in each label that the group has.
            if group not in part_of and all(
                taken[label] + number / 2 <= share * totals[label] for label, number in counts[group].items()
            ):
                part_of[group] = part
                taken += counts[group]
    parts: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for index, group in enumerate(groups):
        parts[part_of.get(group, "train")].append(index)
    for part, indices in parts.items():
        missing = [label for label in needed if not any(labels[index] == label for index in indices)]
        if missing:
            wanted = " and ".join(f"{share:.0%} for {name.replace('_', ' ')}" for name, share in shares.items())
            raise ValueError(
                f"no {missing[0]} image is left for {part.replace('_', ' ')}: {len(labels)} images of "
                f"{len(members)} patients are too few to set apart {wanted}"
            )
    return {part: np.array(indices, dtype=np.int64) for part, indices in parts.items()}


def tied(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Each image's group: the patients that share a file content, directly or through others, are one."""
    parent = {patient: patient for patient in patients}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for patient, content in zip(patients, hashes, strict=True):
        one, other = sorted((root(patient), root(first.setdefault(content, patient))))
        parent[other] = one
    return [root(patient) for patient in patients]
