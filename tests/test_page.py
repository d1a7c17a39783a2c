import base64
import csv
import hashlib
import re

import pytest
from tiny_worklist import HOSTILE, Page, box, exam, written

from reading_room import page
from reading_room.texts import TEXTS


def table_in(folder):
    with (folder / page.TABLE).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_exams_are_sorted_by_urgency_and_equal_ones_by_boxes(tmp_path):
    exams = [
        exam(0, probability=0.2, file="low"),
        exam(1, probability=0.9, highest_score=0.3, file="equal, weaker box"),
        exam(2, probability=0.9, highest_score=0.7, file="equal, stronger box"),
        exam(3, probability=0.99, out_of_distribution=True, file="highest"),
    ]
    rows = Page(written(tmp_path, exams)).rows
    assert [row["data-file"] for row in rows] == ["highest", "equal, stronger box", "equal, weaker box", "low"]
    assert [row["data-rank"] for row in rows] == ["1", "2", "3", "4"]
    table = table_in(tmp_path)
    assert [row["file"] for row in table] == [row["data-file"] for row in rows]


def test_boxes_are_in_pixels_of_the_original(tmp_path):
    tags = Page(written(tmp_path, [exam(0, boxes=(box(),), highest_score=0.8)])).tags
    (drawn,) = [attributes for tag, attributes in tags if tag == "rect" and "class" not in attributes]
    assert drawn == {"x": "10.00", "y": "20.00", "width": "30.50", "height": "40.00"}
    (frame,) = [attributes for tag, attributes in tags if tag == "svg" and attributes.get("class") == "boxes"]
    assert frame["viewbox"] == "0 0 120 100"  # pixels of the original


def test_the_page_needs_no_other_file(tmp_path):
    parsed = Page(written(tmp_path, [exam(0)]))
    sources = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(source.startswith(("data:", "#")) for source in sources) and len(sources) >= 3
    assert not any(re.search(r"url\(|@import|https?:", code) for code in parsed.codes)
    (policy,) = [
        value for _, attributes in parsed.tags for value in attributes.values() if value and "default-src" in value
    ]
    assert "default-src 'none'" in policy
    style, _, script = (code for code in parsed.codes if code.strip())
    for code in (style, script):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_and_headers_stay_text(tmp_path, hostile):
    exams = [
        exam(0, file=hostile, view=hostile, patient=hostile, key=hostile),
        exam(1, file=hostile, error=hostile),
    ]
    harmless = Page(written(tmp_path / "a", [exam(0, patient="Hong"), exam(1, error="damaged")], identifiers=True))
    parsed = Page(written(tmp_path / "b", exams, identifiers=True))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in harmless.tags]  # no element more, none less
    assert [sorted(names) for _, names in parsed.tags] == [sorted(names) for _, names in harmless.tags]
    assert parsed.codes == harmless.codes
    text = (tmp_path / "b" / page.PAGE).read_text(encoding="utf-8")
    assert not re.search("[\x07\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert max(map(len, parsed.texts)) < 1000


def test_the_table_holds_every_prediction_and_every_failure(tmp_path):
    exams = [
        exam(0, probability=0.61, boxes=(box(),), highest_score=0.8),
        exam(1, error="is empty (0 bytes)"),
        exam(2, probability=0.2, out_of_distribution=False),
        exam(3, probability=0.5),
    ]
    written(tmp_path, exams)
    rows = table_in(tmp_path)
    assert rows[0] == {
        "rank": "1",
        "file": "folder/exam-0000.dcm",
        "probability": "0.610000",
        "threshold": "0.500000",
        "class": "PNEUMONIA",
        "borderline": "yes",
        "out_of_distribution": "",
        "boxes": "1",
        "highest_score": "0.800000",
        "acquired": "2026-11-01T10:00",
        "view": "PA",
        "note": "",
        "key": "1.2.3.0",
        "error": "",
    }
    assert rows[1]["class"] == "PNEUMONIA"  # at the threshold itself
    assert (rows[2]["class"], rows[2]["borderline"], rows[2]["out_of_distribution"]) == ("NORMAL", "no", "no")
    assert (rows[3]["rank"], rows[3]["file"], rows[3]["error"]) == ("", "folder/exam-0001.dcm", "is empty (0 bytes)")
    assert len(rows) == 4


def test_every_text_is_in_both_languages_with_the_same_values():
    for key, (english, korean) in TEXTS.items():
        assert english.strip() and korean.strip(), key
        values = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (english, korean)]
        assert values[0] == values[1], key
        assert re.search("[가-힣]", korean) or english == korean, key
