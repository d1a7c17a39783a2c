from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr.reading import NO_HEADER
from pytorch_classification.data_load import (
    Listing,
    identify_patients,
    list_folders,
    list_table,
    missing_test,
    patient_of,
)


def touch(folder, *names):
    """Empty files: a listing does not open them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listing_of(*images):
    """From (patient, label) pairs."""
    patients, labels = zip(*images, strict=True)
    return Listing([Path(f"{n}.jpeg") for n in range(len(images))], np.array(labels), list(patients))


# ------------------------------------------------------------------------------------------------- patients and files


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person17_bacteria_56.jpeg", "person17"),
        ("person17_virus_48.jpeg", "person17"),
        ("person1000_virus_1681.jpeg", "person1000"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0033-0001-0002.jpeg", "IM-0033"),
        ("NORMAL2-IM-0115-0001.jpeg", "NORMAL2-IM-0115"),
        ("NORMAL2-IM-1345-0001-0003.jpeg", "NORMAL2-IM-1345"),
        ("chest.jpeg", None),
        ("person17.jpeg", None),
        ("IM-0115.jpeg", None),
        ("my_person17_bacteria_56.jpeg", None),
        ("personX_bacteria_1.jpeg", None),
    ],
)
def test_the_patient_is_read_from_the_file_name(name, patient):
    assert patient_of(Path("train") / "NORMAL" / name) == patient


def test_splits_are_listed_in_order_with_labels_and_patients(tmp_path):
    touch(tmp_path / "train", "NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person2_virus_3.png", "NORMAL/IM-0002-0001.JPG")
    touch(tmp_path / "val", "NORMAL/NORMAL2-IM-0003-0001.tif", "PNEUMONIA/person4_bacteria_5.dcm")
    listing = list_folders(tmp_path, "train", "val")
    assert [path.relative_to(tmp_path).as_posix() for path in listing.paths] == [
        "train/NORMAL/IM-0001-0001.jpeg",
        "train/NORMAL/IM-0002-0001.JPG",
        "train/PNEUMONIA/person2_virus_3.png",
        "val/NORMAL/NORMAL2-IM-0003-0001.tif",
        "val/PNEUMONIA/person4_bacteria_5.dcm",
    ]
    assert listing.labels.tolist() == [0, 0, 1, 0, 1] and listing.labels.dtype == np.int64
    assert listing.patients == ["IM-0001", "IM-0002", "person2", "NORMAL2-IM-0003", "person4"]
    taken = listing.take(np.array([4, 0]))
    assert (taken.paths, taken.labels.tolist(), taken.patients) == (
        [listing.paths[4], listing.paths[0]],
        [1, 0],
        ["person4", "IM-0001"],
    )


def test_images_of_unknown_patients_are_patients_of_their_own_with_one_warning(tmp_path):
    touch(tmp_path / "train", "NORMAL/a.png", "NORMAL/sub/a.png", "NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/a.png")
    warned = r"^the patient of 3 of 4 images is unknown \(first: a\.png\); each counts as one patient"
    with pytest.warns(UserWarning, match=warned) as caught:
        listing = identify_patients(list_folders(tmp_path, "train"), [NO_HEADER] * 4)
    assert len(caught) == 1
    # The whole place, with slashes on every system: two files called a.png are two patients, and the split hangs on it.
    assert listing.patients == ["IM-0001", "train/NORMAL/a.png", "train/NORMAL/sub/a.png", "train/PNEUMONIA/a.png"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["NORMAL/a.png"], "NORMAL"),
        (["PNEUMONIA/a.png"], "PNEUMONIA"),
        (["normal/a.png", "pneumonia/a.png"], "normal, pneumonia"),
        (["NORMAL/a.png", "PNEUMONIA/a.png", "COVID/a.png"], "COVID, NORMAL, PNEUMONIA"),
        (["a.png"], "none"),
    ],
)
def test_other_class_folders_are_refused_with_what_was_found(tmp_path, names, found):
    touch(tmp_path / "train", *names)
    with pytest.raises(
        ValueError,
        match=rf"expected the class folders NORMAL, PNEUMONIA \(name yours with --normal .*\), found {found}$",
    ):
        list_folders(tmp_path, "train")


# ------------------------------------------------------------------------------------------------ images of one's own


def test_class_folders_may_have_other_names_and_a_class_several(tmp_path):
    touch(tmp_path / "train", "healthy/a.png", "viral/IM-0001-0001.png", "bacterial/b.png")
    listing = list_folders(tmp_path, "train", names=(("healthy",), ("bacterial", "viral")))
    assert [path.name for path in listing.paths] == ["b.png", "a.png", "IM-0001-0001.png"]
    assert listing.labels.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="both --normal and --pneumonia name healthy"):
        list_folders(tmp_path, "train", names=(("healthy",), ("viral", "healthy")))


def write_table(folder, text):
    touch(folder, *(f"images/{name}" for name in ("a.png", "b.png", "person7_virus_1.jpeg")))
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_a_table_gives_label_patient_and_other_columns(tmp_path):
    table = write_table(
        tmp_path,
        "label,path,site,patient\nNORMAL,images/a.png,Busan,p1\nPNEUMONIA,images/b.png,,\n"
        "PNEUMONIA,images/person7_virus_1.jpeg, Seoul ,\n",
    )
    listing = identify_patients(list_table(table), [NO_HEADER, NO_HEADER._replace(patient="hash"), NO_HEADER])
    assert listing.paths == [tmp_path / "images" / name for name in ("a.png", "b.png", "person7_virus_1.jpeg")]
    assert listing.labels.tolist() == [0, 1, 1] and listing.patients == ["p1", "hash", "person7"]
    assert listing.columns["site"] == ["Busan", "", "Seoul"]
    assert listing.take(np.array([2])).columns == {"site": ["Seoul"], "patient": [""]}


def test_a_table_with_a_column_split_gives_the_rows_of_a_split(tmp_path):
    table = write_table(
        tmp_path,
        "path,label,split\nimages/a.png,NORMAL,train\nimages/b.png,PNEUMONIA,val\n"
        "images/person7_virus_1.jpeg,NORMAL,test\n",
    )
    assert [path.name for path in list_table(table, "train", "val").paths] == ["a.png", "b.png"]
    assert missing_test(tmp_path, table) == ""
    with pytest.raises(ValueError, match="no image of label PNEUMONIA and split test; both classes are needed"):
        list_table(table, "test")
    table.write_text("path,label\nimages/a.png,NORMAL\n")
    assert missing_test(tmp_path, table) == f"no row of split test in {table}"


def test_dicom_headers_identify_patients_before_file_names_do():
    listing = listing_of(("person1", 1), ("1.jpeg", 0), ("2.jpeg", 0))
    headers = [NO_HEADER._replace(patient=patient) for patient in ("x", "y", "x")]
    assert identify_patients(listing, headers).patients == ["x", "y", "x"]


def test_a_patient_id_that_all_files_share_identifies_nobody(tmp_path):
    """Anonymising leaves the same word in each."""
    listing = listing_of(*((f"IM-{number:04}", 0) for number in range(10)))
    listing = replace(listing, paths=[Path(f"IM-{number:04}-0001.dcm") for number in range(10)])
    headers = [NO_HEADER._replace(patient="anonymous")] * 10
    with pytest.warns(UserWarning, match="^10 of 10 files have the same Patient ID, so it does not identify patients$"):
        assert identify_patients(listing, headers).patients == listing.patients
    assert identify_patients(listing.take(np.arange(9)), headers[:9]).patients == ["anonymous"] * 9
