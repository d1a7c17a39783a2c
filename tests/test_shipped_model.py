"""The bundled classifier against its recorded predictions and its card."""

import json

import pytest
from shipped_model import MODEL, ON_RSNA, RECORDED, is_committed, is_replaced, predictions

from cxr import checkpoints
from cxr.files import sha256_of
from model_card import read_report, render
from pytorch_classification.model import TASK

RECORD_ANEW = (
    "a model that is to be shipped is recorded by `python tests/shipped_model.py`, evaluated anew, and described by "
    "`python model_card.py --external-report docs/results/pneumonia_resnet18_on_rsna.json`"
)


@pytest.fixture(scope="module")
def recorded():
    if not RECORDED.exists() and not is_committed():
        pytest.skip(f"no model is shipped: {MODEL.name} is not committed; {RECORD_ANEW}")
    if is_replaced():
        pytest.skip(f"{MODEL.name} is not the one that was committed, which `git checkout {MODEL.name}` brings back")
    assert RECORDED.exists(), f"{MODEL.name} is committed without {RECORDED.name}; {RECORD_ANEW}"
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def test_the_shipped_model_is_the_recorded_one(recorded):
    assert MODEL.exists(), f"{RECORDED.name} is there, {MODEL.name} is not"
    assert sha256_of(MODEL) == recorded["sha256"], f"{RECORDED.name} is of another file; {RECORD_ANEW}"
    assert MODEL.stat().st_size < 25e6


def test_the_shipped_model_predicts_as_recorded(recorded, tmp_path):
    found = predictions(tmp_path)["predictions"]
    expected = recorded["predictions"]
    assert len(expected) >= 5 and found.keys() == expected.keys()
    for name, prediction in expected.items():
        assert found[name]["probability"] == pytest.approx(prediction["probability"], abs=2e-3), name
        assert found[name]["out_of_distribution"] == prediction["out_of_distribution"], name


def test_the_card_is_what_the_program_writes_of_the_shipped_model_and_its_report(recorded):
    state = checkpoints.load(MODEL, task=TASK)
    text = render(state, MODEL, external=[read_report(ON_RSNA, state)])
    assert "## Recipe" in text and recorded["sha256"] in text
    assert (MODEL.parent / "MODEL_CARD.md").read_text(encoding="utf-8") == text, RECORD_ANEW
