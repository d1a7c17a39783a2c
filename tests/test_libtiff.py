import io
import os

import numpy as np
import pytest
from PIL import Image

from cxr.reading import UnreadableImage, picture, read_grey


def test_damage_in_a_compressed_tiff_is_told_in_the_error_alone(tmp_path, capfd):
    file = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(grey).save(file, "TIFF", compression="tiff_lzw")
    content = bytearray(file.getvalue())
    content[2000:2020] = b"\xff" * 20
    (tmp_path / "a.tiff").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"a\.tiff: damaged TIFF \(\S+: .+\w\)$"):
        read_grey(tmp_path / "a.tiff")
    assert capfd.readouterr().err == ""


def test_what_others_print_while_a_tiff_is_read_is_still_printed(capfd):
    def decode():
        os.write(2, b"\rdecoding train: 10%")
        os.write(2, b"\nLZWDecode: Not enough data at scanline 0.\n")
        os.write(2, b"warning: of 3 images something is to be noted.\n")

    picture.load(decode)
    assert capfd.readouterr().err == "\rdecoding train: 10%\nwarning: of 3 images something is to be noted.\n"
