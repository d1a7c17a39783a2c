import json

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_detection import box_metrics
from pytorch_detection.box_metrics import (
    HIT_COLUMN,
    IOU_THRESHOLDS,
    average_precisions,
    choose_threshold,
    evaluate_detections,
    froc_sensitivities,
    hits_by_threshold,
    match,
    rsna_score,
    score_detections,
)

NONE = np.zeros((0, 4))
A, B = [0, 0, 10, 10], [100, 100, 110, 110]
NOWHERE = [500, 500, 510, 510]


def simulated(rng, images, *, digits=None, truth_share=0.4):
    """Boxes that overlap in many ways, several true boxes near each other, images without one or the other."""
    boxes, scores, truths = [], [], []
    for _ in range(images):
        corner = rng.uniform(0, 200, (rng.integers(1, 4) if rng.random() < truth_share else 0, 2))
        true = np.hstack([corner, corner + rng.uniform(80, 200, corner.shape)])
        near = np.repeat(true, 3, axis=0) + rng.normal(0, 15, (3 * len(true), 4))
        far = rng.uniform(0, 200, (rng.integers(0, 4), 2))
        found = np.vstack([near, np.hstack([far, far + rng.uniform(80, 200, far.shape)])])
        found = rng.permutation(found[rng.random(len(found)) < 0.7])
        score = rng.random(len(found))
        boxes.append(found)
        scores.append(score if digits is None else score.round(digits))
        truths.append(true)
    return boxes, scores, truths


# The challenge's rules once more, one image, one threshold, one box at a time.


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_hits(boxes, scores, truths, iou):
    """(score, hit) of each prediction, best first."""
    free, hits = list(range(len(truths))), []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        overlaps = [(plain_iou(boxes[index], truths[true]), -true) for true in free]
        best = max(overlaps, default=(0.0, 0))
        if best[0] > iou:
            free.remove(-best[1])
        hits.append((scores[index], best[0] > iou))
    return hits


def plain_image_score(boxes, scores, truths, threshold):
    kept = [index for index in range(len(boxes)) if scores[index] >= threshold]
    if not kept and not len(truths):
        return None
    total = 0
    for iou in (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75):
        hits = plain_hits([boxes[k] for k in kept], [scores[k] for k in kept], truths, iou)
        tp = sum(hit for _, hit in hits)
        fp, fn = len(kept) - tp, len(truths) - tp
        total += tp / (tp + fp + fn)
    return total / 8


def plain_froc(boxes, scores, truths, budget):
    hits = [hit for image in zip(boxes, scores, truths, strict=True) for hit in plain_hits(*image, 0.5)]
    number = sum(len(true) for true in truths)
    best = 0.0
    for threshold, _ in hits:
        kept = [hit for score, hit in hits if score >= threshold]
        if (len(kept) - sum(kept)) / len(boxes) <= budget:
            best = max(best, sum(kept) / number)
    return best


def one(boxes, scores, truths, threshold=0.0):
    return float(rsna_score(match([boxes], [scores], [truths]), threshold)[0])


