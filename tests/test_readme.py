"""Both READMEs against the code they speak of and against each other; the checks are tried on small wrong READMEs too."""

import argparse
import contextlib
import fnmatch
import functools
import importlib.util
import io
import re
import runpy
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, KOREAN = "README.md", "README.ko.md"

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
INLINE_CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(!?)\[[^\]]*\]\(\s*<?([^)\s>]+)|<(img|a)\b[^>]*?(?:src|href)=[\"']([^\"']+)")


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it up to the next one; the lines before the first heading have level 0."""

    level: int
    title: str
    prose: str
    blocks: tuple[tuple[str, str], ...]  # (language, text) of each fenced block

    @property
    def tables(self):
        """The numbers of each cell of each table row, smallest text first: word order differs between languages."""
        rows = [line.strip() for line in self.prose.splitlines() if line.strip().startswith("|")]
        return [[sorted(numbers_of(cell)) for cell in row.strip("|").split("|")] for row in rows]

    @property
    def links(self):
        """(picture or link, target) in order, without the links from one language to the other."""
        found = [(bool(bang) or tag == "img", md or html) for bang, md, tag, html in LINK.findall(self.prose)]
        return [(picture, target) for picture, target in found if target not in (ENGLISH, KOREAN)]

    @property
    def commands(self):
        return [command for language, text in self.blocks if language == "bash" for command in commands_of(text)]


def numbers_of(text):
    """Numerals of a text, thousands commas dropped; those in link targets and in code are names, not results."""
    text = INLINE_CODE.sub(" ", re.sub(r"\]\([^)]*\)|<[^>]+>", "] ", text))
    return [number.rstrip(",").replace(",", "") for number in NUMBER.findall(text)]


def commands_of(block):
    """The commands of a shell block as word lists: comments dropped, continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines for words in split_at_and(shlex.split(line, comments=True))]


def split_at_and(words):
    while "&&" in words:
        yield words[: words.index("&&")]
        words = words[words.index("&&") + 1 :]
    if words:
        yield words


def sections_of(path):
    """The sections of a Markdown file; a ``#`` inside a fenced block is no heading.

    Raises:
        ValueError: a fence that is never closed, which would hide all that follows from the checks.
    """
    found, level, title, prose, blocks, fence = [], 0, "", [], [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"(#{1,6}) +(.+?)\s*$", line)
        if fence is not None:
            if line.strip() == "```":
                blocks.append((fence[0], "\n".join(fence[1:])))
                fence = None
            else:
                fence.append(line)
        elif line.lstrip().startswith("```"):
            fence = [line.strip().strip("`")]
        elif heading:
            found.append(Section(level, title, "\n".join(prose), tuple(blocks)))
            level, title, prose, blocks = len(heading[1]), heading[2], [], []
        else:
            prose.append(line)
    if fence is not None:
        raise ValueError(f"{path}: the block after {title!r} is never closed")
    return [*found, Section(level, title, "\n".join(prose), tuple(blocks))]


class Accepted(BaseException):
    """The command line was understood; raised before the script does any work."""


@functools.cache
def answer(script, arguments):
    """(complaint, help text) of a script about a command line; the complaint is empty when it is understood."""
    if not re.search(r"\bcli\.parse\(|\.parse_args\(", script.read_text(encoding="utf-8")):
        return "it reads no command line", ""
    parse_args, helps, stderr = argparse.ArgumentParser.parse_args, [], io.StringIO()

    def parse_and_stop(parser, *positional, **named):
        helps.append(parser.format_help())
        parse_args(parser, *positional, **named)
        raise Accepted

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(stderr):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        patch.setenv("CXR_TRACEBACK", "1")  # leaves the handling of signals as it is
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Accepted:
            return "", helps[0]
        except SystemExit:
            return stderr.getvalue().strip().splitlines()[-1] if stderr.getvalue() else "it left", "".join(helps)
    return "it reads no command line", ""


