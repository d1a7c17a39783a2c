import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cxr.reading import UnreadableImage, find_images, radiograph, read

PNG = b"\x89PNG\r\n\x1a\n"
ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data"))


def scene(height=72, width=90):
    """uint8 [H, W]: slow waves, a bright disc off centre and a dark corner, so that every turn of it is another picture."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    grey = 120 + 60 * np.sin(x / width * 7) + 40 * np.cos(y / height * 5)
    grey[(x - 0.7 * width) ** 2 + (y - 0.3 * height) ** 2 < (height / 6) ** 2] = 250
    grey[: height // 5, : width // 5] = 5
    return grey.round().clip(0, 255).astype(np.uint8)


def write(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def jpeg_bytes(grey, **options):
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(width, height, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def directory(fields, order="<", following=0):
    """A TIFF's directory of ``fields`` {tag: (type, value)}."""
    rows = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value))
        for tag, (kind, value) in sorted(fields.items())
    )
    return struct.pack(order + "H", len(fields)) + rows + struct.pack(order + "I", following)


def tiff_bytes(fields, data=b"", order="<", following=0):
    """A TIFF of ``fields`` whose only strip lies at offset 8."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory(fields, order, following)


def strip_fields(width, height, length, **other):
    names = {
        "depth": 258,
        "compression": 259,
        "photometric": 262,
        "orientation": 274,
    }
    fields = {
        256: (4, width),
        257: (4, height),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        278: (4, height),
        279: (4, length),
    }
    return fields | {names[name]: (3, value) for name, value in other.items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
        ("a.bmp", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_lossless_8_bit_grey_comes_back_as_it_was(tmp_path, name, options):
    grey = read(write(tmp_path / name, scene(), **options)).whole()
    assert grey.dtype == np.uint8
    assert grey.flags.writeable
    assert np.array_equal(grey, scene())


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_by_the_range_of_the_format(tmp_path, name):
    values = np.full((16, 20), 32768, np.uint16)
    values[0, :7] = [0, 1, 128, 129, 257, 65407, 65535]  # 65535 / 255 is 257, half of which is 128.5
    grey = read(write(tmp_path / name, values)).whole()
    assert grey[0, :7].tolist() == [0, 0, 0, 1, 1, 255, 255]
    assert grey[1, 1] == 128  # 32768 / 257 is 127.502
    assert np.array_equal(grey, read(write(tmp_path / "b.png", grey)).whole())


@pytest.mark.parametrize(("order", "depth"), [("<", 8), (">", 8), ("<", 16)])
def test_tiff_with_white_at_zero_is_inverted(tmp_path, order, depth):
    values = scene().astype(order + "u1" if depth == 8 else order + "u2") * (1 if depth == 8 else 257)
    data = values.tobytes()
    (tmp_path / "a.tif").write_bytes(
        tiff_bytes(strip_fields(90, 72, len(data), depth=depth, photometric=0), data, order)
    )
    assert np.array_equal(read(tmp_path / "a.tif").whole(), 255 - scene())


def test_colour_becomes_luma(tmp_path):
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[0, :4] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 10, 10)]
    image = Image.fromarray(colours)
    grey = read(write(tmp_path / "a.png", image)).whole()
    assert grey[0, :4].tolist() == [76, 150, 29, 10]  # 255 x .299, .587, .114
    assert np.array_equal(grey, read(write(tmp_path / "a.tif", image)).whole())
    assert np.array_equal(
        grey, read(write(tmp_path / "p.png", image.convert("P", palette=Image.Palette.ADAPTIVE))).whole()
    )


def test_what_is_transparent_is_black(tmp_path):
    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[:, :8, 3], rgba[:, 8:, 3] = 255, 0
    grey = read(write(tmp_path / "a.png", rgba)).whole()
    assert grey[0, 0] == 200
    assert grey[0, -1] == 0
    opaque = Image.fromarray(scene()).convert("LA")
    assert np.array_equal(read(write(tmp_path / "b.png", opaque)).whole(), scene())
    palette = Image.fromarray(scene()).convert("P")
    keyed = write(tmp_path / "c.png", palette, transparency=bytes([255] * 200 + [0] * 56))
    assert np.array_equal(read(keyed).whole(), np.where(scene() < 200, scene(), 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed_in_every_format(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    upright = np.array(ImageOps.exif_transpose(_with_orientation(scene(), orientation)))
    for name in ("a.png", "a.tif"):
        path = write(tmp_path / name, scene(), exif=exif)
        assert np.array_equal(read(path).whole(), upright), name
    path = write(tmp_path / "a.jpg", scene(), exif=exif, quality=95)
    grey = read(path).whole()
    assert grey.shape == upright.shape
    assert np.abs(grey.astype(int) - upright).mean() < 2
    square = read(path).square(32)
    assert read(path).size == upright.shape
    whole = Image.fromarray(grey).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(square.astype(int) - np.array(whole)).max() <= 1


def _with_orientation(grey, orientation):
    image = Image.fromarray(grey)
    image.getexif()[274] = orientation
    return image


def test_square_is_the_antialiased_squash_of_the_whole_image(tmp_path):
    path = write(tmp_path / "a.png", scene(90, 140))
    square = read(path).square(40)
    assert read(path).size == (90, 140)
    assert square.shape == (40, 40)
    assert square.dtype == np.uint8
    assert square.flags.writeable
    expected = Image.fromarray(scene(90, 140)).resize((40, 40), Image.Resampling.BILINEAR)
    assert np.array_equal(square, np.array(expected))


@pytest.mark.parametrize("shape", [(503, 641), (300, 1251)])  # no multiples of the blocks that are shrunk
def test_shrinking_while_decoding_stays_within_one_grey_level(tmp_path, shape):
    grain = np.random.default_rng(0).normal(0, 12, shape)
    path = write(tmp_path / "a.jpg", (scene(*shape) + grain).clip(0, 255).astype(np.uint8), quality=90)
    whole = Image.fromarray(read(path).whole())
    for size in (16, 32, 64, 112):
        square = read(path).square(size)
        expected = np.array(whole.resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(square.astype(float) - expected).mean() < 1


REFUSED = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "text": (b"patient;finding\n" * 40, r"neither JPEG, PNG, .* nor DICOM, or damaged \(it begins with b'patient;'\)"),
    "100 megapixel png": (png_bytes(10000, 10000), "10000 x 10000 pixels is over the limit of 80 megapixels"),
    "300 megapixel tiff": (tiff_bytes(strip_fields(20000, 15000, 10)), "300000000 pixels.* exceeds limit"),
    "1 x 1 png": (png_bytes(1, 1, rows=b"\0\0"), "1 x 1 pixels is too small for a radiograph"),
    "tiff without a directory": (b"II*\0" + struct.pack("<I", 4000) + bytes(20), "TIFF of an unusual kind"),
    "tiff that Pillow lacks": (tiff_bytes(strip_fields(90, 72, 12960, depth=16, photometric=0), bytes(12960), ">"), "TIFF of an unusual kind, or damaged; save it as PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_content_is_refused_in_one_line(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read(path).square(32)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_jpeg_that_claims_300_megapixels_is_refused_from_its_header(tmp_path):
    content = jpeg_bytes(scene())
    frame = content.index(b"\xff\xc0")
    content = content[: frame + 5] + struct.pack(">HH", 15000, 20000) + content[frame + 9 :]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"300000000 pixels.* exceeds limit"):
        read(tmp_path / "a.jpg").whole()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, suffix):
    content = write(tmp_path / f"whole.{suffix}", scene()).read_bytes()
    path = tmp_path / f"part.{suffix}"
    for tenths in range(10):
        path.write_bytes(content[: 1 + len(content) * tenths // 10])
        with pytest.raises(UnreadableImage):
            read(path).whole()


def test_cmyk_and_floating_point_are_refused_by_name(tmp_path):
    cmyk = write(tmp_path / "a.jpg", Image.fromarray(scene()).convert("CMYK"))
    with pytest.raises(UnreadableImage, match="mode CMYK; expected grey or RGB"):
        read(cmyk).whole()
    floating = write(tmp_path / "a.tif", scene().astype(np.float32))
    with pytest.raises(UnreadableImage, match="mode F; expected grey or RGB"):
        read(floating).whole()


def test_pages_and_animations_are_refused(tmp_path):
    pages = [Image.fromarray(scene()), Image.fromarray(scene()[::-1])]
    for name, reason in (("a.tif", "a TIFF of 2 pages"), ("a.png", "an animation"), ("a.webp", "an animation")):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(UnreadableImage, match=f"{reason}; expected one"):
            read(tmp_path / name).whole()


@pytest.mark.parametrize("first", [True, False])
def test_a_thumbnail_beside_the_picture_of_a_tiff_is_passed_over(tmp_path, first):
    whole, small = scene(), scene()[::3, ::3]
    one, two = (small, whole) if first else (whole, small)
    # NewSubfileType 254: bit 0 is a reduced image of another page
    fields = [strip_fields(*page.shape[::-1], page.size) | {254: (4, int(page is small))} for page in (one, two)]
    start = len(tiff_bytes(fields[0], one.tobytes()))
    head = tiff_bytes(fields[0], one.tobytes(), following=start + two.size)
    tail = two.tobytes() + directory(fields[1] | {273: (4, start)})
    (tmp_path / "a.tif").write_bytes(head + tail)
    assert np.array_equal(read(tmp_path / "a.tif").whole(), scene())


def test_the_first_picture_of_a_telephone_s_jpeg_is_read(tmp_path):
    pages = [Image.fromarray(scene()), Image.fromarray(scene()[::-1])]
    pages[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pages[1:], quality=95)
    assert np.abs(read(tmp_path / "a.jpg").whole().astype(int) - scene()).mean() < 2


def test_a_missing_file_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        read(Path("gone.png")).whole()
    assert str(tmp_path / "gone.png") in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="is a folder; expected a file"):
        read(tmp_path).whole()


def test_a_file_too_large_for_any_radiograph_is_not_read(tmp_path):
    path = tmp_path / "a.dcm"
    with path.open("wb") as file:
        file.truncate(radiograph.MAX_FILE_BYTES + 1)  # sparse: takes no room on disk
    with pytest.raises(UnreadableImage, match="no radiograph needs more than 458 MiB"):
        read(path).whole()


def damaged_exif():
    """A JPEG whose EXIF names a value far beyond its end; Pillow warns of this when it reads such a file itself."""
    directory = struct.pack("<HHHIIHHII", 2, 0x010F, 2, 4000, 9000, 0x0112, 3, 1, 6) + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory
    content = jpeg_bytes(scene())
    return content[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + content[2:]


def test_damaged_notes_neither_warn_in_a_script_nor_lose_the_picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(damaged_exif())
    code = f"from pathlib import Path; from cxr import cli, reading; cli.run(lambda path: print(reading.read(path).size), Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout in ("(90, 72)\n", "(72, 90)\n") and done.stderr == ""  # some Pillows still find the orientation
    path.write_bytes(damaged_exif().replace(b"Exif\0\0II*\0\x08", b"Exif\0\0II*\0\xf8"))
    assert read(path).whole().shape == (72, 90)


def test_threads_read_alike_and_leave_the_warning_filters_alone(tmp_path):
    paths = [write(tmp_path / f"{index}.png", np.roll(scene(), index, axis=1)) for index in range(12)]
    (tmp_path / "bad.png").write_bytes(png_bytes(20000, 15000))
    (tmp_path / "notes.jpg").write_bytes(damaged_exif())
    before, barrier = list(warnings.filters), threading.Barrier(4)

    def read_all(worker):
        barrier.wait()
        squares = [read(path).square(24) for path in paths]
        read(tmp_path / "notes.jpg").whole()
        with pytest.raises(UnreadableImage):
            read(tmp_path / "bad.png").whole()
        return squares

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read_all, range(4)))
    assert list(warnings.filters) == before
    for squares in results:
        assert all(np.array_equal(one, read(path).square(24)) for one, path in zip(squares, paths, strict=True))


@pytest.mark.data
def test_real_jpegs_equal_a_full_decode_within_one_grey_level():
    folder = DATA / "chest_xray_original_size"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; CXR_DATA names the folder of the real images")
    for path in find_images([str(folder)])[::20]:
        with Image.open(path) as image:
            whole = image.convert("L")
        assert np.array_equal(read(path).whole(), np.array(whole))
        expected = np.array(whole.resize((224, 224), Image.Resampling.BILINEAR))
        square = read(path).square(224)
        assert read(path).size == (whole.height, whole.width)
        assert np.abs(square.astype(float) - expected).mean() < 1
