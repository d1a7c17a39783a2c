import hashlib

import numpy as np

from cxr import checkpoints, model_file

HASHES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]


def test_a_model_file_knows_the_images_of_its_training_again(tmp_path):
    keys = model_file.image_keys(HASHES, np.array([4, 1]), np.array([0]))
    checkpoints.save(tmp_path / "m.pth", task="x", known_images=model_file.pack_keys(keys))
    found = model_file.unpack_keys(checkpoints.load(tmp_path / "m.pth", task="x")["known_images"])
    assert found is not None
    assert [model_file.image_key(content) in found for content in HASHES] == [True, True, False, False, True, False]


def test_a_model_that_learnt_from_nothing_is_not_one_that_does_not_say():
    assert model_file.unpack_keys(model_file.pack_keys(frozenset())) == frozenset()
    assert model_file.unpack_keys(model_file.pack_keys(None)) is None