def flags_of(help_text):
    """The flags that ``--help`` shows, from the column of flags only: a flag named in a sentence does not count."""
    columns = [re.split(r"\s{2,}", line.strip())[0] for line in help_text.splitlines() if re.match(r"\s{2}-", line)]
    return {flag for column in columns for flag in re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", column)}


def command_problems(root, words):
    """What is wrong with one command line of a README, as sentences."""
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=\S*", words[0]):
        words = words[1:]
    program, *rest = words
    if program in ("python", "python3"):
        return python_problems(root, rest)
    if program == "torchrun":
        return torchrun_problems(root, rest)
    if program == "make":
        return [
            f"make {target}: no such target" for target in rest if "=" not in target and target not in targets(root)
        ]
    if program == "pip":
        files = [rest[at + 1] for at, word in enumerate(rest[:-1]) if word in ("-r", "--requirement")]
        return [f"pip: {name} is missing" for name in files if not (root / name).is_file()]
    if program in ("source", "git"):
        return []
    return [f"{program}: the tests know no such program, so nothing checks this line"]


def python_problems(root, words):
    if words[:1] == ["-m"]:
        if words[1] in ("venv", "pytest", "pip"):
            return [] if importlib.util.find_spec(words[1]) else [f"python -m {words[1]}: no such module"]
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    if not words or not (root / words[0]).is_file():
        return [f"python {' '.join(words[:1])}: no such script"]
    arguments = tuple(words[1:])
    if set(arguments) & {"-h", "--help"}:
        return []
    complaint, _ = answer(root / words[0], arguments)
    return [f"python {' '.join(words)}: {complaint}"] if complaint else []


def torchrun_problems(root, words):
    """torchrun's own flags by its own parser, the rest as a call of the script."""
    from torch.distributed.run import get_args_parser

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            parsed = get_args_parser().parse_args(words)
        except SystemExit:
            return [f"torchrun {' '.join(words)}: {stderr.getvalue().strip().splitlines()[-1]}"]
    return python_problems(root, [parsed.training_script, *parsed.training_script_args])


def targets(root):
    return set(re.findall(r"^([A-Za-z][\w-]*)\s*:(?!=)", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def written_by_a_run(root, name):
    """Whether .gitignore names it, as it does whatever the scripts write."""
    patterns = (root / ".gitignore").read_text(encoding="utf-8").split("\n")
    return any(fnmatch.fnmatch(name.strip("/"), pattern.strip("/")) for pattern in patterns if pattern.strip("/"))


def structure_problems(root, sections):
    """Names of the Structure block that are not there, and Python files missing from a row that lists its folder."""
    texts = [
        text for s in sections if re.search("Structure|구조", s.title) for kind, text in s.blocks if kind == "text"
    ]
    if len(texts) != 1:
        return [f"{len(texts)} text blocks under Structure, expected 1"]
    problems = []
    for row in filter(str.strip, texts[0].splitlines()):
        cells = [cell for cell in re.split(r"\s{2,}", row.strip()) if re.fullmatch(r"[\w./-]+(\.\w+|/)", cell)]
        if not cells:
            problems.append(f"Structure: no name of a file or folder in {row!r}")
            continue
        folder = cells[0] if cells[0].endswith("/") else ""
        names = [cells[0], *(cell if cell.endswith("/") else folder + cell for cell in cells[1:])]
        there = {name: (root / name).is_dir() if name.endswith("/") else (root / name).is_file() for name in names}
        problems += [
            f"Structure: {n} is missing" for n, found in there.items() if not (found or written_by_a_run(root, n))
        ]
        if any(name.endswith(".py") and folder for name in names):
            files = {folder + path.name for path in (root / folder).glob("*.py") if path.name != "__init__.py"}
            problems += [f"Structure: {name} is not listed" for name in sorted(files - set(names))]
    return problems


def link_problems(root, sections):
    """Pictures and relative links that lead nowhere; ``#`` links must name a heading of the same file."""
    anchors = {re.sub(r"[^\w\- ]", "", section.title.lower()).replace(" ", "-") for section in sections}
    problems = []
    for section in sections:
        for _, target in section.links:
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            if path and not (root / path).exists():
                problems.append(f"{section.title}: {path} is missing")
            if not path and anchor not in anchors:
                problems.append(f"{section.title}: no heading #{anchor}")
    return problems


def prose_problems(root, sections):
    """Flags and make targets in running text: each flag must belong to a script that the README runs."""
    scripts = {word for s in sections for words in s.commands for word in words if word.endswith(".py")}
    known = {"--help"}
    for script in sorted(scripts):
        if (root / script).is_file():
            known |= flags_of(answer(root / script, ())[1])
    problems = []
    for section in sections:
        for code in INLINE_CODE.findall(section.prose):
            first, *rest = code.split()
            problems += (
                [f"{section.title}: no script has {first}"] if first.startswith("--") and first not in known else []
            )
            if first in ("make", "python", "torchrun") and rest:
                problems += command_problems(root, shlex.split(code))
    return problems


def readme_problems(root, name):
    """Everything in which a README disagrees with the code beside it."""
    sections = sections_of(root / name)
    other = KOREAN if name == ENGLISH else ENGLISH
    problems = [] if f"]({other})" in (root / name).read_text(encoding="utf-8") else [f"no link to {other}"]
    for words in dict.fromkeys(tuple(words) for section in sections for words in section.commands):
        problems += command_problems(root, list(words))
    return (
        problems + structure_problems(root, sections) + link_problems(root, sections) + prose_problems(root, sections)
    )


def comparable(link):
    """A link without the heading it names, which is in the language of the README."""
    picture, target = link
    return picture, target if ":" in target else target.partition("#")[0]


def mirror_problems(root):
    """Everything in which the two READMEs disagree, section by section."""
    english, korean = sections_of(root / ENGLISH), sections_of(root / KOREAN)
    if [s.level for s in english] != [s.level for s in korean]:
        listed = [[f"{'#' * s.level} {s.title}" for s in sections] for sections in (english, korean)]
        return [f"sections differ: {listed[0]} and {listed[1]}"]
    problems = []
    for left, right in zip(english, korean, strict=True):
        words = {str(n) for n, word in enumerate(NUMBER_WORDS) if re.search(rf"\b{word}\b", left.prose, re.IGNORECASE)}
        english_numbers, korean_numbers = set(numbers_of(left.prose)), set(numbers_of(right.prose))
        pairs = {
            "languages of the blocks": ([kind for kind, _ in left.blocks], [kind for kind, _ in right.blocks]),
            "commands": (left.commands, right.commands),
            "tables": (left.tables, right.tables),
            "links and pictures": (sorted(map(comparable, left.links)), sorted(map(comparable, right.links))),
            "code in running text": tuple(sorted(set(INLINE_CODE.findall(s.prose))) for s in (left, right)),
            "numbers": (sorted(english_numbers), sorted(korean_numbers - (words - english_numbers))),
        }
        problems += [f"{left.title}: {what} differ: {a} and {b}" for what, (a, b) in pairs.items() if a != b]
    return problems


@pytest.mark.parametrize("name", [ENGLISH, KOREAN])
def test_readme_agrees_with_the_code(name):
    problems = readme_problems(ROOT, name)
    assert not problems, "\n".join(problems)


def test_both_readmes_say_the_same():
    problems = mirror_problems(ROOT)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", [ENGLISH, KOREAN])
def test_the_first_screen_gives_no_figure_of_its_own(name):
    """Its table repeats what is told below with the command that gave it."""
    sections = sections_of(ROOT / name)
    below = next(index for index, section in enumerate(sections) if section.level == 2)
    shown = {number for section in sections[:below] for row in section.tables for cell in row for number in cell}
    assert len(shown) > 8
    assert shown - {number for section in sections[below:] for number in numbers_of(section.prose)} == set()


def test_readme_runs_every_script():
    run = {word for s in sections_of(ROOT / ENGLISH) for words in s.commands for word in words}
    scripts = [*ROOT.glob("*.py"), *ROOT.glob("pytorch_*/train_*.py"), *ROOT.glob("pytorch_*/predict_*.py")]
    assert sorted({path.relative_to(ROOT).as_posix() for path in scripts} - run) == []
    assert len(scripts) >= 4


SMALL_ENGLISH = """\
# Small

[한국어](README.ko.md)

## Structure

```text
tools/    train.py
images/   what a run writes
net.pth   the weights
```

## Running

```bash
pip install -r requirements.txt
python tools/train.py --epochs 3 \\
    --weights none              # two lines
torchrun --nproc_per_node 2 tools/train.py
make test
```

`--epochs` is at least two; see [Running](#running) and `make test`.

## Results

| Set | AUC |
| :-- | :-- |
| A, 1,200 images | .95 (.91 to .97) |

![Curves](images/curves.png)
"""

SMALL_KOREAN = """\
# 작은 예

[English](README.md)

## 구조

```text
tools/    train.py
images/   실행 결과
net.pth   가중치
```

## 🚀 실행

```bash
pip install -r requirements.txt
python tools/train.py --epochs 3 --weights none
torchrun --nproc_per_node 2 tools/train.py   # 두 개
make test
```

`--epochs`는 2 이상입니다. [실행](#-실행)과 `make test`를 보십시오.

## 결과

| 자료 | AUC |
| :-- | :-- |
| A, 영상 1,200장 | .95 (.91~.97) |

![곡선](images/curves.png)
"""

SMALL_SCRIPT = """\
import argparse
def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--epochs", type=int, help="as --rounds elsewhere")
    parser.add_argument("--weights", choices=["imagenet", "none"])
    parser.parse_args()
    raise AssertionError("a test must not train")
main()
"""


@pytest.fixture
def small(tmp_path):
    """A repository with one script, one picture and two READMEs that agree with it."""
    files = {
        ENGLISH: SMALL_ENGLISH,
        KOREAN: SMALL_KOREAN,
        "tools/train.py": SMALL_SCRIPT,
        "tools/__init__.py": "",
        "images/curves.png": "",
        "requirements.txt": "",
        "Makefile": "PYTHON := python3\ntest:\n\ttrue\n",
        ".gitignore": "*.pth\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def replace(root, name, old, new):
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), encoding="utf-8")


def test_small_readmes_are_right(small):
    assert readme_problems(small, ENGLISH) + readme_problems(small, KOREAN) + mirror_problems(small) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python tools/train.py", "python tools/trian.py", "tools/trian.py: no such script"),
        ("python tools/train.py", "python -m tools.trian", "tools/trian.py: no such script"),
        ("--epochs 3", "--epoch 3", "unrecognized arguments: --epoch 3"),
        ("    --weights none", "    --wieghts none", "unrecognized arguments: --wieghts none"),
        ("--weights none", "--weights coco", "invalid choice: 'coco'"),
        ("--epochs 3", "--epochs many", "invalid int value: 'many'"),
        ("--epochs 3", "--rounds 3", "unrecognized arguments: --rounds 3"),
        ("--nproc_per_node 2", "--processes 2", "torchrun"),
        ("2 tools/train.py", "2 tools/train.py --fast", "unrecognized arguments: --fast"),
        ("make test\n```", "make tset\n```", "make tset: no such target"),
        ("and `make test`", "and `make tset`", "make tset: no such target"),
        ("make test\n```", "make PYTHON\n```", "make PYTHON: no such target"),
        ("`--epochs`", "`--rounds`", "no script has --rounds"),
        ("-r requirements.txt", "-r requirement.txt", "pip: requirement.txt is missing"),
        ("make test\n```", "ninja test\n```", "ninja: the tests know no such program"),
        ("images/curves.png", "images/curve.png", "images/curve.png is missing"),
        ("](#running)", "](#runing)", "no heading #runing"),
        ("[한국어](README.ko.md)", "", "no link to README.ko.md"),
        ("tools/    train.py", "tools/    train.py  model.py", "Structure: tools/model.py is missing"),
        ("images/   what", "pictures/   what", "Structure: pictures/ is missing"),
        ("net.pth   the", "net.onnx   the", "Structure: net.onnx is missing"),
        ("## Structure", "## Files", "0 text blocks under Structure"),
    ],
)
def test_wrong_readme_is_caught(small, old, new, problem):
    replace(small, ENGLISH, old, new)
    found = readme_problems(small, ENGLISH)
    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("--epochs 3", "--epochs 4", "commands differ"),
        ("make test\n```", "```", "commands differ"),
        ("```bash", "```sh", "languages of the blocks differ"),
        ("## 결과", "### 결과", "sections differ"),
        ("## 결과\n", "", "sections differ"),
        (".95 (.91~.97)", ".96 (.91~.97)", "tables differ"),
        ("| A, 영상 1,200장 | .95 (.91~.97) |", "", "tables differ"),
        ("1,200장", "1,300장", "tables differ"),
        ("| A, 영상 1,200장 | .95", "| A, 영상 .95 | 1,200장", "tables differ"),
        ("2 이상", "3 이상", "numbers differ"),
        ("`--epochs`", "`--weights`", "code in running text differ"),
        ("![곡선](images/curves.png)", "", "links and pictures differ"),
        ("![곡선]", "[곡선]", "links and pictures differ"),
    ],
)
def test_readmes_out_of_step_are_caught(small, old, new, problem):
    replace(small, KOREAN, old, new)
    assert any(problem in each for each in mirror_problems(small)), mirror_problems(small)


def test_unlisted_script_is_caught(small):
    (small / "tools" / "data.py").touch()
    assert readme_problems(small, KOREAN) == ["Structure: tools/data.py is not listed"]


def test_script_without_command_line_is_never_run(small):
    (small / "tools" / "train.py").write_text("raise AssertionError('a test must not train')", encoding="utf-8")
    assert "it reads no command line" in readme_problems(small, ENGLISH)[0]


def test_open_fence_is_refused(small):
    replace(small, ENGLISH, "make test\n```", "make test\n")
    with pytest.raises(ValueError, match="never closed"):
        sections_of(small / ENGLISH)


def test_heading_like_comment_in_a_block_is_no_section(small):
    replace(small, ENGLISH, "make test\n```", "# make the tests\nmake test\n```")
    assert [section.title for section in sections_of(small / ENGLISH)] == [
        "",
        "Small",
        "Structure",
        "Running",
        "Results",
    ]
