import numpy as np
import pytest

from cxr import metrics


def some_predictions(images=300, seed=0):
    """Probabilities with ties, labels and patients of one to several images each."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.6).astype(int)
    logits = random.normal(np.where(labels == 1, 1.2, -1.2), 1.5)
    return np.round(1 / (1 + np.exp(-logits)), 2), labels, random.integers(0, images // 2, images)


def test_auc_counts_the_pairs_that_are_in_order_and_half_of_the_tied():
    # Positives .8 and .5, negatives .5, .3 and .9: in order (.8, .5), (.8, .3), (.5, .3); tied (.5, .5). 3.5 of 6.
    assert metrics.roc_auc([0.8, 0.5, 0.5, 0.3, 0.9], [1, 1, 0, 0, 0]) == pytest.approx(3.5 / 6)


def test_wilson_interval_of_published_numbers():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert metrics.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_resamples_keep_the_images_of_a_patient_together_and_draw_as_many_patients():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    table = metrics.cluster_resamples(groups, 400, seed=3)
    assert table.shape == (400, 6)
    assert (table[:, [0, 0, 1]] == table[:, [2, 5, 4]]).all()
    assert (table[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # A patient is drawn once on average, and left out of (2/3)^3 = 8 in 27 resamples.
    assert table[:, 0].mean() == pytest.approx(1, abs=0.15)
    assert (table[:, 0] == 0).mean() == pytest.approx(8 / 27, abs=0.08)
    assert (table == metrics.cluster_resamples(groups, 400, seed=3)).all()
    assert (table != metrics.cluster_resamples(groups, 400, seed=4)).any()


def test_bootstrap_is_the_percentiles_of_the_score_over_the_resamples_however_they_are_cut(monkeypatch):
    _, labels, groups = some_predictions(90)
    shares = metrics.cluster_resamples(groups, 300, seed=5) @ labels
    counts = metrics.cluster_resamples(groups, 300, seed=5).sum(axis=1)
    low, high = np.percentile(shares / counts, [2.5, 97.5])
    expected = {"value": pytest.approx(labels.mean()), "low": pytest.approx(low), "high": pytest.approx(high)}
    for cells in (1, 1000, 1 << 20):
        monkeypatch.setattr(metrics, "_TABLE_CELLS", cells)
        found = metrics.bootstrap(lambda w: {"share": w @ labels / w.sum(-1)}, groups, resamples=300, seed=5)
        assert found == {"share": expected}


def test_intervals_hold_the_truth_as_often_as_they_claim():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        drawn = random.random(150) < 0.7
        score = metrics.bootstrap(
            lambda w, hits=drawn: {"p": w @ hits / w.sum(-1)}, range(150), resamples=300, seed=trial
        )["p"]
        held += score["low"] <= 0.7 <= score["high"]
    assert 0.91 <= held / 300 <= 0.98


def test_images_of_one_patient_do_not_count_as_independent():
    random = np.random.default_rng(0)
    hits = np.repeat(random.random(100) < 0.7, 9)  # nine identical images of each patient

    def width(groups):
        score = metrics.bootstrap(lambda w: {"p": w @ hits / w.sum(-1)}, groups)["p"]
        return score["high"] - score["low"]

    assert width(np.repeat(np.arange(100), 9)) == pytest.approx(3 * width(np.arange(900)), rel=0.1)
