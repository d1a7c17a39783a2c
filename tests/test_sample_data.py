"""The synthetic data sets: what is drawn is what the tables say, in the layouts of the real sets, and no shortcut tells."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from scipy.ndimage import laplace
from sklearn.metrics import roc_auc_score

import make_sample_data
from make_sample_data import SampleConfig
from phantom import anatomy, chance, cohort, disease, exposure, grid, organs, tubes
from phantom.chance import Chance
from phantom.picture import Findings, render
from phantom.view import View

ROOT = Path(make_sample_data.__file__).parent
FLAT = View(shape=(64, 64), pitch=1.0, origin=(32.0, 32.0))
TABLE = ["patientId", "x", "y", "width", "height", "Target"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("data") / "sample"
    return SampleConfig(out_dir=out_dir, images=160, widest=176, exams=110, exam_size=176, workers=1)


@pytest.fixture(scope="module")
def sample(config):
    make_sample_data.make(config)
    return config.out_dir


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def grey(path):
    dicom = pydicom.dcmread(path)
    return 255 - dicom.pixel_array if dicom.PhotometricInterpretation == "MONOCHROME1" else dicom.pixel_array


# --- geometry against worked numbers


def line(radius, **rind):
    return tubes.along([[-20, 0, 0], [0, 0, 0], [20, 0, 0]], radius, **rind)


def test_a_ray_through_the_middle_of_a_solid_tube_passes_its_diameter():
    drawn = tubes.splat([tubes.cloud(line(5.0), FLAT)], FLAT.shape)
    profile = drawn[:, 20:44].mean(1)
    assert profile[32] == pytest.approx(10, rel=0.03)
    assert profile[36] == pytest.approx(2 * np.sqrt(25 - 16), rel=0.1)  # chord four pixels off the axis
    assert profile.sum() == pytest.approx(np.pi * 25, rel=0.02)  # area of the cross-section
    assert profile[25] == 0
    assert np.ptp(drawn[32, 20:44]) < 0.08 * profile[32], "points and pixels do not beat"


def test_a_hollow_tube_is_brightest_at_its_rim():
    drawn = tubes.splat([tubes.cloud(line(8.0, shell=1.5, core=0.25), FLAT)], FLAT.shape)
    profile = drawn[:, 20:44].mean(1)
    assert profile[32] == pytest.approx(2 * (8 - 0.75 * 6.5), rel=0.05)
    assert profile[32 + 6] > 1.2 * profile[32]


def test_tubes_add_up_and_what_falls_outside_is_lost():
    cloud = tubes.cloud(line(3.0), FLAT)
    once, twice = tubes.splat([cloud], FLAT.shape), tubes.splat([cloud, cloud], FLAT.shape)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    away = cloud._replace(columns=cloud.columns + 200, rows=cloud.rows - 200)
    assert not tubes.splat([away], FLAT.shape).any()


def test_an_oblique_tube_is_longer_along_the_ray():
    slanted = tubes.along([[-10, 0, -10], [0, 0, 0], [10, 0, 10]], 3.0)
    drawn = tubes.splat([tubes.cloud(slanted, FLAT)], FLAT.shape)
    assert drawn[:, 28:37].mean(1)[32] == pytest.approx(6 * np.sqrt(2), rel=0.06)


def test_uneven_points_are_laid_evenly_on_the_same_curve():
    uneven = tubes.along([[0, 0, 0], [1, 0, 1], [30, 0, 2], [31, 0, 3]], [1, 1, 4, 4], count=200)
    even = tubes.evenly(uneven)
    steps = np.diff(even.path[0, :, 0])
    assert steps.max() / steps.min() < 1.05
    assert np.ptp(np.diff(uneven.path[0, :, 0])) > 0.2
    where = np.interp(even.path[0, 50, 0], uneven.path[0, :, 0], np.arange(200))
    assert even.radius[0, 50] == pytest.approx(np.interp(where, np.arange(200), uneven.radius[0]), rel=1e-3)


def test_the_field_weighs_a_tube_where_it_runs():
    field = np.zeros((32, 32))
    field[:, 16:] = 1
    drawn = tubes.splat([tubes.cloud(line(5.0), FLAT, field)], FLAT.shape)
    assert not drawn[:, :28].any()
    assert drawn[32, 36:48].mean() == pytest.approx(10, rel=0.03)


def test_posing_by_worked_numbers():
    point = np.array([10.0, 120.0, 30.0])  # 30 mm in front of the axis, at the height of the beam
    from_front, from_behind = (replace(FLAT, from_front=front).pose(point) for front in (True, False))
    assert from_front[0] == pytest.approx(10 * (1 + 30 / 1100))
    assert from_behind[0] == pytest.approx(10 * (1 - 30 / 1800))
    turned = replace(FLAT, rotation=0.1).pose(np.array([0.0, 120.0, 30.0]))
    assert turned[0] == pytest.approx(30 * np.sin(0.1) * (1 - 30 / 1800))  # the front goes to the patient's left
    assert replace(FLAT, tilt=0.1).pose(point)[1] == pytest.approx(120 - 30 * np.tan(0.1))  # and up


def test_a_coarser_view_shows_the_same_places():
    view = replace(FLAT, origin=(30.3, 20.9), pitch=0.7)
    coarse = view.coarser(2)
    fine_x, fine_y = view.grid()
    coarse_x, coarse_y = coarse.grid()
    np.testing.assert_allclose(coarse_x[0], fine_x[0].reshape(-1, 2).mean(1))
    np.testing.assert_allclose(coarse_y[:, 0], fine_y[:, 0].reshape(-1, 2).mean(1))


def test_doubling_keeps_a_ramp_straight_and_the_mean():
    ramp = np.add.outer(np.arange(6.0), 2 * np.arange(8.0))
    doubled = grid.double(ramp)
    assert doubled.mean() == pytest.approx(ramp.mean())
    np.testing.assert_allclose(np.diff(doubled, axis=0)[1:-1], 0.5)
    np.testing.assert_allclose(np.diff(doubled, axis=1)[:, 1:-1], 1.0)


def test_a_box_is_corner_plus_size_in_pixels_of_the_picture():
    lung = np.full((40, 50), 100.0)
    parts = organs.Organs(*(np.zeros((40, 50)),) * 3, lung, *(np.zeros((40, 50)),) * 2)
    share = np.zeros((40, 50))
    share[10:20, 5:35] = 0.8
    # Softened by one pixel of the grid, the first pixel outside a straight edge holds .31 of the peak: just visible.
    assert disease.box(share, parts, 2, (80, 100)) == (8, 18, 64, 24)
    assert disease.box(share, parts, 2, (35, 100)) == (8, 18, 64, 17)  # cut off where the picture ends


# --- the beam


SHOT = exposure.Exposure(1e12, 0.0, 0.0, 0.0, dark=0.0, bright=0.0, curve=0.0, gamma=1.0)
WIDE = View(shape=(128, 128), pitch=2.0, origin=(64.0, 10.0))


def test_without_scatter_and_noise_grey_is_linear_in_thickness():
    thickness = np.tile(np.linspace(1, 3, 128), (128, 1))
    shown = exposure.expose(thickness, WIDE, SHOT, np.random.default_rng(0)).astype(float)
    inside = shown[64, (shown[64] > 20) & (shown[64] < 235)]
    assert np.diff(shown[64]).min() >= 0, "what absorbs more is brighter"
    assert np.ptp(np.diff(inside)) <= 1, "Beer-Lambert, read out as a logarithm"


def test_quantum_noise_falls_with_the_root_of_the_dose():
    thickness = np.tile(np.linspace(1, 3, 128), (128, 1))
    clean = exposure.expose(thickness, WIDE, SHOT, np.random.default_rng(0)).astype(float)

    def noise(quanta):
        shot = replace(SHOT, quanta=quanta)
        return (exposure.expose(thickness, WIDE, shot, np.random.default_rng(1)) - clean)[:, 40:88].std()

    assert noise(2e3) / noise(8e3) == pytest.approx(2, rel=0.1)


def test_scatter_flattens_contrast():
    thickness = np.where(np.arange(128) < 64, 1.0, 3.0) + np.zeros((128, 1))
    direct = np.exp(-thickness)
    blurred = grid.wide_blur(direct, exposure.SCATTER_REACH / WIDE.pitch, exposure.BLOCK)
    assert blurred.mean() == pytest.approx(direct.mean(), rel=0.02)
    bare, veiled = (one[64, 56] / one[64, 72] for one in (direct, direct + blurred))
    assert bare == pytest.approx(np.exp(2))
    assert veiled < 0.5 * bare


# --- pictures


def case(child, seed, kind=None, shape=(176, 200)):
    draw = Chance((seed,))
    body = anatomy.draw(draw.rng, child=child)
    view = chance.draw_view(draw, body, shape, from_front=child)
    shot = chance.draw_exposure(draw, from_front=child)
    opacities = chance.draw_opacities(draw, kind) if kind else ()
    return body, view, shot, Findings(opacities)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    films, exams = cohort.plan_films(3, 60), cohort.plan_exams(3, 12)
    assert films == cohort.plan_films(3, 60) and exams == cohort.plan_exams(3, 12)
    assert films != cohort.plan_films(4, 60) and exams != cohort.plan_exams(4, 12)
    first, again, other = (cohort.take_film(films[40], seed, 160) for seed in (3, 3, 4))
    assert np.array_equal(first[0].pixels, again[0].pixels) and first[0].boxes == again[0].boxes
    assert first[0].pixels.shape != other[0].pixels.shape or not np.array_equal(first[0].pixels, other[0].pixels)
    same, equal = (cohort.take_exam(exams[5], 3, 160) for _ in range(2))
    assert np.array_equal(same[0].pixels, equal[0].pixels) and same[1] == equal[1]


# Means of 4 x 4 parts of two pictures: a platform or a NumPy that draws other pictures shows here.
FILM_MEANS = [
    [27.02, 112.88, 145.06, 51.47],
    [53.7, 65.74, 84.87, 78.95],
    [29.49, 77.65, 118.68, 45.02],
    [52.67, 155.35, 188.9, 72.95],
]
EXAM_MEANS = [
    [93.17, 162.89, 158.58, 86.57],
    [140.46, 129.07, 124.48, 137.05],
    [139.48, 182.21, 193.64, 140.14],
    [134.65, 207.4, 210.1, 140.0],
]


def parts(pixels):
    side = pixels.shape[0] // 4, pixels.shape[1] // 4
    return pixels[: 4 * side[0], : 4 * side[1]].reshape(4, side[0], 4, side[1]).mean((1, 3))


def test_the_pictures_are_those_that_were_first_drawn():
    film, exam = cohort.plan_films(0, 60)[-1], cohort.plan_exams(0, 4)[0]
    np.testing.assert_allclose(parts(cohort.take_film(film, 0, 160)[0].pixels), FILM_MEANS, atol=0.06)
    np.testing.assert_allclose(parts(cohort.take_exam(exam, 0, 160)[0].pixels), EXAM_MEANS, atol=0.06)


@pytest.mark.parametrize("child", [True, False])
@pytest.mark.parametrize("kind", ["lobar", "patchy", "interstitial"])
@pytest.mark.parametrize(("shape", "seeds"), [((176, 200), 4), ((384, 367), 1)], ids=["fine grid", "coarse grid"])
def test_an_opacity_is_brighter_than_the_same_chest_without_it_and_lies_in_its_lung(child, kind, shape, seeds):
    for seed in range(seeds):
        body, view, shot, findings = case(child, seed, kind, shape)
        seed_words = (seed, 1, 1, 1)
        ill = render(body, view, shot, findings, seed_words)
        well = render(body, view, shot, Findings(), seed_words)
        assert not well.boxes and len(ill.boxes) == len(findings.opacities)
        added = ill.pixels.astype(float) - well.pixels
        lungs = organs.organs(body, view, (0.0, 0.0))
        for opacity, (x, y, width, height) in zip(findings.opacities, ill.boxes, strict=True):
            assert added[y : y + height, x : x + width].mean() > np.median(added) + 5
            own = (lungs.lung > 1) & (lungs.x * opacity.side > 0)
            rows_seen, columns_seen = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            assert columns_seen[0] - 2 <= x and x + width <= columns_seen[-1] + 3
            assert rows_seen[0] - 2 <= y and y + height <= rows_seen[-1] + 3
            assert own[y : y + height, x : x + width].mean() > 0.6


def test_the_opacity_takes_the_side_it_is_given():
    body, view, shot, _ = case(True, 5)
    for side in (-1, 1):
        findings = Findings((disease.Opacity("lobar", side, "middle", 0.4, 0.8),))
        (x, _, width, _) = render(body, view, shot, findings, (5, 1)).boxes[0]
        middle = view.origin[0] + view.midline(np.array(100.0)) / view.pitch
        assert (x + width / 2 - middle) * side > 0, "the patient's right is on the left of the picture"


def test_a_view_without_lung_is_refused_by_name():
    body, view, shot, _ = case(True, 5)
    off = replace(view, origin=(-2000.0, view.origin[1]))
    with pytest.raises(ValueError, match="no lung is in view on side -1"):
        render(body, off, shot, Findings((disease.Opacity("lobar", -1, "middle", 0.4, 0.8),)), (5, 1))


@pytest.mark.parametrize(
    "findings",
    [
        Findings(effusion=(40.0, 40.0)),
        Findings(heart=1.4),
        Findings(nodules=((-80.0, 100.0, 11.0),)),
        Findings(scars=((-60.0, 60.0, -95.0, 75.0),)),
        Findings(crowding=1.4),
        Findings(leads=True),
        Findings(tubes=True),
        Findings(marker=("R", 0.05, 0.1, 14.0)),
    ],
    ids=lambda findings: next(name for name, value in vars(findings).items() if value != getattr(Findings(), name)),
)
def test_every_other_finding_shows_and_has_no_box(findings):
    body, view, shot, _ = case(False, 7)
    shown, bare = render(body, view, shot, findings, (7, 1)), render(body, view, shot, Findings(), (7, 1))
    assert shown.boxes == ()
    assert (shown.pixels.astype(float) - bare.pixels).max() > 8


# --- the classification layout


def test_classification_files_have_kaggles_folders_names_and_counts(sample, config):
    paths = sorted((sample / "chest_xray").rglob("*.jpeg"))
    assert len(paths) == config.images
    form = {
        "NORMAL": r"(NORMAL2-)?IM-\d{4}-0001(-000\d)?\.jpeg",
        "PNEUMONIA": r"person\d+_(bacteria|virus)_\d+\.jpeg",
    }
    for path in paths:
        assert re.fullmatch(form[path.parent.name], path.name), path
    folders = Counter(path.relative_to(sample / "chest_xray").parent.as_posix() for path in paths)
    assert folders["val/NORMAL"] == folders["val/PNEUMONIA"] == 8
    assert folders["test/NORMAL"] == 18 and folders["test/PNEUMONIA"] == 22, "a quarter of 72 and of 88"
    assert folders["train/NORMAL"] == 72 - 18 - 8 and folders["train/PNEUMONIA"] == 88 - 22 - 8


def test_a_patient_has_several_images_and_is_in_one_split_and_class_only(sample):
    where, images = defaultdict(set), Counter()
    for path in (sample / "chest_xray").rglob("*.jpeg"):
        patient = re.match(r"(person\d+)_|((?:NORMAL2-)?IM-\d{4})-", path.name)[0]
        where[patient].add(path.parent)
        images[patient] += 1
    assert all(len(folders) == 1 for folders in where.values())
    assert 2 <= max(images.values()) <= 4 and Counter(images.values())[1] > 10
    films = cohort.plan_films(0, 160)
    assert len({film.path for film in films}) == 160
    assert len({film.patient for film in films}) == len(where), "a name tells the patient that was drawn"


def test_opacity_boxes_belong_to_the_pneumonia_images_and_lie_inside_them(sample):
    boxes = rows(sample / "chest_xray" / "opacity_boxes.csv")
    assert list(boxes[0]) == ["path", "x", "y", "width", "height"]
    ill = {path.relative_to(sample / "chest_xray").as_posix() for path in (sample / "chest_xray").rglob("person*.jpeg")}
    assert {row["path"] for row in boxes} == ill
    for row in boxes:
        with Image.open(sample / "chest_xray" / row["path"]) as image:
            width, height = image.size
        x, y, across, down = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x < x + across <= width and 0 <= y < y + down <= height
        assert 0.05 < across / width < 0.45 and 0.07 < down / height < 0.65


# --- the detection layout


def test_labels_classes_mapping_and_files_speak_of_the_same_exams(sample, config):
    folder = sample / "dataset_det"
    labels, classes = rows(folder / "stage_2_train_labels.csv"), rows(folder / "stage_2_detailed_class_info.csv")
    mapping = json.loads((folder / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    exams = {path.stem for path in (folder / "stage_2_train_images").glob("*.dcm")}
    assert list(labels[0]) == TABLE and list(classes[0]) == ["patientId", "class"]
    assert len(exams) == config.exams == len(mapping)
    assert [row["patientId"] for row in labels] == [row["patientId"] for row in classes], "one class row per box"
    assert exams == {row["patientId"] for row in labels} == {entry["subset_img_id"] for entry in mapping}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uid) for uid in exams)
    by_class = defaultdict(set)
    for label, row in zip(labels, classes, strict=True):
        ill = row["class"] == "Lung Opacity"
        assert label["Target"] == str(int(ill)) and bool(label["x"]) == ill
        by_class[row["class"]].add(row["patientId"])
    assert set(by_class) == {"Normal", "No Lung Opacity / Not Normal", "Lung Opacity"}
    assert sum(map(len, by_class.values())) == len(exams)
    assert all(re.fullmatch(r"\d{8}_\d{3}\.png", entry["img_id"]) for entry in mapping)
    assert len({entry["img_id"] for entry in mapping}) == len(mapping)
    assert max(Counter(entry["img_id"][:8] for entry in mapping).values()) >= 2, "an exam is not a patient"


def test_detection_boxes_lie_inside_and_have_plausible_sizes(sample, config):
    boxes = [row for row in rows(sample / "dataset_det" / "stage_2_train_labels.csv") if row["Target"] == "1"]
    assert max(Counter(row["patientId"] for row in boxes).values()) == 2
    for row in boxes:
        x, y, width, height = (float(row[name]) for name in TABLE[1:5])
        assert 0 <= x < x + width <= config.exam_size and 0 <= y < y + height <= config.exam_size
        assert 0.05 < width / config.exam_size < 0.4 and 0.07 < height / config.exam_size < 0.5


def test_dicom_headers_mix_what_the_readers_must_cope_with(sample, config):
    folder = sample / "dataset_det"
    mapping = json.loads((folder / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    seen, instances, person = Counter(), set(), defaultdict(set)
    for entry in mapping:
        exam = pydicom.dcmread(folder / "stage_2_train_images" / f"{entry['subset_img_id']}.dcm")
        assert exam.Modality == "CR" and exam.ViewPosition in ("AP", "PA") and exam.PatientSex in ("F", "M")
        assert re.fullmatch(r"0[1-9]\dY", exam.PatientAge)
        assert exam.PatientID == entry["subset_img_id"] and "SYNTHETIC" in exam.ImageComments
        assert exam.pixel_array.shape == (config.exam_size,) * 2 and exam.pixel_array.dtype == np.uint8
        seen[exam.PhotometricInterpretation, exam.file_meta.TransferSyntaxUID] += 1
        instances.add(exam.SOPInstanceUID)
        person[entry["img_id"][:8]].add((exam.PatientSex, exam.PatientAge))
    assert set(seen) == {
        (photometric, syntax)
        for photometric in ("MONOCHROME1", "MONOCHROME2")
        for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian)
    }
    assert len(instances) == len(mapping) and all(len(told) == 1 for told in person.values())


@pytest.mark.parametrize(("lossy", "tolerance"), [("00", 0), ("01", 6)])
def test_monochrome1_is_stored_turned_round(tmp_path, lossy, tolerance):
    ramp = np.add.outer(np.arange(63), np.arange(65)).astype(np.uint8)  # an odd number of bytes
    header = {"PatientSex": "F", "PatientAge": "051Y", "ViewPosition": "PA", "PixelSpacing": [0.5, 0.5]}
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        told = header | {"PhotometricInterpretation": kind, "LossyImageCompression": lossy}
        make_sample_data.write_dicom(tmp_path / f"{kind}.dcm", "an exam", ramp, told)
        raw = pydicom.dcmread(tmp_path / f"{kind}.dcm").pixel_array.astype(int)
        wanted = ramp if kind == "MONOCHROME2" else 255 - ramp
        assert np.abs(raw - wanted).max() <= tolerance


def test_portable_views_are_of_the_sicker(sample):
    folder = sample / "dataset_det"
    seen: dict[str, list[bool]] = {"AP": [], "PA": []}
    for uid, row in {row["patientId"]: row for row in rows(folder / "stage_2_train_labels.csv")}.items():
        exam = pydicom.dcmread(folder / "stage_2_train_images" / f"{uid}.dcm", stop_before_pixels=True)
        seen[exam.ViewPosition].append(row["Target"] == "1")
    ill = {view: np.mean(sick) for view, sick in seen.items()}
    assert ill["AP"] > ill["PA"] + 0.1


# --- no shortcut


def plain_features(pixels, size):
    return {
        "mean grey": pixels.mean(),
        "contrast": pixels.std(),
        "mean |Laplacian|": np.abs(laplace(pixels.astype(float))).mean(),
        "file size": size,
        "pixels": pixels.size,
        "aspect": pixels.shape[1] / pixels.shape[0],
    }


def separations(features, labels):
    return {name: round(float(roc_auc_score(labels, [one[name] for one in features])), 3) for name in features[0]}


def test_no_plain_feature_separates_the_classification_classes(sample):
    paths = sorted((sample / "chest_xray").rglob("*.jpeg"))
    features: list[dict[str, float]] = []
    for path in paths:
        with Image.open(path) as image:
            features.append(plain_features(np.asarray(image), path.stat().st_size))
    found = separations(features, [path.parent.name == "PNEUMONIA" for path in paths])
    assert all(0.35 <= auc <= 0.65 for auc in found.values()), found


def test_no_plain_feature_separates_the_detection_positives(sample):
    folder = sample / "dataset_det"
    target = {row["patientId"]: row["Target"] == "1" for row in rows(folder / "stage_2_train_labels.csv")}
    features = [plain_features(grey(folder / "stage_2_train_images" / f"{uid}.dcm"), 0) for uid in target]
    found = separations(features, list(target.values()))
    for name in ("mean grey", "contrast", "mean |Laplacian|"):
        assert 0.35 <= found[name] <= 0.65, found


# --- writing


SMALL = SampleConfig(only="detection", exams=2, exam_size=128, workers=1)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "dataset_det").mkdir()
    (tmp_path / "dataset_det" / "mine.dcm").write_text("precious")
    with pytest.raises(ValueError, match=r"dataset_det holds something that is not sample data; nothing was changed"):
        make_sample_data.make(replace(SMALL, out_dir=tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["dataset_det", "mine.dcm"]


def test_the_same_settings_again_change_nothing_and_others_are_refused(tmp_path, capsys):
    (tmp_path / "dataset_det").mkdir()  # an empty folder is nobody's
    config = replace(SMALL, out_dir=tmp_path)
    make_sample_data.make(config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make_sample_data.make(config)
    assert "already there" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a sample made with other settings"):
        make_sample_data.make(replace(config, seed=1))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_stopped_run_leaves_nothing_half_made(tmp_path, monkeypatch):
    def stopped(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(make_sample_data, "write_dicom", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_sample_data.make(replace(SMALL, out_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_workers_does_not_change_the_files(tmp_path):
    for workers in (1, 2):
        make_sample_data.make(replace(SMALL, out_dir=tmp_path / str(workers), exams=6, workers=workers))
    one, two = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in "12")
    assert [path.name for path in one] == [path.name for path in two]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 31}, r"--images 31: at least 32"),
        ({"exams": 0}, r"--exams 0: at least one"),
        ({"seed": -1}, r"--seed -1: a whole number"),
        ({"workers": -1}, r"--workers -1: a whole number"),
        ({"widest": 100}, r"--widest 100: pictures of 128 to 2048"),
        ({"exam_size": 4096}, r"--exam-size 4096: pictures of 128 to 2048"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**settings)


def test_the_command_line_writes_elsewhere_and_reports_mistakes_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "make_sample_data.py"), "--out-dir", str(tmp_path / "new" / "place")]
    command += ["--only", "classification", "--images", "32", "--widest", "128", "--workers", "1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(list((tmp_path / "new/place/chest_xray").rglob("*.jpeg"))) == 32
    assert not (tmp_path / "new/place/dataset_det").exists()
    wrong = subprocess.run([*command, "--seed", "-3"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stderr == "error: --seed -3: a whole number from 0 up is needed\n"
