import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import matplotlib
import pytest

from cxr import plots


def draw(path):
    with plots.picture(path, (3, 3)) as figure:
        figure.subplots().plot([1, 3, 2])
        figure.suptitle("title")


def test_the_same_data_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    draw(tmp_path / "new" / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "savefig.bbox": "tight"}):
        draw(tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_pyplot_no_display_and_nothing_heavy_before_the_first_picture(tmp_path):
    code = (
        "import sys, numpy, pathlib\n"
        "from pytorch_classification import plots as classification\n"
        "from pytorch_detection import plots as detection\n"
        "assert not {'matplotlib', 'torch', 'sklearn'} & set(sys.modules), 'heavy'\n"
        "detection.froc([0, 1], [0.2, 0.5], pathlib.Path(sys.argv[1]))\n"
        "print([name for name in sys.modules if 'pyplot' in name or name in ('tkinter', 'sklearn')])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize(
    "name", ["폐렴_001.jpeg", "$\\frac{1}$.png", "a\tb\r\x07c", "肺炎🫁.dcm", "\udcff.png", "x" * 300]
)
def test_any_file_name_can_be_a_title(name, tmp_path):
    with plots.picture(tmp_path / "a.png", (2, 2)) as figure:
        figure.suptitle(plots.fit(f"{name}\nnothing found", 2))
    assert (tmp_path / "a.png").stat().st_size


def test_what_no_font_can_draw_becomes_a_square(monkeypatch):
    monkeypatch.setattr(plots, "_characters", lambda: frozenset(range(0x250)))
    assert plots.drawable("person1_폐렴.jpeg") == "person1_□□.jpeg"
    assert plots.drawable(unicodedata.normalize("NFD", "폐렴 é")) == "□□ é"
    assert plots.drawable("a\nb\tc\u202fd\x00") == "a\nb c d□"


def test_a_long_line_keeps_both_ends_and_wide_letters_count_twice(monkeypatch):
    monkeypatch.setattr(plots, "drawable", str)
    assert plots.fit("person1000_bacteria_2931.jpeg", 1) == "perso….jpeg"
    assert plots.fit("가나다라마바사.png", 1) == "가나….png"
    assert plots.fit("short\n12345678901", 1) == "short\n12345678901"


def test_a_long_title_is_broken_between_words_into_parts_alike():
    title = "person146_bacteria_3.jpeg: PNEUMONIA, probability of PNEUMONIA 0.991"
    assert plots.wrapped(title, 9) == title
    assert plots.wrapped(title, 6) == "person146_bacteria_3.jpeg: PNEUMONIA,\nprobability of PNEUMONIA 0.991"