class TestRsnaScore:
    def test_thresholds_are_the_floats_that_one_would_write(self):
        assert IOU_THRESHOLDS[box_metrics.RSNA_COLUMNS] == (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
        assert IOU_THRESHOLDS[box_metrics.COCO_COLUMNS] == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
        assert IOU_THRESHOLDS[HIT_COLUMN] == 0.5

    @pytest.mark.parametrize(
        ("boxes", "scores", "truths", "expected"),
        [
            ([A], [0.9], [A], 1.0),
            ([[0, 0, 10, 6.3]], [0.9], [A], 5 / 8),  # IoU .63: above .40 .45 .50 .55 .60
            ([[0, 0, 10, 6]], [0.9], [A], 4 / 8),  # IoU is .6 and not above .6
            ([[0, 0, 10, 4]], [0.9], [A], 0.0),
            ([[0, 0, 10, 8]], [0.9], [A], 1.0),
            ([A, NOWHERE], [0.9, 0.8], [A], 1 / 2),  # TP 1, FP 1
            ([A], [0.9], [A, B], 1 / 2),  # TP 1, FN 1
            ([A, NOWHERE], [0.9, 0.8], [A, B], 1 / 3),  # TP 1, FP 1, FN 1
            ([A, A], [0.9, 0.8], [A], 1 / 2),  # a true box is found once
            ([A, [0, 0, 10, 6.3]], [0.9, 0.8], [A, B], 1 / 3),
            (NONE, [], [A], 0.0),
            ([NOWHERE], [0.9], NONE, 0.0),
        ],
    )
    def test_worked_pages(self, boxes, scores, truths, expected):
        assert one(boxes, scores, truths) == pytest.approx(expected, abs=1e-15)

    def test_the_more_confident_box_is_served_first(self):
        # Two true boxes side by side. The wide prediction reaches 60 / 100 = .6 of the left one and 50 / 110 = .4545 of
        # the right one, the other one reaches only the left one, with .7.
        truths = [[0, 0, 6, 10], [6, 0, 11, 10]]
        wide, narrow = [0, 0, 10, 10], [0, 0, 6, 7]
        assert plain_iou(wide, truths[0]) == 0.6
        assert plain_iou(narrow, truths[0]) == 0.7
        assert plain_iou(wide, truths[1]) == pytest.approx(40 / 110)
        # Wide first: it takes the left box at .40 .45 .50 .55 (TP 1, FP 1, FN 1); at .60 and .65 narrow takes it.
        assert one([wide, narrow], [0.9, 0.8], truths) == pytest.approx((6 * 1 / 3) / 8)
        truths[1] = [3, 0, 11, 10]  # now wide reaches 70 / 110 = .636 of the right one, more than .6 of the left one
        # Wide takes the right box up to .60, narrow the left one up to .65; at .65 wide has nothing left to take.
        assert one([wide, narrow], [0.9, 0.8], truths) == pytest.approx((5 * 1 + 1 / 3) / 8)

    def test_what_counts_in_the_mean(self):
        boxes, truths = [[A], [NOWHERE], NONE, NONE], [[A], NONE, NONE, [B]]
        matches = match(boxes, [[0.9], [0.4], [], []], truths)
        np.testing.assert_array_equal(rsna_score(matches, 0.3, np.eye(4))[:, 0], [1, 0, np.nan, 0])
        np.testing.assert_array_equal(rsna_score(matches, [0.3, 0.5, 0.95]), [1 / 3, 1 / 2, 0])

    def test_a_score_at_the_threshold_counts(self):
        matches = match([[A]], [[0.5]], [[A]])
        assert rsna_score(matches, [0.5, np.nextafter(0.5, 1)]).tolist() == [1, 0]

    def test_weights_count_images_several_times(self):
        matches = match([[A], [NOWHERE], NONE], [[0.9], [0.9], []], [[A], NONE, NONE])
        weights = np.array([[1, 1, 1], [3, 1, 5], [0, 2, 0], [0, 0, 4]])
        np.testing.assert_array_equal(rsna_score(matches, 0.5, weights)[:, 0], [1 / 2, 3 / 4, 0, np.nan])

    @settings(deadline=None, max_examples=40)
    @given(seed=st.integers(0, 2**32), digits=st.sampled_from([1, None]))
    def test_equals_the_slow_obvious_way(self, seed, digits):
        boxes, scores, truths = simulated(np.random.default_rng(seed), 6, digits=digits)
        thresholds = np.round(np.linspace(0, 1, 6), 1)
        found = rsna_score(match(boxes, scores, truths), thresholds, np.eye(6))
        expected = [
            [plain_image_score(*image, threshold) for threshold in thresholds]
            for image in zip(boxes, scores, truths, strict=True)
        ]
        np.testing.assert_allclose(found, np.array(expected, np.float64), rtol=0, atol=1e-14)


class TestChoice:
    def test_between_clear_hits_and_clear_misses(self):
        boxes = [[A, NOWHERE], [B], NONE, [NOWHERE]] * 5
        scores = [[0.9, 0.2], [0.8], [], [0.1]] * 5
        threshold, score = choose_threshold(match(boxes, scores, [[A], [B], NONE, NONE] * 5))
        assert threshold == 0.5  # half-way between .8 and .2
        assert score == 1

    def test_the_score_is_that_of_the_threshold(self):
        matches = match(*simulated(np.random.default_rng(3), 60))
        threshold, score = choose_threshold(matches)
        assert rsna_score(matches, threshold)[0] == pytest.approx(score, abs=1e-15)
        assert choose_threshold(matches) == (threshold, score)

    def test_nothing_predicted(self):
        assert choose_threshold(match([NONE, NONE], [[], []], [[A], NONE])) == (1.0, 0.0)

    def test_nothing_to_find(self):
        with pytest.raises(ValueError, match="none of 2 images has a true box"):
            choose_threshold(match([[A], NONE], [[0.5], []], [NONE, NONE]))


class TestFroc:
    # 8 images, 4 true boxes; by score: hit .9, false .8, hit .7, false .6 .6, hit .6, false .5 ... .1
    BOXES = ([A, NOWHERE], [A], [NOWHERE, A], [NOWHERE] * 2, NONE, [NOWHERE] * 4, NONE, NONE)
    SCORES = ([0.9, 0.8], [0.7], [0.6, 0.6], [0.6, 0.5], [], [0.4, 0.3, 0.2, 0.1], [], [])
    TRUTHS = ([A], [A], [A], NONE, [B], NONE, NONE, NONE)

    def test_worked_curve(self):
        reported, found, thresholds = hits_by_threshold(match(self.BOXES, self.SCORES, self.TRUTHS))
        assert thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
        assert reported.tolist() == [1, 2, 3, 6, 7, 8, 9, 10, 11]
        assert found.tolist() == [1, 1, 2, 3, 3, 3, 3, 3, 3]

    def test_worked_sensitivities(self):
        found = froc_sensitivities(match(self.BOXES, self.SCORES, self.TRUTHS), np.ones((1, 8)))
        names = [f"sensitivity_at_{budget}_fp" for budget in (0.125, 0.25, 0.5, 1, 2, 4, 8)]
        assert found == dict(zip(names, [0.5, 0.5, *[0.75] * 5], strict=True))

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32), digits=st.sampled_from([1, None]))
    def test_equals_the_slow_obvious_way(self, seed, digits):
        rng = np.random.default_rng(seed)
        images = simulated(rng, 8, digits=digits)
        images[2][0] = np.array([A])  # there is something to find
        found = froc_sensitivities(match(*images), np.ones((1, 8)))
        for budget in box_metrics.FALSE_POSITIVES_PER_IMAGE:
            assert found[f"sensitivity_at_{budget:g}_fp"][0] == pytest.approx(plain_froc(*images, budget))

    def test_nothing_to_find_is_undefined(self):
        matches = match([[A], NONE], [[0.5], []], [NONE, [B]])
        assert np.isnan(froc_sensitivities(matches, np.array([[1, 0], [1, 1]]))["sensitivity_at_1_fp"]).tolist() == [
            True,
            False,
        ]


