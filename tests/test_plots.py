import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr import plots

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(120) < 0.6).astype(int)
PROBABILITIES = 1 / (1 + np.exp(-RANDOM.normal(np.where(LABELS == 1, 1.5, -1.5), 1.5)))
PATIENTS = RANDOM.integers(0, 60, 120)
IMAGE = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (100, 1))  # 100 high, 80 wide, dark to bright
HEAT = np.outer(np.hanning(7), np.hanning(7))
RECORDS = [
    {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.2 / epoch,
        "val_auc": 1 - 0.4 / epoch,
        "train_a": 0.5,
        "val_a": 0.6,
    }
    for epoch in (1, 2, 3)
]
TRUE, FOUND, FALSE = [10, 20, 40, 60], [12, 22, 42, 62], [50, 5, 75, 30]

# What is drawn, and its size in inches.
# Name -> a call with the path alone, and the size of the picture in units of plots.DPI pixels.
DRAWN = {
    "loss curves": (lambda path: plots.loss_curves(RECORDS, path, best_epoch=2, scores={"val_auc": "ROC AUC"}), (9, 4.4)),
    "loss curves with parts": (
        lambda path: plots.loss_curves(RECORDS, path, best_epoch=2, scores={"val_auc": "ROC AUC"}, parts={"a": "part"}),
        (9, 8.8),
    ),
    "loss curves of one epoch": (lambda path: plots.loss_curves(RECORDS[:1], path, best_epoch=1, scores={"val_auc": "AUC"}), (9, 4.4)),
    "loss curves without scores": (lambda path: plots.loss_curves([{"epoch": 1}], path, best_epoch=None, scores={}), (9, 4.4)),
    "confusion matrix": (lambda path: plots.confusion_matrix([[20, 3], [0, 90]], ["NORMAL", "PNEUMONIA"], path, title="n = 113"), (5.6, 4.8)),
    "confusion matrix of one class": (lambda path: plots.confusion_matrix([[0, 0], [1, 9]], ["NORMAL", "PNEUMONIA"], path), (5.6, 4.8)),
    "ROC and PR": (lambda path: plots.roc_and_precision_recall(LABELS, PROBABILITIES, 0.5, path, title="n = 120"), (9, 4.8)),
    "ROC and PR with bands": (lambda path: plots.roc_and_precision_recall(LABELS, PROBABILITIES, 0.5, path, groups=PATIENTS), (9, 4.8)),
    "ROC and PR of one class": (lambda path: plots.roc_and_precision_recall(LABELS * 0, PROBABILITIES, 0.5, path, groups=PATIENTS), (9, 4.8)),
    "ROC and PR with nothing called": (lambda path: plots.roc_and_precision_recall([0, 1], [0.1, 0.2], 0.5, path, groups=[0, 0]), (9, 4.8)),
    "reliability": (lambda path: plots.reliability(LABELS, PROBABILITIES, path, before=PROBABILITIES**2, title="n"), (6.4, 6.6)),
    "reliability of one image": (lambda path: plots.reliability([1], [1.0], path), (6.4, 6.6)),
    "Grad-CAM grid": (
        lambda path: plots.grad_cam_grid([IMAGE] * 3, [HEAT] * 3, ["a\nb"] * 3, path, correct=[True, False, True]),
        (9, 7.275),
    ),
    "Grad-CAM overlay": (lambda path: plots.grad_cam_overlay(IMAGE, HEAT, "a.png", path), (9, 7.275)),
    "Grad-CAM overlay of one pixel": (lambda path: plots.grad_cam_overlay(IMAGE[:1, :1], HEAT, "a.png", path), (9, 6.15)),
    "Grad-CAM overlay of a strip": (lambda path: plots.grad_cam_overlay(np.zeros((3000, 2), np.uint8), HEAT, "a.png", path), (9, 12.9)),
    "detection grid": (
        lambda path: plots.detection_grid([IMAGE] * 2, [[TRUE], []], [[FOUND, FALSE], []], [[0.9, 0.4], []], ["a", "b"], path),
        (9, 6.275),
    ),
    "detection overlay": (lambda path: plots.detection_overlay(IMAGE, [FOUND], [0.9], path, title="a.dcm"), (5.76, 7.825)),
    "detection overlay with no box": (lambda path: plots.detection_overlay(IMAGE.T.copy(), np.zeros((0, 4)), [], path), (7.2, 6.4)),
    "detection overlay of a strip": (lambda path: plots.detection_overlay(np.zeros((1, 2000), np.uint8), [[0, 0, 9, 1]], [0.5], path), (7.2, 2.8)),
    "FROC": (lambda path: plots.froc([0, 0.5, 3], [0.1, 0.4, 0.8], path, points={0.125: 0.1, 1: 0.4, 8: 0.8}), (6.4, 4.6)),
    "FROC of nothing": (lambda path: plots.froc([], [], path), (6.4, 4.6)),
    "precision and recall": (lambda path: plots.precision_recall({"IoU .5": ([0, 0.5], [1, 0.5])}, path), (6, 6)),
    "precision and recall of nothing": (lambda path: plots.precision_recall({}, path), (6, 6)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """Draws twice as fast; the layout is in inches and stays."""
    monkeypatch.setattr(plots, "DPI", 40)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are put together, in order; not rendered, which is most of the work."""
    from contextlib import contextmanager

    kept, picture = [], plots._picture

    @contextmanager
    def keep(*arguments, **named):
        with picture(*arguments, **named) as figure:
            kept.append(figure)
            yield figure

    monkeypatch.setattr(plots, "_picture", keep)
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    return kept


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(axes):
    return [text.get_text() for text in axes.texts]


# --- every picture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_one_whole_png_of_the_stated_size(name, tmp_path):
    draw, size = DRAWN[name]
    path = tmp_path / "new" / "picture.png"
    draw(path)
    with Image.open(path) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", tuple(round(40 * inches) for inches in size))
        assert "Software" not in picture.info
        assert len(np.unique(np.asarray(picture.convert("L")))) > 3
    assert names_in(path.parent) == ["picture.png"]


def test_a_readme_shows_a_picture_at_nearly_half_its_pixels(monkeypatch, tmp_path):
    monkeypatch.undo()
    DRAWN["FROC"][0](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1024, 736)
    assert 800 * 11 / (72 * plots.WIDTH) >= 12  # pixels of the 11 pt font where the widest picture is shown 800 wide
    assert 470 * 11 / (72 * plots.OVERLAY_WIDTH) >= 11.5  # and a picture of one image beside another


def test_the_same_data_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    draw = DRAWN["confusion matrix"][0]
    draw(tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "savefig.bbox": "tight"}):
        draw(tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"a heat map \[h, w\] in 0..1, found shape \(7, 7\), 0.0 to 2.0"):
        plots.grad_cam_overlay(IMAGE, HEAT / HEAT.max() * 2, "a", path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.png"]


def test_no_pyplot_no_display_and_nothing_heavy_before_the_first_picture(tmp_path):
    code = (
        "import sys, numpy, pathlib\n"
        "from cxr import plots\n"
        "assert not {'matplotlib', 'torch', 'sklearn'} & set(sys.modules), 'heavy'\n"
        "plots.froc([0, 1], [0.2, 0.5], pathlib.Path(sys.argv[1]))\n"
        "print([name for name in sys.modules if 'pyplot' in name or name in ('tkinter', 'sklearn')])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "폐렴_001.jpeg",
        "$\\frac{1}$.png",
        "a\tb\r\x07c",
        "肺炎🫁.dcm",
        "\udcff.png",
        "x" * 300,
        "",
        "100 % _^{}\\",
        "\u202f",
    ],
)
def test_any_file_name_can_be_a_title(name, tmp_path):
    plots.confusion_matrix([[1, 0], [0, 1]], [name, name], tmp_path / "a.png", title=f"{name}\nnothing found")
    assert names_in(tmp_path) == ["a.png"]


@pytest.fixture
def only_the_own_font(monkeypatch):
    monkeypatch.setattr(plots, "_EAST_ASIAN_FONTS", ())
    plots._families.cache_clear()
    plots._characters.cache_clear()
    yield
    plots._families.cache_clear()
    plots._characters.cache_clear()


@pytest.mark.usefixtures("only_the_own_font")
def test_what_no_font_can_draw_becomes_a_square():
    assert plots._drawable("person1_폐렴.jpeg") == "person1_□□.jpeg"
    assert plots._drawable(unicodedata.normalize("NFD", "폐렴 é")) == "□□ é"
    assert plots._drawable("a\nb\tc\u202fd\x00") == "a\nb c d□"


@pytest.mark.usefixtures("only_the_own_font")
def test_an_installed_font_draws_what_the_own_one_lacks(monkeypatch, tmp_path):
    alone = plots._characters()
    monkeypatch.setattr(plots, "_EAST_ASIAN_FONTS", ("No Such Font", "STIXGeneral"))
    plots._families.cache_clear()
    plots._characters.cache_clear()
    assert plots._families() == ("DejaVu Sans", "STIXGeneral")
    letter = chr(min(code for code in plots._characters() - alone if chr(code).isprintable()))
    assert plots._drawable(letter) == letter
    plots.precision_recall({letter: ([0, 1], [1, 0])}, tmp_path / "a.png", title=letter)


@given(st.text(alphabet="abc폐렴ﾊ", max_size=60), st.integers(3, 40))
@settings(deadline=None)
def test_a_long_line_keeps_both_ends_and_fits(line, width):
    def columns(text):
        return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)

    shown = plots._shortened(line, width)
    if columns(line) <= width:
        assert shown == line
    else:
        head, tail = shown.split("…")
        assert width - 3 <= columns(shown) <= width
        assert line.startswith(head) and line.endswith(tail)


def test_a_long_title_is_broken_between_words_into_parts_alike():
    title = "person146_bacteria_3.jpeg: PNEUMONIA, probability of PNEUMONIA 0.991"
    assert plots._wrapped(title, 9) == title
    assert plots._wrapped(title, 6) == "person146_bacteria_3.jpeg: PNEUMONIA,\nprobability of PNEUMONIA 0.991"
    assert plots._wrapped("a\nb", 6) == "a\nb"
    assert plots._wrapped("", 6) == ""
    assert plots._wrapped(f"{'a' * 80}: NORMAL", 6) == f"{'a' * 33}…{'a' * 31}:\nNORMAL"


# --- curves of a run -------------------------------------------------------------------------------------------------


def test_loss_curves_leave_gaps_and_mark_the_epoch_kept(figures, tmp_path):
    records = [
        {"epoch": 1, "train_loss": 3.0, "val_loss": None, "val_auc": 0.5},
        {"epoch": 2, "train_loss": float("inf"), "val_loss": 2.0},
        {"epoch": 3, "train_loss": 1.0, "val_loss": 2.5, "val_auc": float("nan")},
    ]
    plots.loss_curves(records, tmp_path / "a.png", best_epoch=2, scores={"val_auc": "ROC AUC", "val_other": "other"})
    loss, score = figures[0].axes
    train, validation, kept = loss.lines
    assert train.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(train.get_ydata(), [3, np.nan, 1])
    np.testing.assert_array_equal(validation.get_ydata(), [np.nan, 2, 2.5])
    assert train.get_linestyle() != validation.get_linestyle()
    assert (list(kept.get_xdata()), kept.get_label()) == ([2, 2], "kept: epoch 2")
    assert [line.get_label() for line in score.lines] == ["ROC AUC", "kept: epoch 2"]
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_parts_of_the_loss_have_a_panel_for_training_and_one_for_validation(figures, tmp_path):
    DRAWN["loss curves with parts"][0](tmp_path / "a.png")
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["Loss", "Validation scores", "Parts of the training loss", "Parts of the validation loss"]
    assert figures[0].axes[2].lines[0].get_ydata().tolist() == [0.5] * 3
    assert figures[0].axes[3].lines[0].get_ydata().tolist() == [0.6] * 3


def test_loss_curves_say_what_is_not_recorded_and_refuse_an_empty_log(figures, tmp_path):
    DRAWN["loss curves without scores"][0](tmp_path / "a.png")
    assert [texts(axes) for axes in figures[0].axes] == [["not recorded"]] * 2
    with pytest.raises(ValueError, match=r"metrics.jsonl holds no record"):
        plots.loss_curves([], tmp_path / "b.png", best_epoch=None, scores={})


# --- scores of a classifier ------------------------------------------------------------------------------------------


def test_confusion_matrix_writes_counts_and_row_shares_that_stand_out(figures, tmp_path):
    plots.confusion_matrix([[1500, 500], [0, 0]], ["NORMAL", "PNEUMONIA"], tmp_path / "a.png")
    cells = figures[0].axes[0].texts
    assert [cell.get_text() for cell in cells] == ["1,500\n75.0%", "500\n25.0%", "no image", "no image"]
    # Row is truth: text sits at (column, row).
    assert [cell.get_position() for cell in cells] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_numbers_in_a_confusion_matrix_are_readable_on_every_shade(figures, tmp_path):
    counts = np.arange(0, 101, 10)
    names = [""] * counts.size
    plots.confusion_matrix(
        np.diag(counts) + np.eye(counts.size)[::-1] * (100 - counts)[:, None], names, tmp_path / "a.png"
    )
    axes = figures[0].axes[0]
    shades = axes.images[0].get_array()
    for cell in axes.texts:
        column, row = cell.get_position()
        shade = matplotlib.colormaps["Blues"](float(shades[row, column]))[:3]
        assert contrast(shade, to_rgb(cell.get_color())) >= 4.4  # WCAG 2.1 asks 4.5 of small text, 3 of large


def contrast(one, other):
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_curves_are_those_of_scikit_learn_and_pass_through_the_operating_point(figures, tmp_path):
    plots.roc_and_precision_recall(LABELS, PROBABILITIES, 0.5, tmp_path / "a.png")
    roc, recall = figures[0].axes
    false_rate, sensitivity, _ = roc_curve(LABELS, PROBABILITIES, drop_intermediate=False)
    _, curve, point = roc.lines
    np.testing.assert_allclose(curve.get_xdata(), false_rate)
    np.testing.assert_allclose(curve.get_ydata(), sensitivity)
    called = PROBABILITIES >= 0.5
    place = (called[LABELS == 0].mean(), called[LABELS == 1].mean())
    assert (point.get_xdata()[0], point.get_ydata()[0]) == place
    assert np.isclose(np.stack([curve.get_xdata(), curve.get_ydata()], 1), place).all(1).any()
    precision, found, _ = precision_recall_curve(LABELS, PROBABILITIES)
    _, curve, point = recall.lines
    np.testing.assert_allclose(curve.get_xdata()[1:], found[-2::-1])
    np.testing.assert_allclose(curve.get_ydata()[1:], precision[-2::-1])
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (place[1], LABELS[called].mean())


def test_bands_hold_the_curve(figures, tmp_path):
    DRAWN["ROC and PR with bands"][0](tmp_path / "a.png")
    for axes in figures[0].axes:
        edges = axes.collections[0].get_paths()[0].vertices
        curve = axes.lines[1]
        for at in (0.2, 0.5, 0.8):
            near = edges[np.isclose(edges[:, 0], at), 1]
            assert near.min() <= np.interp(at, curve.get_xdata(), curve.get_ydata()) <= near.max()


def test_one_class_alone_is_said_not_drawn(figures, tmp_path):
    DRAWN["ROC and PR of one class"][0](tmp_path / "a.png")
    assert [texts(axes) for axes in figures[0].axes] == [["undefined: one class alone"]] * 2


def test_reliability_of_two_worked_bins(figures, tmp_path):
    plots.reliability([0, 1, 1, 1], [0.1, 0.12, 0.98, 1.0], tmp_path / "a.png", before=[0.5] * 4)
    diagram, counts = figures[0].axes
    _, before, after, *_ = diagram.lines
    assert (before.get_xdata().tolist(), before.get_ydata().tolist()) == ([0.5], [0.75])
    np.testing.assert_allclose(after.get_xydata(), [[0.11, 0.5], [0.99, 1.0]])
    assert [bar.get_height() for bar in counts.patches] == [0, 2, *[0] * 12, 2]
    assert before.get_label() == "before: ECE 0.250, Brier 0.250"


# --- heat maps -------------------------------------------------------------------------------------------------------


def test_no_heat_leaves_the_radiograph_and_full_heat_leaves_its_anatomy():
    cold, hot = (plots._heated(IMAGE, np.full((7, 7), heat)) for heat in (0.0, 1.0))
    assert (cold == IMAGE[..., None]).all()
    # From black to bright the picture below keeps 40 % of its contrast under the strongest heat.
    assert (np.ptp(hot.astype(int), axis=1)[0] >= 0.39 * 255).all()
    assert (hot[..., 0].astype(int) > hot[..., 2]).any()


def test_heat_lies_where_the_map_has_it():
    heat = np.zeros((4, 4))
    heat[3, 0] = 1  # lower left
    changed = np.abs(plots._heated(IMAGE, heat).astype(int) - IMAGE[..., None]).sum(axis=2)
    assert changed[75:, :20].mean() > 50
    assert changed[:40, 50:].max() == 0


def test_wrong_answers_are_crossed_and_framed_right_ones_ticked(figures, tmp_path):
    DRAWN["Grad-CAM grid"][0](tmp_path / "a.png")
    right, wrong, last, _ = figures[0].axes
    assert [axes.get_title() for axes in (right, wrong, last)] == ["✓ a\nb", "✗ a\nb", "✓ a\nb"]
    assert [axes.spines["left"].get_visible() for axes in (right, wrong, last)] == [False, True, False]


def test_an_overlay_keeps_the_proportions_of_the_original(figures, tmp_path):
    plots.grad_cam_overlay(np.zeros((300, 900), np.uint8), HEAT, "a", tmp_path / "a.png")
    height, width, _ = figures[0].axes[0].images[0].get_array().shape
    assert (height, width) == (300, 900 + 15 + 900)
    assert figures[0].axes[0].get_aspect() == 1


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4)), r"float64 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.uint8), r"uint8 \[4, 4, 3\]"),
        (np.zeros((0, 4), np.uint8), r"uint8 \[0, 4\]"),
    ],
)
def test_only_grey_uint8_is_a_radiograph(image, found, tmp_path):
    with pytest.raises(ValueError, match=f"found {found}"):
        plots.grad_cam_overlay(image, HEAT, "a", tmp_path / "a.png")
    assert not names_in(tmp_path)


def test_a_grid_of_unequal_lists_or_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'images': 2, 'heatmaps': 1, 'titles': 2, 'correct': 2"):
        plots.grad_cam_grid([IMAGE] * 2, [HEAT], ["a"] * 2, tmp_path / "a.png", correct=[True] * 2)
    with pytest.raises(ValueError, match="at least one"):
        plots.detection_grid([], [], [], [], [], tmp_path / "a.png")


# --- boxes -----------------------------------------------------------------------------------------------------------


def match(truths, boxes, scores, hit_iou=0.4):
    found, hits = plots._matches(plots._boxes(truths), plots._boxes(boxes), np.array(scores, float), hit_iou)
    return found.tolist(), hits.tolist()


def test_matching_of_worked_boxes():
    box = [0, 0, 10, 10]
    half = [0, 0, 10, 5]  # IoU .5
    assert match([box], [half], [0.5], 0.5) == ([True], [True])
    assert match([box], [half], [0.5], 0.51) == ([False], [False])
    assert match([box], [half, box], [0.5, 0.9]) == ([True], [False, True])  # the surer takes it
    assert match([box], [half, box], [0.9, 0.5]) == ([True], [True, False])
    assert match([half, box], [box, half], [0.9, 0.8]) == ([True, True], [True, True])
    assert match([box, [20, 20, 30, 30]], [[20, 20, 30, 31]], [0.5]) == ([False, True], [True])
    assert match([box], [[10, 0, 20, 10]], [0.5]) == ([False], [False])  # they touch
    assert match([], [box], [0.5]) == ([], [False])
    assert match([box], [], []) == ([False], [])
    assert match([[5, 5, 5, 5]], [[5, 5, 5, 5]], [0.5]) == ([False], [False])  # no area


def test_true_and_predicted_boxes_differ_in_style_and_words_and_lie_where_they_should(figures, tmp_path):
    missed = [45, 60, 70, 90]
    plots.detection_grid([IMAGE], [[TRUE, missed]], [[FOUND, FALSE]], [[0.91, 0.42]], ["a"], tmp_path / "a.png")
    (axes,) = figures[0].axes
    boxes = {
        tuple(np.add(patch.get_bbox().extents, 0.5).round(6)): patch
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }
    assert set(boxes) == {tuple(map(float, box)) for box in (TRUE, missed, FOUND, FALSE)}
    dashed = {key: patch.get_linestyle() != "solid" and patch.get_linestyle() != "-" for key, patch in boxes.items()}
    assert [dashed[tuple(map(float, box))] for box in (TRUE, missed, FOUND, FALSE)] == [True, True, False, False]
    assert sorted(texts(axes)) == sorted(["missed", "✓ 0.91", "✗ 0.42"])
    assert len({patch.get_edgecolor() for patch in boxes.values()}) == 4
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "true box, found",
        "true box, missed",
        "✓ prediction, hit (IoU 0.4 or more)",
        "✗ prediction, false",
    ]


def test_boxes_are_scaled_with_an_image_that_is_shown_smaller(figures, tmp_path):
    plots.detection_overlay(np.zeros((2240, 1120), np.uint8), [[100, 200, 300, 400]], [0.5], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.images[0].get_array().shape == (1120, 560)
    np.testing.assert_allclose(axes.patches[0].get_bbox().extents, np.array([50, 100, 150, 200]) - 0.5)


@pytest.mark.parametrize(
    "box", [[0, 0, 20, 20], [60, 0, 80, 20], [0, 80, 20, 100], [60, 80, 80, 100], [-9, -9, 95, 120]]
)
def test_scores_stay_inside_the_image(box, figures, tmp_path):
    plots.detection_grid([IMAGE], [[box]], [[]], [[]], ["a"], tmp_path / "a.png")
    plots.detection_grid([IMAGE], [[]], [[box]], [[0.5]], ["a"], tmp_path / "a.png")
    for figure in figures:
        figure.draw_without_rendering()
        (axes,) = figure.axes
        frame, label = axes.get_window_extent(), axes.texts[0].get_window_extent()
        assert frame.x0 <= label.x0 and label.x1 <= frame.x1
        assert frame.y0 <= label.y0 and label.y1 <= frame.y1


def test_boxes_of_another_form_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"boxes \[K, 4\] as xyxy, found shape \(4,\)"):
        plots.detection_overlay(IMAGE, [1, 2, 3, 4], [0.5], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a score for each of 1 boxes, found shape \(2,\)"):
        plots.detection_overlay(IMAGE, [[1, 2, 3, 4]], [0.5, 0.6], tmp_path / "a.png")


# --- curves of a detector --------------------------------------------------------------------------------------------


def test_froc_steps_hold_to_the_right_on_a_log_scale(figures, tmp_path):
    plots.froc([2.0, 0.0, 0.5], [0.8, 0.1, 0.4], tmp_path / "a.png", points={0.5: 0.4})
    (axes,) = figures[0].axes
    curve, point = axes.lines
    assert curve.get_xydata().tolist() == [[1 / 16, 0.1], [0.5, 0.4], [2, 0.8], [16, 0.8]]
    assert curve.get_drawstyle() == "steps-post"
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    assert (point.get_xydata().tolist(), texts(axes)) == ([[0.5, 0.4]], ["0.40"])


def test_precision_recall_tells_its_curves_apart_without_colour(figures, tmp_path):
    plots.precision_recall({f"{n}": ([0, 1], [1, 0]) for n in range(4)}, tmp_path / "a.png")
    assert len({line.get_linestyle() for line in figures[0].axes[0].lines}) == 4
