"""Files from the field whose content and description differ: each kind once, generated here."""

import io
import os
import unicodedata
import zipfile

import numpy as np
import pytest
from dicom_files import claiming, compressed, dataset, dicom_bytes, ramp, save
from PIL import Image, PngImagePlugin
from pydicom import DataElement, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxr import cli, patients, reading, tables
from cxr.backbone import tensors
from cxr.dicom_results.source_header import HEADER, patient_and_study
from cxr.prediction import Prediction
from cxr.reading import Header
from cxr.reading.dicom_header import read_dataset, read_header
from pytorch_classification import data_load
from reading_room.exams import Naming

NAME = "홍길동"
DECOMPOSED = unicodedata.normalize("NFD", NAME)
FILM = ramp(8, height=64, width=64).astype(np.uint8)


def item(**values):
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return Sequence([found])


def read(path, content):
    """Pixels and note."""
    path.write_bytes(content if isinstance(content, bytes) else dicom_bytes(content))
    found = reading.read(path)
    return found.whole().astype(int), found.header.note


def picture(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("charset", "encoding", "readable"),
    [
        ("ISO_IR 192", "utf-8", True),
        ("ISO_IR 192", "euc_kr", False),
        ("", "euc_kr", False),
        ("", "ascii", True),
        ("\\ISO 2022 IR 149", "euc_kr", False),  # without its escape sequence
    ],
)
def test_a_name_counts_only_if_the_declared_character_set_can_hold_it(tmp_path, charset, encoding, readable):
    name = "Hong" if encoding == "ascii" else NAME
    ds = dataset(FILM, 8, PatientID="7")
    del ds.PatientName
    content = dicom_bytes(ds)
    for tag, vr, value in ((b"\x08\0\x05\0", b"CS", charset.encode()), (b"\x10\0\x10\0", b"PN", name.encode(encoding))):
        value += b" " * (len(value) % 2)
        element = tag + vr + len(value).to_bytes(2, "little") + value
        at = content.index(b"\x08\0\x16\0UI") if tag[0] == 8 else content.index(b"\x10\0\x20\0LO")
        content = content[:at] + element + content[at:]
    path = tmp_path / f"{DECOMPOSED}_{name}.dcm"
    path.write_bytes(content)
    header = read_header(path)
    assert header.is_patient_unreadable is not readable
    shown = Naming((tmp_path,), False).exam(path, "", header, "0", Prediction(path)).file
    assert name not in unicodedata.normalize("NFC", shown)
    assert shown.endswith(".dcm")
    taken, refused = patient_and_study(read_dataset(path, HEADER))
    assert (str(taken.PatientName), refused) == ((name, []) if readable else ("", ["PatientName"]))


def test_names_of_files_labels_and_folders_are_compared_composed(tmp_path):
    normal, pneumonia = "정상", "폐렴"
    for label in (normal, pneumonia):
        folder = tmp_path / "train" / unicodedata.normalize("NFD", label)
        folder.mkdir(parents=True)
        (folder / f"{DECOMPOSED}.png").write_bytes(picture(Image.fromarray(FILM), "PNG"))
    rows = [f"train/{label}/{NAME}.png,{unicodedata.normalize('NFD', label)}" for label in (normal, pneumonia)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    names = ((normal,), (pneumonia,))
    assert (
        len(data_load.list_table(table, names=names))
        == len(data_load.list_folders(tmp_path, "train", names=names))
        == 2
    )
    assert reading.find_images([str(tmp_path / "train" / normal / f"{NAME}.png")])


# ------------------------------------------------------------------------------------------------- grey scale and view


def twelve(**elements):
    return dataset(ramp(12), 16, **elements)


RIGHT = np.rint(ramp(12) * 255 / 4095).astype(int)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
BITS = "12 of 16 bits used"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (twelve(), BITS),
        (dataset(ramp(12), 16, signed=True), BITS),
        (dataset(ramp(12, signed=True), 16, signed=True, RescaleSlope=2, RescaleIntercept=-3), BITS),
        (dataset(ramp(12), 16, PixelPaddingValue=65535), BITS),
        (picture(Image.fromarray(ramp(12).astype(np.uint16)), "PNG"), BITS),
        (picture(Image.fromarray(ramp(12).astype(np.uint16)), "TIFF"), BITS),
        (twelve(WindowCenter=[0, 2048], WindowWidth=[0, 4096]), ""),
        (twelve(WindowCenter=2000, WindowWidth=4096, RescaleIntercept=-48), ""),  # without a slope
        (twelve(SharedFunctionalGroupsSequence=item(FrameVOILUTSequence=item(**WINDOW))), ""),
        (twelve(PerFrameFunctionalGroupsSequence=item(FrameVOILUTSequence=item(**WINDOW))), ""),
    ],
)
def test_bits_reached_beat_bits_declared_and_the_first_valid_window_counts(tmp_path, content, note):
    found, noted = read(tmp_path / "film", content)
    assert np.abs(found - RIGHT).max() <= 1
    assert note in noted
    assert bool(note) == bool(noted)