def library_average_precision(boxes, scores, truths):
    """COCO's own evaluation, with boxes of every size and any number."""
    xywh = [[[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in some] for some in (*truths, *boxes)]
    true, predicted = xywh[: len(truths)], xywh[len(truths) :]
    annotations = [
        {"image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for image, some in enumerate(true)
        for box in some
    ]
    truth = COCO(
        {
            "images": [{"id": image} for image in range(len(truths))],
            "annotations": [{"id": number, **one} for number, one in enumerate(annotations, 1)],
            "categories": [{"id": 1}],
        }
    )
    found = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": float(score)}
        for image, some in enumerate(predicted)
        for box, score in zip(some, scores[image], strict=True)
    ]
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.params.maxDets = [max(map(len, boxes))]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, 0, 0, 0]  # [IoU thresholds, recalls]
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def average_precision(*images, times=None):
    weights = np.ones(len(images[0])) if times is None else times.astype(float)
    return {name: value[0] for name, value in average_precisions(match(*images), weights[None]).items()}


class TestAveragePrecision:
    def test_worked_number(self):
        # Two true boxes; hit, false, hit: precision 1 up to recall .5 (51 of 101 points), then 2/3 (50 points).
        images = ([[A, NOWHERE], [B]], [[0.9, 0.8], [0.7]], [[A], [B]])
        assert average_precision(*images) == pytest.approx(dict.fromkeys(("ap50", "ap"), (51 + 50 * 2 / 3) / 101))

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32), digits=st.sampled_from([1, None]))
    def test_equals_the_library_where_images_are_there_several_times(self, seed, digits):
        rng = np.random.default_rng(seed)
        images = simulated(rng, 8, digits=digits)
        images[0][0], images[1][0], images[2][0] = np.array([A]), np.array([0.5]), np.array([A])
        # Of copies with equal scores the library would rank all boxes of one before those of the next.
        times = rng.integers(0, 3, 8) if digits is None else np.ones(8, int)
        times[0] = 1
        copies = [[entry for entry, number in zip(part, times, strict=True) for _ in range(number)] for part in images]
        assert average_precision(*images, times=times) == pytest.approx(library_average_precision(*copies), abs=1e-12)

    def test_nothing_found_and_nothing_to_find(self):
        for boxes in ([[A]], [NONE]):
            for truths in ([[B]], [NONE]):
                value = average_precision(boxes, [[0.5] * len(boxes[0])], truths)["ap50"]
                assert value == pytest.approx(0 if len(truths[0]) else np.nan, nan_ok=True)


