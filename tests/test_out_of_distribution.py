from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_sample_images
from tiny_classification import chest

from cxr import checkpoints, out_of_distribution
from cxr.out_of_distribution import FeatureDistance, Stage
from pytorch_classification.classifier import Classifier
from pytorch_classification.model import TASK, predict_logits


@pytest.fixture(scope="module")
def classifier(trained):
    from cxr.runtime import Runtime

    return Classifier.load(trained.config.model_file, Runtime(torch.device("cpu"), False))


def squashed(image, size):
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L").resize((size, size)))


def ood_fraction(classifier, squares, run):
    return classifier.predict(np.stack(squares), run).out_of_distribution.mean()


def test_most_images_of_the_training_distribution_pass(classifier, processor):
    size = classifier.store_size
    assert ood_fraction(classifier, [squashed(chest(n % 2, 900 + n), size) for n in range(60)], processor) < 0.2


@pytest.mark.parametrize("kind", ["noise", "black", "photographs"])
def test_other_images_are_flagged(classifier, processor, kind):
    random, size = np.random.default_rng(0), classifier.store_size
    squares = {
        "noise": [random.integers(0, 256, (size, size), dtype=np.uint8) for _ in range(10)],
        "black": [np.zeros((size, size), np.uint8)],
        "photographs": [squashed(image, size) for image in load_sample_images().images],
    }[kind]
    assert ood_fraction(classifier, squares, processor) == 1


def test_many_batches_have_the_features_of_one(classifier, processor, monkeypatch):
    from pytorch_classification import model

    squares = np.stack([squashed(chest(n % 2, n), classifier.store_size) for n in range(7)])

    def rows():
        with out_of_distribution.features(classifier.model) as seen:
            predict_logits(classifier.model, squares, np.arange(7), classifier.size, True, processor)
        return seen.rows(2, processor)

    whole = rows()
    monkeypatch.setattr(model, "_BATCH", 3)
    assert [stage.shape for stage in whole] == [(7, 128), (7, 256), (7, 512)]
    for one, other in zip(whole, rows(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


def test_the_distance_is_mahalanobis_with_a_shrunk_covariance():
    random = np.random.default_rng(1)
    training = random.normal(size=(50, 8)) @ random.normal(size=(8, 8)) + 3
    others = random.normal(size=(20, 8)) * 4
    stage = Stage.fit(training, others)
    expected = np.sqrt(LedoitWolf().fit(training).mahalanobis(others))
    assert stage.usual == pytest.approx(np.median(expected), rel=1e-4)
    np.testing.assert_allclose(stage.distance(others) * stage.usual, expected, rtol=1e-4)


def test_the_limit_lets_all_but_one_in_two_hundred_of_validation_pass():
    random = np.random.default_rng(2)
    training, validation = ([random.normal(size=(n, c)) for c in (4, 6, 8)] for n in (500, 2000))
    fitted = FeatureDistance.fit(training, validation)
    assert fitted.is_ood(validation).sum() == 10


def test_a_model_file_has_it(trained, classifier):
    state = checkpoints.load(trained.config.model_file, task=TASK)
    again = FeatureDistance.of(state["likeness"], Path("m.pth"))
    assert again is not None and again.limit == classifier.feature_distance.limit
    rows = [np.random.default_rng(3).normal(size=(4, width)) for width in (128, 256, 512)]
    assert np.array_equal(again.distance(rows), classifier.feature_distance.distance(rows))
    assert FeatureDistance.of(None, Path("m.pth")) is None
