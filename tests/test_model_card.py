"""The card of a finished classifier: every value from its file or a report, the rest "not stated"."""

import json
import re

import pytest

import model_card
from cxr import checkpoints
from cxr.files import sha256_of
from cxr.metrics import interval_text
from model_card import render
from pytorch_classification.classifier import Classifier, weights_sha256
from pytorch_classification.model import TASK


@pytest.fixture
def state(trained):
    return checkpoints.load(trained.config.model_file, task=TASK)


@pytest.fixture
def written(trained, tmp_path, command):
    """The card that the script writes of the trained model, from what is named."""

    def write(*reports):
        output = tmp_path / "card.md"
        ended = command(model_card.main, "--model", trained.config.model_file, "--output", output, *reports)
        assert (ended.code, ended.err) == (0, "")
        return output.read_text(encoding="utf-8")

    return write


@pytest.fixture
def report(trained, state):
    """As evaluate_classification.py writes it, of the trained model on another hospital's images."""
    found = json.loads((trained.config.output_dir / "test_report.json").read_text())
    model = {"weights_sha256": weights_sha256(state["model"])}
    return {**found, "set": "/data/other_hospital", "model": model}


def section(text, heading):
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_card_states_what_the_model_file_holds(trained, written, state):
    text = written()
    assert sha256_of(trained.config.model_file) in section(text, "Summary")
    flow = section(text, "Images and patients")
    assert "| train | 26 | 26 | 26 |" in flow and "Listed for training and validation: 68 images" in flow
    assert "Test: 24 images of " in flow
    recipe = section(text, "Recipe")
    assert "| size | 32 |" in recipe and f"| epoch kept | {state['epoch']} of 6 |" in recipe
    assert re.search(r"\| time \| \d+\.\d minutes for 6 epochs", recipe)
    point = section(text, "Calibration and operating point")
    assert f"Operating point {state['prediction']['threshold']:.6g}" in point
    tested = state["test_report"]["scores"]
    results = section(text, "Results")
    assert f"| ROC AUC | {interval_text(tested['scores']['roc_auc'])} |" in results
    (tn, fp), (fn, tp) = tested["confusion_matrix"]
    assert f"| NORMAL | {tn} | {fp} |" in results and f"| PNEUMONIA | {fn} | {tp} |" in results
    assert f": {fp} of 12 NORMAL predicted as PNEUMONIA, {fn} of 12 PNEUMONIA missed" in section(text, "Failures")


def test_each_item_of_claim_names_a_section_of_the_card(written):
    text = written()
    places_of = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", section(text, "CLAIM 2024"), re.MULTILINE)
    assert [int(number) for number, _ in places_of] == list(range(1, 45))
    for number, place in places_of:
        section_name = place.split(",")[0]
        assert place in ("not stated", "does not apply") or f"\n## {section_name}\n" in text, number
    places = dict(places_of)
    assert places["20"] == "Images and patients" and places["44"] == "not stated"
    assert {places[number] for number in ("5", "7", "8", "16")} == {"Training data"}  # from the page of Kaggle's set
    assert (places["32"], places["33"], places["36"]) == ("Results", "not stated", "not stated")


def test_a_file_without_a_record_gives_a_card_without_values(trained, tmp_path, processor):
    path = tmp_path / "bare.pth"
    Classifier(Classifier.load(trained.config.model_file, processor).model, 32, 36, True, 1.5, 0.25).save(path)
    text = render(checkpoints.load(path, task=TASK), path)
    for heading in ("Images and patients", "Recipe", "Results", "Failures"):
        assert section(text, heading).strip() == "not stated."
    assert "Operating point 0.25" in text and "| source | not stated |" in text
    claimed = re.findall(r"^\| \d+ \| [^|]+ \| (.+) \|$", section(text, "CLAIM 2024"), re.MULTILINE)
    assert {*claimed} == {"Summary", "not stated", "does not apply"}