def test_entries_of_a_palette_that_need_eight_bits_are_eight_bits(tmp_path):
    colours = {}
    for name in ("Red", "Green", "Blue"):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        colours[f"{name}PaletteColorLookupTableData"] = np.arange(256, dtype="<u2").tobytes()
    found, note = read(tmp_path / "film", dataset(FILM, 8, photometric="PALETTE COLOR", **colours))
    assert np.abs(found - FILM).max() <= 1
    assert "8 of 16 bits used" in note


ROWS, COLUMNS = np.mgrid[1:65, 1:65]  # as DICOM counts them
EDGES = {"LeftVertical": 10, "RightVertical": 51, "UpperHorizontal": 5, "LowerHorizontal": 41}


@pytest.mark.parametrize(
    ("shape", "elements", "shown"),
    [
        (
            "RECTANGULAR",
            {f"Shutter{name}Edge": edge for name, edge in EDGES.items()},
            (ROWS > 5) & (ROWS < 41) & (COLUMNS > 10) & (COLUMNS < 51),
        ),
        (
            "CIRCULAR",
            {"CenterOfCircularShutter": [33, 30], "RadiusOfCircularShutter": 20},
            np.hypot(ROWS - 33, COLUMNS - 30) < 20,
        ),
        ("POLYGONAL", {"VerticesOfThePolygonalShutter": [1, 1, 1, 64, 64, 1]}, ROWS + COLUMNS < 65),
        ("CIRCULAR", {"CenterOfCircularShutter": [33, 33]}, ROWS > 0),  # invalid
        ("RECTANGULAR", {"ShutterLeftVerticalEdge": 60, "ShutterRightVerticalEdge": 20}, ROWS > 0),
    ],
)
def test_a_valid_shutter_is_black(tmp_path, shape, elements, shown):
    content = dataset(np.full((64, 64), 200, np.uint8), 8, ShutterShape=shape, **elements)
    found, _ = read(tmp_path / "film", content)
    assert {*np.unique(found)} <= {0, 200}
    assert np.mean((found == 200) != shown) < 0.03  # whether a curved edge itself is seen differs by a pixel


@pytest.mark.parametrize(
    ("elements", "noted"),
    [
        (
            {"ViewCodeSequence": item(CodeValue="399067008", CodeMeaning="lateral projection")},
            "view LATERAL PROJECTION",
        ),
        ({"ViewCodeSequence": item(CodeValue="272479007", CodeMeaning="postero-anterior")}, ""),
        ({"AnatomicRegionSequence": item(CodeValue="72696002", CodeMeaning="Knee")}, "body part KNEE"),
        ({"PatientOrientation": ["A", "F"]}, "view lateral"),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"PatientOrientation": ["F", "R"]}, "turned or mirrored"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector data"),
        *(({"ViewPosition": view}, "") for view in ("FRONTAL", "P/A", "P-A", "A.P.", "PA_ERECT", "AP_SUPINE")),
        *(({"ViewPosition": view}, f"view {view}") for view in ("LAT", "AP LAT", "RAO")),
        *(({"BodyPartExamined": part}, "") for part in ("TORAX", "TÓRAX", "PECHO", "흉부")),
    ],
)
def test_view_region_and_orientation_are_noted_where_the_class_states_them(tmp_path, elements, noted):
    ds = dataset(FILM, 8, SpecificCharacterSet="ISO_IR 192")
    for name, value in elements.items():
        if isinstance(value, str):
            ds[name] = DataElement(name, "LO", value)  # CS would not be encoded
        else:
            setattr(ds, name, value)
    note = reading.read(save(tmp_path / "film.dcm", ds)).header.note
    assert noted in note
    assert bool(noted) == bool(note)


# ------------------------------------------------------------------------------------------------- patients and tables


def test_what_identifies_nobody_groups_nobody_and_is_counted(tmp_path):
    headers = [Header(patient="a")] * 23 + [Header(patient="b")]
    paths = [tmp_path / f"{number}.dcm" for number in range(24)]
    names = [path.name for path in paths]
    with pytest.warns(UserWarning, match="23 of 24 files have the same Patient ID"):
        found = patients.identify(paths, headers, stated=[""] * 24, named=names, otherwise=names)
    assert len({*found}) == 24
    for placeholder in ("ANON", "Anonymous", "0", "unknown"):
        assert not reading.read(save(tmp_path / "film.dcm", dataset(FILM, 8, PatientID=placeholder))).header.patient
    with pytest.warns(UserWarning, match="3 rows have a patient that identifies nobody: 2,02301E"):
        stated = patients.without_placeholders(["2.02301E+11", "202301000017", "2,02301E+11", "ANON", "E11", "0"])
    assert stated == ["", "202301000017", "", "", "E11", "0"]


