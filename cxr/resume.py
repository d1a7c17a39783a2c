"""What makes a resumed run the one that was begun: its settings, its processes, its images."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cxr.text import first_of


def fingerprint(facts: Mapping[str, str]) -> dict[str, str]:
    """What a run learns from, as its checkpoint holds it: for each file a short hash of what decides about it.

    Args:
        facts: content, label and the like in any form, by the name of the file below the data folder.
    """
    return {name: hashlib.sha256(fact.encode()).hexdigest()[:16] for name, fact in facts.items()}


def require_same_run(
    saved: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str], out_dir: Path
) -> None:
    """Refuse to continue the run in ``out_dir`` under what would make it another run.

    Args:
        saved: its checkpoint: ``config`` as ``cli.plain`` gives it, ``processes``, ``data`` as ``fingerprint`` gives
            it, and the number of finished epochs.
        now: the first three of these as they are now.
        may_differ: settings that do not decide the weights. The number of processes does while an epoch is left: it
            divides the batches.

    Raises:
        ValueError: names each setting that differs, with both values, or the first files that do; or the checkpoint is
            of a version that did not keep what is compared.
    """
    if not {"config", "processes", "epoch", "bf16"} <= saved.keys() or not isinstance(saved.get("data"), dict):
        raise ValueError(
            f"--resume: the run in {out_dir} was begun by another version, or its checkpoint is not of a training; "
            "train anew without --resume"
        )
    settings, current = saved["config"], now["config"]
    differing = [
        f"--{name.replace('_', '-')} was {settings.get(name)}, is {value}"
        for name, value in current.items()
        if name not in may_differ and settings.get(name) != value
    ]
    if saved["processes"] != now["processes"] and saved["epoch"] < current["epochs"]:
        differing.append(f"the number of processes was {saved['processes']}, is {now['processes']}")
    if differing:
        raise ValueError(f"--resume: another run than the one in {out_dir}: {'; '.join(differing)}")
    changes = _changes(saved["data"], now["data"])
    if changes:
        raise ValueError(
            f"--resume: the images in {current['data_dir']} are not those that the run began with: {changes}"
        )


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    kinds = {
        "gone": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [name for name in now if name in before and now[name] != before[name]],
    }
    return "; ".join(f"{kind}: {first_of(names)}" for kind, names in kinds.items() if names)
