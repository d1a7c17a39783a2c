import numpy as np
import pytest
from PIL import Image

from cxr.plots import Block, sheet

WIDE = np.full((50, 100), 90, np.uint8)
COLOURS = {2: (200, 30, 30), 1 / 3: (30, 200, 30), 1: (30, 30, 200)}  # by width / height


def test_every_image_is_shown_whole_in_its_proportions(tmp_path):
    images = [np.full((90, round(90 * shape), 3), colour, np.uint8) for shape, colour in COLOURS.items()]
    sheet([Block("first (3 of 9)", images, ["a\nb"] * 3)], tmp_path / "a.png", note="of nothing")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for shape, colour in COLOURS.items():
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width / height == pytest.approx(shape, rel=0.03) and max(width, height) > 200
        assert len(rows) == width * height


def test_a_sheet_says_what_each_image_is_and_where_there_is_none(figures, tmp_path):
    blocks = [Block("wrong (8 of 9)", [WIDE] * 8, [f"image {n}" for n in range(8)]), Block("right (0 of 9)", [], [])]
    sheet(blocks, tmp_path / "a.png", note="what it is about")
    words = [text.get_text() for text in figures[0].texts]
    assert words == [
        "wrong (8 of 9)",
        *(f"image {n}" for n in range(8)),
        "right (0 of 9)",
        "no such image",
        "what it is about",
    ]
    left = [text.get_position()[0] for text in figures[0].texts[1:9]]
    assert left[:2] == left[6:] and sorted(left[:6]) == left[:6]  # six beside each other, then a second row
    heights = [text.get_position()[1] for text in figures[0].texts]
    assert heights[1] > heights[7] > heights[9] > heights[11]
