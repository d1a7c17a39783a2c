import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_classification
from killing import CONTEXT, FAREWELL, KILLED, ROOT, TERMINATED, UNHEARD, finished, needs_signals, run_main
from PIL import Image
from tiny_detection import anything_goes, chest, write_classifier, write_dicom
from tiny_worklist import Page

import worklist
from cxr.prediction import remarks


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Flags that name an untrained classifier and detector."""
    import torch

    from pytorch_detection.detector import Detector, Rule
    from pytorch_detection.model import Architecture, construct

    folder = tmp_path_factory.mktemp("models")
    write_classifier(folder / "classifier.pth")
    torch.manual_seed(0)
    network = construct(Architecture("resnet18", 64, frozen=False, image_head=True))
    Detector((network,), False, Rule(0.0, 1.0, 0.3), anything_goes()).save(folder / "detector.pth")
    return ["--classifier", folder / "classifier.pth", "--detector", folder / "detector.pth"]


def write_exam(path, number, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"PatientID": f"PAT-{number:04}", "PatientName": f"Hong^Gildong{number}", "ViewPosition": "AP"}
    write_dicom(
        path, chest(number)[0], **header | {"AcquisitionDate": "20261120", "AcquisitionTime": "103205"} | values
    )
    return path


def write_photograph(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tiny_classification.chest(number % 2, number)).save(path, quality=92)
    return path


@pytest.fixture
def exams(tmp_path):
    """Four exams as DICOM and two as JPEG."""
    folder = tmp_path / "exams"
    for number in range(4):
        write_exam(folder / f"ward-{number % 2}" / f"{number}.dcm", number)
    for number in (4, 5):
        write_photograph(folder / f"{number}.jpeg", number)
    return folder


def table_of(folder, name="worklist.csv"):
    with (folder / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def journal_of(folder):
    return [json.loads(line) for line in (folder / "exams.jsonl").read_text(encoding="utf-8").splitlines()]


def test_predictions_equal_those_of_both_predict_scripts(exams, models, tmp_path, command):
    from pytorch_classification import predict_classification
    from pytorch_detection import predict_detection

    ran = command(worklist.main, "--image", exams, *models, "--output-dir", tmp_path / "out")
    assert (ran.code, ran.out.splitlines()[0][:8]) == (0, "6 exams:"), ran.err
    common = ["--image", exams, "--output-dir", tmp_path / "predictions"]
    command(predict_classification.main, *common, "--model", models[1])
    probabilities = {Path(row["path"]).name: row for row in table_of(tmp_path / "predictions", "classification.csv")}
    command(predict_detection.main, *common, "--model", models[3], "--no-pictures")
    boxes = table_of(tmp_path / "predictions", "detection.csv")
    rows = table_of(tmp_path / "out")
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 7)]
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    journal = {line["file"]: line for line in journal_of(tmp_path / "out")[1:]}
    for row in rows:
        name = Path(row["file"]).name
        expected = probabilities[name]
        assert float(row["probability"]) == pytest.approx(float(expected["probability"]), abs=1e-5)
        assert [row[name] for name in ("class", "borderline", "out_of_distribution")] == [
            expected[name] for name in ("class", "borderline", "out_of_distribution")
        ]
        found = [
            [float(box[side]) for side in ("x", "y", "width", "height")]
            for box in boxes
            if Path(box["path"]).name == name and box["x"]
        ]
        mine = [box[:4] for box in journal[row["file"]]["prediction"]["boxes"]]
        assert len(found) == len(mine) == int(row["boxes"])
        assert np.allclose(found, mine, rtol=0, atol=0.06)  # the table has one decimal


def test_an_image_is_out_of_distribution_for_one_of_the_models(exams, models, tmp_path, command, processor):
    from dataclasses import replace

    from pytorch_detection.detector import Detector

    detector = Detector.load(models[3], processor)
    replace(detector, feature_distance=replace(detector.feature_distance, limit=1e-6)).save(tmp_path / "strict.pth")
    pytest.importorskip("highdicom")
    import pydicom

    write_exam(exams / "hand.dcm", 9, BodyPartExamined="HAND")
    output = ["--output-dir", tmp_path / "out", "--dicom-output", tmp_path / "pacs"]
    ran = command(worklist.main, "--image", exams, *models[:3], tmp_path / "strict.pth", *output)
    assert ran.code == 0 and {row["out_of_distribution"] for row in table_of(tmp_path / "out")} == {"yes"}
    reports = [pydicom.dcmread(path).to_json() for path in (tmp_path / "pacs").glob("report_*.dcm")]
    assert len(reports) == 5 and all(remarks(True)[0] in text for text in reports)
    assert sum("body part HAND" in text for text in reports) == 1


def test_unreadable_files_are_listed_and_the_others_predicted(exams, models, tmp_path, command):
    (exams / "empty.dcm").touch()
    (exams / "text.jpeg").write_text("no picture")
    whole = (exams / "4.jpeg").read_bytes()
    (exams / "4.jpeg").write_bytes(whole[: len(whole) // 2])
    ran = command(worklist.main, "--image", exams, *models, "--output-dir", tmp_path / "out")
    assert ran.code == 1 and "5 exams:" in ran.out and "3 without a prediction" in ran.out
    failed = [row["file"] for row in table_of(tmp_path / "out") if row["error"]]
    assert failed == ["4.jpeg", "empty.dcm", "text.jpeg"]
    page = Page(tmp_path / "out" / "worklist.html")
    assert len(page.rows) == 5 and "empty.dcm is empty (0 bytes)" in page.text


def test_a_copy_is_predicted_once_and_a_second_image_of_one_uid_fails(exams, models, tmp_path, command):
    write_exam(exams / "other" / "0.dcm", 0, WindowCenter="50", WindowWidth="50")  # the UID comes from the name
    shutil.copy(exams / "ward-0" / "0.dcm", exams / "again.dcm")
    shutil.copy(exams / "4.jpeg", exams / "4 again.jpeg")
    for _ in range(2):  # the second time with the page of the first in the folder
        ran = command(worklist.main, "--image", exams, *models, "--output-dir", exams / "out")
        assert ran.code == 1 and "6 exams:" in ran.out
        (failed,) = [row for row in table_of(exams / "out") if row["error"]]
        assert "duplicate SOP Instance UID of another image" in failed["error"]


def test_patients_are_shown_only_with_identifiers(tmp_path, models, command):
    write_exam(tmp_path / "in" / "PAT-0007" / "hong_gildong7.dcm", 7)
    (tmp_path / "in" / "PAT-0007" / "PAT-0008.dcm").write_bytes(
        (tmp_path / "in/PAT-0007/hong_gildong7.dcm").read_bytes()[:-9]
    )
    common = [worklist.main, "--image", tmp_path / "in", *models, "--output-dir"]
    assert command(*common, tmp_path / "out").code == 1
    for path in (tmp_path / "out").iterdir():
        if path.is_file():
            text = path.read_text(encoding="utf-8").casefold()
            assert not any(name in text for name in ("gildong", "pat-0007")), path
    assert command(*common, tmp_path / "named", "--identifiers").code == 1
    text = (tmp_path / "named" / "worklist.html").read_text(encoding="utf-8")
    assert "Hong Gildong7 · PAT-0007" in text and "PAT-0007/hong_gildong7.dcm" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--image": "nowhere"}, "nowhere: no such file or folder"),
        ({"--detector": "none.pth"}, "no model at .*none.pth; train one with .*train_detection.py"),
    ],
)
def test_a_mistake_is_one_line_and_an_earlier_worklist_stays(exams, models, tmp_path, command, changes, message):
    flags = dict(zip(models[::2], models[1::2], strict=True)) | {"--image": exams, "--output-dir": tmp_path / "out"}
    assert command(worklist.main, *(word for pair in flags.items() for word in pair)).code == 0
    before = (tmp_path / "out" / "worklist.html").read_bytes()
    ran = command(worklist.main, *(word for pair in (flags | changes).items() for word in pair))
    assert ran.code == 2 and len(ran.err.splitlines()) == 1
    import re

    assert re.search(message, ran.err), ran.err
    assert (tmp_path / "out" / "worklist.html").read_bytes() == before


def test_dicom_results_hold_the_boxes_and_are_ignored_in_the_inbox(exams, models, tmp_path, command):
    pytest.importorskip("highdicom")
    import pydicom

    pacs = tmp_path / "pacs"
    arguments = ["--image", exams, *models, "--output-dir", tmp_path / "out", "--dicom-output", pacs]
    for path in (exams / "ward-0").iterdir():
        path.unlink()
    ran = command(worklist.main, *arguments)
    assert ran.code == 0, ran.err
    documents = [pydicom.dcmread(path) for path in pacs.iterdir()]
    reports = [document for document in documents if document.Modality == "SR"]
    assert len(reports) == 2 and len(documents) == 4  # of the DICOM files alone, with a picture each
    assert all(document.SeriesDescription.startswith("Research only") for document in documents)
    boxes = {line["key"]: line["prediction"]["boxes"] for line in journal_of(tmp_path / "out")[1:]}
    for report in reports:
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        source = evidence.ReferencedSOPSequence[0]
        assert report.to_json().count("POLYLINE") == len(boxes[source.ReferencedSOPInstanceUID])
    before = {path.name for path in pacs.iterdir()}
    shutil.copytree(pacs, exams / "returned")
    with pytest.warns(UserWarning, match="ignored as DICOM results of this program: .*returned"):
        ran = command(worklist.main, *arguments)
    assert ran.code == 0 and "4 exams:" in ran.out and "0 without a prediction" in ran.out
    assert {path.name for path in pacs.iterdir()} == before  # the same documents


# ------------------------------------------------------------------------------------------------- --watch


def _run(arguments, log, die_at):
    """The script in a process of its own, which kills itself at access ``die_at`` to a file of its output."""
    sys.path.insert(0, str(ROOT))
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import worklist

    sys.argv = ["worklist.py", *map(str, arguments)]
    out, touched = str(arguments[arguments.index("--output-dir") + 1]), 0

    def hook(event, what):
        nonlocal touched
        if event in ("open", "os.rename", "os.remove") and str(what[0]).startswith(out):
            touched += 1
            if touched == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = run_main(worklist.main)
    sys.stdout.flush()
    os._exit(code)


class Watch:
    """``worklist.py --watch`` over ``folder / "in"``, to be started again and again."""

    def __init__(self, folder, models):
        self.inbox, self.out, self.log = folder / "in", folder / "out", folder / "log.txt"
        self.inbox.mkdir()
        self.arguments = [
            "--watch",
            "--stable-seconds",
            "0.4",
            "--image",
            self.inbox,
            *models,
            "--output-dir",
            self.out,
        ]
        self.process = None

    def start(self, die_at=0):
        self.process = CONTEXT.Process(target=_run, args=(self.arguments, self.log, die_at))
        self.process.start()

    def wait(self, condition, seconds=120):
        """Until ``condition`` holds, or the process has ended."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.log.read_text(encoding="utf-8")
            if not self.process.is_alive():
                return
            time.sleep(0.02)

    def predicted(self):
        """Files of the table, which must be whole."""
        if not (self.out / "worklist.csv").exists():
            return []
        return [row["file"] for row in table_of(self.out) if not row["error"]]

    def stop(self, by=signal.SIGTERM):
        os.kill(self.process.pid, by)
        return finished(self.process)


