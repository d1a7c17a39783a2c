import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.prediction import Box, Sample, is_borderline, load, predict_in_batches


@pytest.fixture
def paths(tmp_path):
    """Seven files, of which the second and the last cannot be read."""
    found = [tmp_path / f"{name}.png" for name in "abcdefg"]
    for number, path in enumerate(found):
        Image.fromarray(np.full((30 + number, 20), 10 * number, np.uint8)).save(path)
    found[1].write_bytes(b"only a text")
    found[6].unlink()
    return found


def by_tone(samples):
    """Predicts from the tone of the first square; those above 30 are out of distribution."""
    for sample in samples:
        tone = float(sample.squares[0].mean())
        boxes = (Box(0, 0, 1, 1, tone / 100),)
        outputs = {"probability": tone / 100, "boxes": boxes, "highest_score": tone / 100}
        yield replace(sample.prediction, **outputs, out_of_distribution=tone > 30), tone


def test_batches_are_in_order_with_errors_in_their_place(paths):
    batches = list(predict_in_batches(paths, lambda path: load(path, [8]), by_tone, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    found = [one for batch in batches for one in batch]
    assert [one.path for one in found] == paths
    assert [one.probability for one in found] == [0, None, 0.2, 0.3, 0.4, 0.5, None]
    assert [(one.height, one.width) for one in found[:3]] == [(30, 20), (0, 0), (32, 20)]
    assert "neither JPEG" in found[1].error and found[6].error == f"{paths[6]}: no such file"


def test_each_model_has_a_square_of_its_own_size_and_only_a_drawn_file_stays_in_memory(paths):
    sample = load(paths[2], [8, 16])
    assert [square.shape for square in sample.squares] == [(8, 8), (16, 16)] and sample.radiograph is None
    kept = load(paths[2], [8], keep=True)
    paths[2].unlink()
    assert kept.radiograph is not None and kept.radiograph.whole().shape == (32, 20)


def test_what_is_drawn_is_neither_an_error_nor_refused(paths):
    drawn = []

    def draw(sample, one, tone):
        drawn.append((sample.prediction.path, one.probability, tone))
        return replace(one, picture=Path(f"{tone:.0f}.png"))

    read = lambda path: load(path, [8])  # noqa: E731
    (batch,) = predict_in_batches(paths, read, by_tone, 10, draw=draw, refuse_ood=True)
    assert drawn == [(paths[number], number / 10, 10 * number) for number in (0, 2, 3)]
    for one in batch[4:6]:
        assert (one.probability, one.boxes, one.highest_score, one.out_of_distribution) == (None, (), None, True)
    assert [one.picture and one.picture.name for one in batch] == ["0.png", None, "20.png", "30.png", None, None, None]


def test_a_caller_may_bring_files_and_samples_of_its_own(paths):
    class Named(Sample):
        pass

    def read(file):
        number, path = file
        return Named(replace(load(path, [8]).prediction, note=str(number)), load(path, [8]).squares)

    def predict(samples):
        assert all(isinstance(sample, Named) for sample in samples)
        yield from ((replace(sample.prediction, error="duplicate"), None) for sample in samples)

    def draw(*_arguments):
        raise AssertionError("an error is not drawn")

    (batch,) = predict_in_batches(list(enumerate(paths)), read, predict, 10, draw=draw)
    assert [one.note for one in batch] == list("0123456") and batch[0].error == "duplicate"


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((600, 600), np.uint8)).save(path)

    def peak(count):
        tracemalloc.start()
        for _ in predict_in_batches([path] * count, lambda path: load(path, [128], keep=True), by_tone, 4):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(12)
    assert peak(120) < 1.5 * peak(24)


@pytest.mark.parametrize(("factor", "near"), [(0.45, False), (0.55, True), (1.0, True), (1.9, True), (2.1, False)])
def test_borderline_is_within_a_factor_of_two_of_the_odds(factor, near):
    odds = factor * 0.4 / 0.6
    assert is_borderline(odds / (1 + odds), 0.4) is near
