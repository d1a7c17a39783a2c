"""Out-of-domain validation images, style-transferred validation images, and the threshold over both."""

import numpy as np
import pytest
from PIL import Image

from pytorch_classification.shifted_validation import balanced_threshold, list_ood_images, style_transferred

RSNA = "stage_2_train_images", "stage_2_detailed_class_info.csv"


def rsna(folder, findings):
    (folder / RSNA[0]).mkdir(parents=True)
    for number in range(len(findings)):
        (folder / RSNA[0] / f"exam{number}.dcm").write_bytes(b"")
    rows = [f"exam{number},{finding}\n" for number, finding in enumerate(findings)]
    (folder / RSNA[1]).write_text("patientId,class\n" + "".join(rows) + rows[0])  # boxes repeat a row there
    return folder


def styled(count, seed):
    """Half NORMAL, dark and sharp with a black frame; half PNEUMONIA, bright and smooth with a white one."""
    draw = np.random.default_rng(seed)
    images = np.zeros((count, 40, 40), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    images[labels == 0, 6:-6, 6:-6] = draw.integers(0, 120, (count // 2, 28, 28))
    coarse = np.kron(draw.integers(130, 230, (count // 2, 7, 7)), np.ones((1, 4, 4)))
    images[labels == 1] = 255
    images[labels == 1, 6:-6, 6:-6] = coarse
    return images, labels


def test_out_of_domain_images_may_be_two_class_folders(tmp_path):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "clinic" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "clinic" / name / "person1_virus_2.png")
    found = list_ood_images(tmp_path / "clinic")
    assert [path.parent.name for path in found.paths] == ["NORMAL", "PNEUMONIA"] and found.labels.tolist() == [0, 1]


def test_of_the_rsna_layout_normal_and_opacity_are_taken(tmp_path):
    found = list_ood_images(rsna(tmp_path, ["Lung Opacity", "Normal", "No Lung Opacity / Not Normal", "Normal"]))
    assert [path.name for path in found.paths] == ["exam0.dcm", "exam1.dcm", "exam3.dcm"]
    assert found.labels.tolist() == [1, 0, 0] and found.labels.dtype == np.int64


def test_normal_takes_on_the_style_of_pneumonia_and_pneumonia_stays():
    images, labels = styled(20, seed=0)
    found = style_transferred(images, labels, seed=0)
    normal, ill = found.images[::2].astype(float), found.images[1::2]
    assert np.array_equal(ill, images[1::2]) and np.array_equal(found.labels, labels)
    assert images[::2, 0].max() == 0 and normal[:, 0].min() > 240  # the frame
    middle = np.s_[:, 12:-12, 12:-12]
    assert images[::2][middle].mean() < 70 and 140 < normal[middle].mean() < 255  # the tone

    def roughness(images):
        return np.abs(np.diff(images[middle].astype(float), axis=2)).mean() / images[middle].std()

    rough, smooth = roughness(images[::2]), roughness(ill)
    assert roughness(normal) < (rough + smooth) / 2  # the sharpness


def test_style_transfer_leaves_its_input_and_repeats_for_a_seed():
    images, labels = styled(12, seed=1)
    before = images.copy()
    one, same, other = (style_transferred(images, labels, seed).images for seed in (3, 3, 4))
    assert np.array_equal(images, before)
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def mirrored(centre, spread, count, seed):
    """Log-odds that lie alike on both sides of ``centre``, as many for either class."""
    distances = np.abs(np.random.default_rng(seed).normal(spread, spread, count))
    wrong = distances < spread / 2
    side = np.where(wrong, -1, 1) * distances
    return np.concatenate([centre - side, centre + side]), np.repeat(np.array([0, 1]), count)


def test_the_threshold_is_half_way_between_classes_that_mirror_each_other():
    assert balanced_threshold([mirrored(0.7, 1, 500, 0)]) == pytest.approx(0.7, abs=1e-3)


def test_each_set_and_each_class_has_the_same_weight_whatever_its_size():
    large, small = mirrored(-1, 1, 4000, 0), mirrored(1, 1, 4000, 0)
    small = small[0][::40], small[1][::40]
    assert balanced_threshold([large, small]) == pytest.approx(0, abs=0.25)
    scores, labels = mirrored(0.7, 1, 500, 0)
    rare = np.concatenate([np.flatnonzero(labels == 0), np.repeat(np.flatnonzero(labels == 1), 5)])
    assert balanced_threshold([(scores[rare], labels[rare])]) == pytest.approx(0.7, abs=1e-3)


def test_uninformative_scores_give_log_odds_of_zero():
    scores, labels = np.array([1.0, 2, 3, 4]), np.array([1, 1, 0, 0])
    assert balanced_threshold([(scores, labels)]) == 0
    assert balanced_threshold([(np.ones(4), labels)]) == 0