@pytest.fixture
def watch(tmp_path, models):
    found = Watch(tmp_path, models)
    yield found
    if found.process is not None and found.process.is_alive():
        found.stop(signal.SIGKILL)


@needs_signals
def test_watch_predicts_what_arrives_and_resumes_after_an_interruption(watch, tmp_path, command):
    write_exam(watch.inbox / "0.dcm", 0)
    watch.start()
    watch.wait(lambda: watch.predicted() == ["0.dcm"])
    whole = write_exam(tmp_path / "1.dcm", 1).read_bytes()
    half = watch.inbox / "1.dcm"  # is still being written, and longer than a file has to rest
    for end in range(1000, len(whole), 3000):
        half.write_bytes(whole[:end])
        time.sleep(0.1)
    assert watch.predicted() == ["0.dcm"]
    assert not any(row["error"] for row in table_of(watch.out))
    half.write_bytes(whole)
    watch.wait(lambda: len(watch.predicted()) == 2)
    ran = command(worklist.main, *watch.arguments)
    assert ran.code == 2 and "another run is writing to" in ran.err and "give another --output-dir" in ran.err
    (watch.inbox / "0.dcm").unlink()  # an exam stays on the page
    assert watch.stop() == TERMINATED
    lines = watch.log.read_text(encoding="utf-8").splitlines()
    assert lines[-1] == FAREWELL and "2 exams" in lines[-2]
    write_exam(watch.inbox / "2.dcm", 2)
    watch.start()
    watch.wait(lambda: len(watch.predicted()) == 3)
    assert watch.stop() == TERMINATED
    assert sorted(line["file"] for line in journal_of(watch.out)[1:]) == ["0.dcm", "1.dcm", "2.dcm"]  # once each
    assert "reload to see new exams" in Page(watch.out / "worklist.html").text


