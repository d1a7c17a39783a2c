import re
from pathlib import Path

import make_sample_data
from cxr import model_file
from cxr.model_file import ModelProvenance

TRAINED = {"folder": "xray", "images": 12, "patients": 7, "synthetic": True, "date": "2026-01-02", "commit": "abc"}


def test_a_model_says_what_it_was_trained_on_how_well_it_did_and_what_it_is_for():
    found = ModelProvenance.of(
        {"trained_on": TRAINED, "validation": {"images": 3, "roc_auc": 0.98765}}, Path("a/m.pth")
    )
    assert found.sentence(0.25) == (
        "m.pth, trained on 12 synthetic images of 7 patients (xray), 2026-01-02, commit abc; validation (3 images): "
        "ROC AUC 0.988; operating point 0.250; research only, not a medical device"
    )
    assert found.short() == "m.pth, trained on 12 synthetic images of 7 patients (xray), 2026-01-02, commit abc"
    both = ModelProvenance.of({"trained_on": TRAINED, "members": [{}]}, Path("m.pth"))
    assert both.short().startswith("m.pth, 2 networks trained on 12 ") and both.record()["networks"] == 2


def test_scores_of_several_sets_are_told_apart():
    found = ModelProvenance.of({"validation": {"own": {"auc": 0.5}, "other": {"auc": 0.75}}}, Path("m.pth"))
    assert found.validation == {"own auc": 0.5, "other auc": 0.75}


def test_a_sentence_holds_the_main_scores_of_one_set_and_the_record_all():
    scores = {"images": 3, "roc_auc": 0.9, "sensitivity": 0.8, "specificity": 0.7, "brier": 0.1, "ece": 0.05}
    told = "(3 images): ROC AUC 0.900, sensitivity 0.800, specificity 0.700; operating point 0.500"
    for name, shown in {"val": "validation", "my set, cross-fitted": "my set, cross-fitted"}.items():
        found = ModelProvenance.of({"validation": {name: scores, "shifted": scores}}, Path("m.pth"))
        assert f"; {shown} {told}; " in found.sentence(0.5)
        assert len(found.record()["validation"]) == 12
    detector = ModelProvenance.of({"validation": {"images": 9, "rsna_score": 0.25}}, Path("m.pth"))
    assert "; validation (9 images): RSNA score 0.250; " in detector.sentence(0.5)
    assert "RSNA" not in detector.with_manual_threshold().sentence(0.5)


def test_a_file_that_says_nothing_is_no_error():
    sentence = ModelProvenance.of({}, Path("m.pth")).sentence(0.5)
    assert sentence.startswith("m.pth, trained on images that the model file does not state; operating point 0.500; ")
    numbers = {"roc_auc": float("nan"), "specificity": 0.5}
    assert ModelProvenance.of({"validation": numbers}, Path("m.pth")).validation == {"specificity": 0.5}
    assert "commit not stated" in ModelProvenance.of({"trained_on": {**TRAINED, "commit": None}}, Path("m.pth")).short()


def test_an_operating_point_that_was_set_after_training_is_part_of_every_answer():
    state = {"validation": {"val": {"roc_auc": 0.5, "sensitivity": 0.9}}, "adapted": {"text": "set by\nlabels"}}
    found = ModelProvenance.of(state, Path("m.pth"))
    assert found.short().endswith("; set by labels") and "; set by labels; validation: " in found.sentence(0.5)
    assert found.record()["adapted"] == "set by labels"
    by_hand = found.with_manual_threshold()
    assert by_hand.validation == {"val roc auc": 0.5} and by_hand.adapted == "operating point set by --threshold"


def test_sample_data_are_known_as_synthetic(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / make_sample_data.RECORD).write_text("{}")
    own, sample = (model_file.trained_on(tmp_path / name, 5, 4) for name in ("own", "sample"))
    assert (own["synthetic"], sample["synthetic"]) == (False, True) and own["folder"] == "own"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", own["date"]) and (own["images"], own["patients"]) == (5, 4)
