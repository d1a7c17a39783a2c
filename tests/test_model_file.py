import hashlib
import re
from pathlib import Path

import numpy as np

import make_sample_data
from cxr import checkpoints, model_file
from cxr.model_file import ModelProvenance

TRAINED = {"folder": "xray", "images": 12, "patients": 7, "synthetic": True, "date": "2026-01-02", "commit": "abc"}


def test_a_sentence_has_training_set_scores_threshold_and_intended_use():
    found = ModelProvenance.of(
        {"trained_on": TRAINED, "validation": {"images": 3, "roc_auc": 0.98765}}, Path("a/m.pth")
    )
    assert found.sentence(0.25) == (
        "m.pth, trained on 12 synthetic images of 7 patients (xray), 2026-01-02, commit abc; validation (3 images): "
        "ROC AUC 0.988; operating point 0.250; research only, not a medical device"
    )
    both = ModelProvenance.of({"trained_on": TRAINED, "members": [{}]}, Path("m.pth"))
    assert both.sentence(0.5).startswith("m.pth, 2 networks trained on 12 ") and both.record()["networks"] == 2


def test_rows_of_tables_name_the_file_by_its_hash(tmp_path):
    (tmp_path / "m.pth").write_bytes(b"model")
    found = ModelProvenance.of({}, tmp_path / "m.pth")
    assert found.model_id == f"m.pth {hashlib.sha256(b'model').hexdigest()[:12]}" == found.record()["model_id"]


def test_a_sentence_holds_the_main_scores_of_one_set_and_the_record_all():
    scores = {"images": 3, "roc_auc": 0.9, "sensitivity": 0.8, "specificity": 0.7, "brier": 0.1, "ece": float("nan")}
    text = "(3 images): ROC AUC 0.900, sensitivity 0.800, specificity 0.700; operating point 0.500"
    for name, shown in {"val": "validation", "my set, cross-fitted": "my set, cross-fitted"}.items():
        found = ModelProvenance.of({"validation": {name: scores, "shifted": scores}}, Path("m.pth"))
        assert f"; {shown} {text}; " in found.sentence(0.5)
        assert all(name.isidentifier() for name in found.record()["validation"])
        assert len(found.record()["validation"]) == 10  # without those that are not finite
    detector = ModelProvenance.of({"validation": {"images": 9, "rsna_score": 0.25}}, Path("m.pth"))
    assert "; validation (9 images): RSNA score 0.250; " in detector.sentence(0.5)
    assert "RSNA" not in detector.with_manual_threshold().sentence(0.5)


def test_a_file_without_provenance_is_no_error():
    sentence = ModelProvenance.of({}, Path("m.pth")).sentence(0.5)
    assert sentence.startswith("m.pth, trained on images that the model file does not state; operating point 0.500; ")
    assert "commit not stated" in ModelProvenance.of(
        {"trained_on": {**TRAINED, "commit": None}}, Path("m.pth")
    ).sentence(0.5)


def test_a_threshold_that_was_set_after_training_is_part_of_the_provenance():
    state = {"validation": {"val": {"roc_auc": 0.5, "sensitivity": 0.9}}, "adapted": {"text": "set by\nlabels"}}
    found = ModelProvenance.of(state, Path("m.pth"))
    assert "; set by labels; validation: " in found.sentence(0.5)
    manual = found.with_manual_threshold()
    assert manual.validation == {"val roc auc": 0.5} and manual.adapted == "operating point set by --threshold"


def test_sample_data_are_recorded_as_synthetic(tmp_path):
    for name in ("own", "sample"):
        (tmp_path / name).mkdir()
    (tmp_path / "sample" / make_sample_data.RECORD).write_text("{}")
    own, sample = (model_file.trained_on(tmp_path / name, 5, 4) for name in ("own", "sample"))
    assert (own["synthetic"], sample["synthetic"]) == (False, True) and own["folder"] == "own"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", own["date"]) and (own["images"], own["patients"]) == (5, 4)


def test_a_model_file_identifies_its_training_images(tmp_path):
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]
    keys = model_file.image_keys(hashes, np.array([4, 1]), np.array([0]))
    checkpoints.save(tmp_path / "m.pth", task="x", known_images=model_file.pack_keys(keys))
    found = model_file.unpack_keys(checkpoints.load(tmp_path / "m.pth", task="x")["known_images"])
    assert [model_file.image_key(sha256) in found for sha256 in hashes] == [True, True, False, False, True, False]
    assert model_file.unpack_keys(model_file.pack_keys(frozenset())) == frozenset()
    assert model_file.unpack_keys(model_file.pack_keys(None)) is None
