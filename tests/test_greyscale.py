import numpy as np
import pytest

from cxr.reading.greyscale import GreyScale, Lut, Window, look_up


@pytest.mark.parametrize(
    ("window", "stored", "grey"),
    [
        # DICOM PS3.3 C.11.2.1.2.1: c 2048, w 4096 is x <= 0, x > 4095, else (x - 2047.5) / 4095 + 0.5
        (Window(2048, 4096), [0, 1, 2047, 2048, 4094, 4095], [0, 0, 127, 128, 255, 255]),
        # c 100, w 51: from 74.5 (black) to 124.5 (white), 50 wide; at 87 a quarter of 255
        (Window(100, 51), [74, 75, 87, 99, 100, 124, 125, 4095], [0, 3, 64, 125, 130, 252, 255, 255]),
        # c 2048, w 1: a threshold at 2047.5
        (Window(2048, 1), [2047, 2048], [0, 255]),
        # C.11.2.1.3.2: c 100, w 50 is x <= 75, x > 125, else (x - 100) / 50 + 0.5
        (Window(100, 50, "LINEAR_EXACT"), [75, 76, 90, 100, 110, 125, 126], [0, 5, 76, 128, 178, 255, 255]),
        # C.11.2.1.3.1: c 100, w 50 is 1 / (1 + exp(-4 (x - 100) / 50)); e^-2 is 0.1353, e^-4 is 0.0183
        (Window(100, 50, "SIGMOID"), [50, 75, 100, 125, 150, 4095], [5, 30, 128, 225, 250, 255]),
    ],
)
def test_windows_follow_the_formulas_of_the_standard(window, stored, grey):
    assert GreyScale(12, voi=window).table()[stored].tolist() == grey


def test_a_lut_holds_its_ends_and_reads_signed_values_from_its_first():
    table = GreyScale(8, signed=True, voi=Lut(-2, np.array([0, 15, 60, 255], np.uint16))).table()
    values = {-128: 0, -3: 0, -2: 0, -1: 15, 0: 60, 1: 255, 2: 255, 127: 255}
    assert {value: int(table[value % 256]) for value in values} == values


def test_modality_comes_before_voi():
    # stored 1000 is 1000 * 2 - 500 = 1500, the centre of a window from 1000.5 to 1999.5
    table = GreyScale(12, modality=(2.0, -500.0), voi=Window(1500.5, 1000)).table()
    assert table[[750, 875, 1000, 1125, 1250]].tolist() == [0, 64, 128, 191, 255]
    doubled = Lut(0, np.arange(0, 512, 2, dtype=np.uint16))
    table = GreyScale(8, modality=doubled, voi=Window(100, 51)).table()
    assert table[[37, 38, 50, 62, 63]].tolist() == [0, 8, 130, 252, 255]


def test_without_voi_the_range_of_the_bits_is_spread():
    assert GreyScale(8).table().tolist() == list(range(256))
    assert GreyScale(12).table()[[0, 8, 9, 2047, 2048, 4095]].tolist() == [0, 0, 1, 127, 128, 255]
    assert GreyScale(16, signed=True).table()[[0x8000, 0xFFFF, 0x0000, 0x7FFF]].tolist() == [0, 127, 128, 255]


def test_rescaling_alone_changes_nothing_unless_it_turns_the_scale():
    assert np.array_equal(GreyScale(8, modality=(0.5, -1000.0)).table(), np.arange(256))
    assert np.array_equal(GreyScale(8, modality=(-1.0, 255.0)).table(), np.arange(256)[::-1])
    with pytest.raises(ValueError, match="leaves no range"):
        GreyScale(8, modality=(0.0, 7.0)).table()


def test_padding_is_black_whatever_the_polarity():
    assert GreyScale(12, inverted=True, padding=(0, 0)).table()[[0, 1]].tolist() == [0, 255]
    assert GreyScale(12, padding=(4000, 4095)).table()[[3999, 4000, 4095]].tolist() == [249, 0, 0]
    signed = GreyScale(8, signed=True, inverted=True, padding=(-128, -120)).table()
    assert signed[[0x80, 0x88, 0x89]].tolist() == [0, 0, 246]


def test_look_up_equals_indexing():
    table = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)
    values = np.random.default_rng(1).integers(0, 4096, (1000, 7)).astype(np.uint16)
    assert np.array_equal(look_up(table, values), table[values])