class TestReport:
    IMAGES = simulated(np.random.default_rng(5), 80)

    def test_an_epoch_is_plain_numbers(self):
        boxes, scores, truths = self.IMAGES
        found = score_detections(boxes, scores, truths)
        assert {type(value) for value in found.values()} == {float}
        matches = match(boxes, scores, truths)
        assert found["threshold"] == choose_threshold(matches)[0]
        assert found["rsna_score"] == rsna_score(matches, found["threshold"])[0]
        json.dumps(found, allow_nan=False)

    def test_worked_numbers_at_a_threshold(self):
        found = score_detections(TestFroc.BOXES, TestFroc.SCORES, TestFroc.TRUTHS, threshold=0.6)
        # Given out: 2 boxes, 1, 2, 1, none, none, none, none; 3 of 4 true boxes are found and 3 boxes are false.
        assert found["threshold"] == 0.6
        assert found["box_sensitivity"] == 3 / 4
        assert found["box_precision"] == 3 / 6
        assert found["false_positives_per_image"] == 3 / 8
        assert found["image_sensitivity"] == 3 / 4
        assert found["image_specificity"] == 3 / 4
        assert found["rsna_score"] == pytest.approx((1 / 2 + 1 + 1 / 2 + 0 + 0) / 5)

    def test_what_is_undefined_is_none(self):
        found = score_detections([[A], NONE], [[0.5], []], [NONE, NONE], threshold=0.4)
        assert found["rsna_score"] == 0
        assert {name for name, value in found.items() if value is None} == {
            "ap50",
            "ap",
            *(f"sensitivity_at_{budget}_fp" for budget in ("0.125", "0.25", "0.5", "1", "2", "4", "8")),
            "image_auc",
            "box_sensitivity",
            "image_sensitivity",
        }
        json.dumps(evaluate_detections([[A], NONE], [[0.5], []], [NONE, NONE], [1, 2], 0.4), allow_nan=False)

    def test_the_last_report_has_the_same_values_with_intervals(self):
        boxes, scores, truths = self.IMAGES
        classes = ["opacity" if len(true) else "Normal" if n % 2 else "Not Normal" for n, true in enumerate(truths)]
        patients = [f"p{n // 2}" for n in range(80)]
        report = evaluate_detections(boxes, scores, truths, patients, 0.6, classes=classes, resamples=200)
        epoch = score_detections(boxes, scores, truths, 0.6)
        assert {name: score["value"] for name, score in report["scores"].items()} == pytest.approx(
            {name: value for name, value in epoch.items() if name != "threshold"}
        )
        assert all(score["low"] <= score["value"] <= score["high"] for score in report["scores"].values())
        assert (report["images"], report["patients"], report["threshold"]) == (80, 40, 0.6)
        assert report["images_with_opacity"] == sum(len(true) > 0 for true in truths)
        assert report["true_boxes"] == sum(len(true) for true in truths)
        json.dumps(report, allow_nan=False)
        assert set(report["false_positive_rates"]) == {"Normal", "Not Normal"}
        for name, rate in report["false_positive_rates"].items():
            called = [
                score.max(initial=0) >= 0.6 for score, shown in zip(scores, classes, strict=True) if shown == name
            ]
            assert rate["images"] == len(called)
            assert rate["value"] == pytest.approx(np.mean(called))
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1

    def test_intervals_are_by_patient(self):
        boxes, scores, truths = ([*part, *part, *part] for part in self.IMAGES)  # three images of each patient

        def width(groups):
            score = evaluate_detections(boxes, scores, truths, groups, 0.6, resamples=300)["scores"]["rsna_score"]
            return score["high"] - score["low"]

        # Copies add no information: the interval must be that of a third of the images, sqrt(3) times as wide.
        assert width(list(range(80)) * 3) / width(list(range(240))) == pytest.approx(3**0.5, rel=0.25)

    def test_a_rate_of_0_or_1_has_wilsons_interval_over_the_patients_whom_it_is_of(self):
        report = evaluate_detections([NONE] * 10, [[]] * 10, [[A]] + [NONE] * 9, range(10), 0.5, classes=["x"] * 10)
        rate, scores = report["false_positive_rates"]["x"], report["scores"]
        nine = pytest.approx(0.2992, abs=1e-4)  # z^2 / (9 + z^2)
        assert (rate["value"], rate["low"], rate["images"]) == (0, 0, 9) and rate["high"] == nine
        specificity, sensitivity = scores["image_specificity"], scores["image_sensitivity"]
        assert (specificity["value"], specificity["high"]) == (1, 1) and 1 - specificity["low"] == nine
        assert (sensitivity["value"], sensitivity["low"]) == (0, 0)
        assert sensitivity["high"] == pytest.approx(0.7935, abs=1e-4)  # one patient with opacity
