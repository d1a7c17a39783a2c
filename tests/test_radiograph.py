import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cxr.reading import UnreadableImage, find_images, read

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
    """Grey of 8 bits without compression, or with another ``depth`` and ``photometric``."""
    fields = {256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1)}
    names = {"depth": 258, "photometric": 262}
    return fields | {278: (4, height), 279: (4, length)} | {names[name]: (3, value) for name, value in other.items()}


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_8_bit_grey_is_read_unchanged_and_a_truncated_file_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", scene(), **({"lossless": True} if suffix == "webp" else {}))
    grey = read(path).whole()
    assert grey.dtype == np.uint8 and grey.flags.writeable
    assert np.array_equal(grey, scene())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableImage):
        read(path).whole()


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
    tagged = Image.fromarray(scene())
    tagged.getexif()[274] = orientation
    upright = np.array(ImageOps.exif_transpose(tagged))
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


def put(content):
    return lambda path: path.write_bytes(content)


def pages(suffix):
    two = [Image.fromarray(scene()), Image.fromarray(scene()[::-1])]
    return lambda path: two[0].save(path, suffix, save_all=True, append_images=two[1:])


REFUSED = {
    "truncated jpeg": (lambda path: path.write_bytes(write(path, scene(), format="JPEG").read_bytes()[:-200]), "truncated"),
    "folder": (Path.mkdir, "is a folder; expected a file"),
    "empty": (put(b""), r"is empty \(0 bytes\)"),
    "text": (put(b"patient;finding\n" * 40), r"neither JPEG, PNG, .* nor DICOM, or damaged \(it begins with b'patient;'\)"),
    "too large": (lambda path: Image.new("1", (10000, 10000)).save(path, "PNG"), "10000 x 10000 pixels is over the limit of 80 megapixels"),
    "too small": (lambda path: write(path, scene(1, 1), format="PNG"), "1 x 1 pixels is too small for a radiograph"),
    "tiff that Pillow lacks": (put(tiff_bytes(strip_fields(90, 72, 12960, depth=16, photometric=0), bytes(12960), ">")), "TIFF of an unusual kind, or damaged; save it as PNG"),
    "cmyk": (lambda path: Image.fromarray(scene()).convert("CMYK").save(path, "JPEG"), "mode CMYK; expected grey or RGB"),
    "floating point": (lambda path: write(path, scene().astype(np.float32), format="TIFF"), "mode F; expected grey or RGB"),
    "pages": (pages("TIFF"), "a TIFF of 2 pages; expected one"),
    "animation": (pages("PNG"), "an animation; expected one"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_content_is_refused_in_one_line(tmp_path, name):
    make, reason = REFUSED[name]
    path = tmp_path / "scan"
    make(path)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read(path).square(32)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


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
