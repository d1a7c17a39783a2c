"""The classifier that a clone brings along, where it does, against the answers recorded of it."""

import json

import pytest
from shipped_model import MODEL, RECORDED, answers, is_committed, is_replaced

from cxr import checkpoints
from cxr.files import sha256_of
from pytorch_classification.card import NOT_STATED, card
from pytorch_classification.model import TASK

RECORD_ANEW = "a model that is to be shipped is recorded by `python tests/shipped_model.py` and `python model_card.py`"


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


def test_the_shipped_model_answers_as_recorded(recorded, tmp_path):
    found = answers(tmp_path)["answers"]
    expected = recorded["answers"]
    assert len(expected) >= 5 and found.keys() == expected.keys()
    for name, answer in expected.items():
        assert found[name]["probability"] == pytest.approx(answer["probability"], abs=2e-3), name
        assert found[name]["unlike"] == answer["unlike"], name


def test_the_card_says_what_the_shipped_model_says_of_itself(recorded):
    """Reports may have added to it; what the file alone states must stand there."""
    text = card(checkpoints.load(MODEL, task=TASK), MODEL, [])
    stated = {line for line in text.splitlines() if NOT_STATED not in line}
    assert len(stated) > 80 and "## Recipe" in stated and recorded["sha256"] in text
    found = {*(MODEL.parent / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()}
    assert not stated - found, RECORD_ANEW