@needs_signals
@pytest.mark.parametrize(("kills", "seed"), [(3, 0), pytest.param(30, 1, marks=pytest.mark.slow)])
def test_no_kill_loses_or_repeats_an_exam(watch, kills, seed):
    """While files, broken ones and copies arrive; every second kill is at an access to output, every third SIGTERM."""
    chance = random.Random(seed)
    expected, died = set(), []
    for number in range(kills):
        watch.start(die_at=chance.randint(1, 40) if number % 2 else 0)
        begun, life = time.monotonic(), chance.uniform(0, 4)
        for part in range(3):
            name = f"{number}-{part}"
            if part < 2:
                write_exam(watch.inbox / f"{name}.dcm", 3 * number + part)
                expected.add(f"{name}.dcm")
            else:
                write_photograph(watch.inbox / f"{name}.jpeg", 3 * number + part)
                expected.add(f"{name}.jpeg")
            time.sleep(chance.uniform(0, 0.3))
        if number % 3 == 0:
            (watch.inbox / f"{number}-broken.dcm").write_bytes(b"broken")
            shutil.copy(watch.inbox / f"{number}-0.dcm", watch.inbox / f"{number}-copy.dcm")
        watch.wait(lambda begun=begun, life=life: time.monotonic() - begun > life)
        by = signal.SIGTERM if number % 3 == 1 else signal.SIGKILL
        if watch.process.is_alive():
            watch.stop(by)
        died.append(finished(watch.process))
        assert died[-1] in (KILLED, TERMINATED, UNHEARD), watch.log.read_text(encoding="utf-8")
        page = watch.out / "worklist.html"
        assert not page.exists() or page.read_text(encoding="utf-8").endswith("</html>\n")
    watch.start()
    watch.wait(lambda: len(watch.predicted()) == len(expected))
    assert watch.stop() == TERMINATED, watch.log.read_text(encoding="utf-8")
    copied = {name.replace("-0.dcm", "-copy.dcm") for name in expected}
    predicted = [line for line in journal_of(watch.out)[1:] if not line["prediction"]["error"]]
    assert len(predicted) == len({line["key"] for line in predicted}) == len(expected)  # each once
    assert {line["file"] for line in predicted} <= expected | copied  # of two copies one
    rows = table_of(watch.out)
    assert len(rows) == len(expected) + len([row for row in rows if row["error"]])
    assert {row["file"] for row in rows if row["error"]} == {f"{n}-broken.dcm" for n in range(0, kills, 3)}
    assert len(Page(watch.out / "worklist.html").rows) == len(expected)
    assert not list(watch.out.glob("*.partial"))
    pictures = {path.name for path in (watch.out / "pictures").iterdir()}
    assert len(pictures) == 2 * len(expected)