@pytest.mark.parametrize("start", ["", "sep=;\r\n"])
def test_cells_are_text_and_lines_are_counted_with_a_directive(tmp_path, start):
    table = tmp_path / "table.csv"
    table.write_text(f"{start}path;label;site\na;None;NA\nb;;EU\n", encoding="utf-8")
    rows = tables.read_table(table, ("path",), ("label",), others=True)
    assert rows["label"].iloc[0] == "None" and rows["site"].tolist() == ["NA", "EU"]
    assert rows.index[rows["label"].isna()].tolist() == [4 if start else 3]


def test_equal_names_of_columns_are_refused_and_a_written_table_has_a_mark(tmp_path):
    table = tmp_path / "table.csv"
    tables.write_csv(table, ("path", "label", "label "), [])
    assert table.read_bytes().startswith(b"\xef\xbb\xbfpath")
    with pytest.raises(ValueError, match="duplicate column label"):
        tables.read_table(table, ("path",), ())


def test_masks_beside_images_are_left_out(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            (tmp_path / folder / f"{number}.png").write_bytes(picture(Image.fromarray(FILM), "PNG"))
    with pytest.warns(UserWarning, match="masks/"):
        assert {path.parent.name for path in reading.find_images([str(tmp_path)])} == {"images"}


# --------------------------------------------------------------------------------------------------------- what fails


def test_skip_bad_leaves_out_whatever_cannot_be_read(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths[:2]:
        path.write_bytes(picture(Image.fromarray(FILM), "PNG"))
    paths[2].symlink_to(tmp_path / "store" / "film.png")
    read_bytes = type(tmp_path).read_bytes
    failing = {paths[1]}

    def refuse(path):
        if path in failing:
            raise OSError(5, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    with pytest.raises(
        ValueError, match=r"2 of 3 images cannot be read: .*Input/output.*is a link to .*film.png, which"
    ):
        reading.decode_once(paths, 32, tmp_path / "cache", name="train", progress=False)
    found = reading.decode_once(paths, 32, tmp_path / "cache", name="train", skip_bad=True, progress=False)
    assert found.readable.tolist() == [True, False, False]
    failing.clear()  # such a failure is not remembered
    found = reading.decode_once(paths, 32, tmp_path / "cache", name="train", skip_bad=True, progress=False)
    assert found.readable.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), OSError(12, "Cannot allocate memory")],
)  # fmt: skip
def test_memory_that_ends_is_one_line(capsys, error):
    def main(_config):
        raise error

    assert cli.run(main, None) == cli.EXIT_USER_ERROR
    assert "lower --batch-size or --size" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["text", "icc_profile"])
def test_long_notes_beside_the_pixels_do_not_cost_the_picture(tmp_path, kind):
    notes, limit = PngImagePlugin.PngInfo(), PngImagePlugin.MAX_TEXT_CHUNK
    notes.add_text("history", "x" * (2 * limit), zip=True)
    options = {"pnginfo": notes} if kind == "text" else {"icc_profile": bytes(2 * limit)}
    found, _ = read(tmp_path / "film.png", picture(Image.fromarray(FILM), "PNG", **options))
    assert (found == FILM).all()
    assert limit == PngImagePlugin.MAX_TEXT_CHUNK


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_that_is_zero_everywhere_is_no_alpha(tmp_path, kind):
    image = Image.merge("RGBA", [*[Image.fromarray(FILM)] * 3, Image.new("L", FILM.shape)])
    found, _ = read(tmp_path / "film", picture(image, kind))
    assert np.abs(found - FILM).max() <= 1


def test_a_refusal_names_what_is_there(tmp_path):
    signed = tmp_path / "film.tif"
    Image.fromarray(FILM.astype(np.int32)).save(signed, tiffinfo={339: 2})
    with pytest.raises(reading.UnreadableImage, match="signed samples"):
        reading.read(signed).whole()
    encapsulated = compressed(dataset(FILM, 8), uid.JPEGBaseline8Bit, picture(Image.fromarray(FILM), "JPEG"))
    inflated = claiming(encapsulated, uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(reading.UnreadableImage, match="no bare deflate stream"):
        reading.read(save(tmp_path / "film.dcm", inflated)).whole()


def test_weights_saved_under_data_parallel_or_in_a_dictionary_are_read():
    import torch

    state = {"conv1.weight": torch.zeros(1)}
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    assert tensors(wrapped, "file") == state


def test_a_zip_with_backslashes_is_unpacked_and_one_of_zips_is_named(tmp_path):
    import download_data

    film = picture(Image.fromarray(FILM), "JPEG")
    for name, entry in (("windows.zip", "chest_xray\\train\\NORMAL\\IM-1.jpeg"), ("nested.zip", "train.zip")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = entry
            archive.writestr(info, film)
    dataset_ = download_data.DATASETS["chest_xray"]
    download_data.unpack(tmp_path / "windows.zip", dataset_, tmp_path / "out")
    assert (tmp_path / "out" / "train" / "NORMAL" / "IM-1.jpeg").read_bytes() == film
    with pytest.raises(ValueError, match="holds zips, unpack these first"):
        download_data.unpack(tmp_path / "nested.zip", dataset_, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["train"]  # noqa: PTH208
