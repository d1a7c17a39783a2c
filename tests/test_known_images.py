import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr import checkpoints, known_images

HASHES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]


def test_a_model_file_knows_the_images_of_its_training_again(tmp_path):
    keys = known_images.known(HASHES, np.array([4, 1]), np.array([0]))
    checkpoints.save(tmp_path / "m.pth", task="x", known_images=known_images.packed(keys))
    found = known_images.unpacked(checkpoints.load(tmp_path / "m.pth", task="x")["known_images"], tmp_path / "m.pth")
    assert found is not None
    assert [known_images.content_key(content) in found for content in HASHES] == [True, True, False, False, True, False]


def test_a_model_that_learnt_from_nothing_is_not_one_that_does_not_say():
    path = Path("m.pth")
    assert known_images.unpacked(known_images.packed(frozenset()), path) == frozenset()
    assert known_images.unpacked(known_images.packed(None), path) is None


@pytest.mark.parametrize(
    "damaged",
    [
        [1, 2],
        torch.tensor(3, dtype=torch.uint8),
        torch.zeros(3, 7, dtype=torch.uint8),
    ],
)
def test_what_no_training_writes_is_refused(damaged):
    with pytest.raises(
        ValueError, match=r"^m\.pth: what it says of the files it was trained on is damaged; train anew"
    ):
        known_images.unpacked(damaged, Path("m.pth"))