@pytest.mark.parametrize(
    ("changes", "licence"),
    [({}, "CC BY 4.0"), ({"synthetic": True}, "does not apply"), ({"named": False}, "not stated")],
)
def test_a_licence_is_stated_only_for_data_that_is_known_by_its_names(trained, state, changes, licence):
    state["trained_on"]["synthetic"] = changes.get("synthetic", False)
    state["flow"]["named_as_kaggle"] = changes.get("named", True)
    data = section(render(state, trained.config.model_file), "Training data")
    assert f"| licence | {licence} |" in data and ("Kermany" in data) == (licence == "CC BY 4.0")


def test_reports_add_their_results_subgroups_and_corruptions(report, written, tmp_path, state):
    score = report["scores"]["scores"]["sensitivity"]
    group = {"images": 7, "patients": 5, "pneumonia": 3, "out_of_distribution": 4}
    group["scores"] = dict.fromkeys(("sensitivity", "specificity", "roc_auc"), score)
    report |= {"subgroups": {"sex F": group}, "corruptions": {"blur of 2 pixels": group}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    audit = {
        "data_dir": "/data/chests",
        "images": {"NORMAL": 40, "PNEUMONIA": 41},
        "patients": 33,
        "roc_auc": {"corners": {"value": 0.75, "low": 0.7, "high": 0.8}},
        "contradicting": {"NORMAL": 1, "PNEUMONIA": 2},
        "model": {
            **report["model"],
            "threshold": state["prediction"]["threshold"],
            "groups": {"sensitivity": {style: {**score, "images": 9} for style in ("all", "agrees", "contradicts")}},
        },
    }
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    text = written("--external-report", path, "--internal-report", tmp_path / "audit.json")
    assert "### Images of another source (other_hospital)" in text
    assert f"| sex F | 7 | 5 | 3 | 4 | {interval_text(score)} |" in text
    assert f"| blur of 2 pixels | 7 | 5 | 3 | 4 | {' | '.join([interval_text(score)] * 3)} |" in text
    assert "### Shortcut audit on chests" in text and "| corners | 0.750 (0.700-0.800) |" in text
    assert f"| sensitivity |{f' {interval_text(score)}, 9 images |' * 3}\n" in text
    claimed = section(text, "CLAIM 2024")
    assert "| 30 | Robustness or sensitivity analysis | Results, corrupted images, by style |" in claimed
    assert "| 33 | Testing on external data | Results |" in claimed
    assert "| 36 | Demographic and clinical characteristics | Results, subgroups |" in claimed
    assert "/data/" not in text and "Corrupted images (noise" not in text


def test_an_operating_point_that_was_set_later_is_stated_with_its_scores(trained, report, state):
    cross_fitted = {**report["scores"], "threshold": [0.2, 0.3]}
    report["operating_point"] = {
        "measure": "sensitivity",
        "target": 0.95,
        "threshold": 0.25,
        "cross_fitted": cross_fitted,
    }
    state["prediction"]["threshold"], state["adapted"] = 0.25, {"text": "operating point set for sensitivity 0.95"}
    path = trained.config.model_file
    text = render(state, path, external=[report])
    assert "| changed after training | operating point set for sensitivity 0.95 |" in section(text, "Summary")
    assert "Both were fitted on validation" not in text
    results = section(text, "Results")
    assert "set here for sensitivity 0.95, cross-fitted" in results and "operating point 0.2 to 0.3. 95%" in results


def wrong_threshold(report):
    report["scores"]["threshold"] = 0.123456
    return report


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_threshold, "of these weights at another operating point, 0.123456; this model has "),
        (lambda report: {**report, "model": {"weights_sha256": "ab" * 32}}, "of another model; the SHA-256 of its"),
        (lambda report: {**report, "model": {}}, "not a report on a model"),
        (lambda report: [1, 2], "not a report on a model by evaluate_classification.py or shortcut_audit.py"),
        (lambda report: {**report, "scores": {}}, "not a report on a model"),
    ],
)
def test_a_report_that_is_not_of_this_model_is_refused(trained, report, tmp_path, command, spoil, message):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(spoil(report)))
    output = tmp_path / "card.md"
    words = ("--model", trained.config.model_file, "--external-report", path, "--output", output)
    ended = command(model_card.main, *words)
    assert ended.code == 2 and ended.err.startswith(f"error: {path}: ") and message in ended.err
    assert ended.err.count("\n") == 1 and not output.exists()
