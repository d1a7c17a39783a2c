"""What a model card says of a finished classifier: from its file and its reports, and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.files import sha256_of
from cxr.messages import one_line, shortened
from cxr.metrics import interval_text
from cxr.model_file import RESEARCH_ONLY
from pytorch_classification.claim import CLAIM, NO_ENSEMBLE
from pytorch_classification.data_load import CLASSES
from pytorch_classification.image_metrics import SCORES
from pytorch_classification.report import counts, group_tables
from studies import style

NOT_STATED = "not stated"
_LONGEST = 300  # characters of a text from a file, which may come from anywhere
# What its page says of Kaggle's set, in our words.
_KAGGLE = {
    "source": "[Chest X-Ray Images (Pneumonia)](https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia)"
    ", Kermany et al., Cell 2018, [doi:10.1016/j.cell.2018.02.010](https://doi.org/10.1016/j.cell.2018.02.010); told "
    "by the form of all file names. The next four rows are what its page says",
    "licence": "CC BY 4.0",
    "patients and films": "children of one to five years, Guangzhou Women and Children's Medical Center; films of "
    "routine care, anterior-posterior, from retrospective cohorts",
    "left out by its authors": "films of low quality and unreadable ones",
    "truth": "two physicians graded each film; a third checked the set meant for evaluation",
}
_SYNTHETIC = {"source": "drawn by make_sample_data.py: no person is shown", "licence": "does not apply"}

_EXTERNAL = "Images of another source"

Section = tuple[str, list[str]]  # heading and lines; no lines where nothing is known
Sources = Mapping[str, Sequence[Mapping[str, Any]]]  # reports by where their images are from


def said(value: Any) -> str:
    """What a file says, for a cell of a Markdown table; "not stated" for None."""
    if value is None:
        return NOT_STATED
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = shortened(one_line(f"{value:.6g}" if isinstance(value, float) else value), _LONGEST)
    return "".join(f"&#{ord(letter)};" if letter in "|<>&[]`*" else letter for letter in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the cells are as they are to be shown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def block(rows: Sequence[Sequence[str]]) -> list[str]:
    """A report's table, which begins with its header, and an empty line."""
    return [*table(rows[0], ([said(cell or None) for cell in row] for row in rows[1:])), ""]


# ----------------------------------------------------------------------------------------------------- the sections


def summary(state: Mapping[str, Any], path: Path) -> Section:
    """What kind of thing this is, and which file."""
    trained = state.get("trained_on") or {}
    parameters = sum(tensor.numel() for name, tensor in state["model"].items() if "running" not in name)
    rows = [
        ("file", f"{said(path.name)}, {path.stat().st_size / 1e6:.1f} MB"),
        ("SHA-256", sha256_of(path)),
        ("network", f"ResNet-18 (deep learning), one grey channel, one output; {parameters / 1e6:.1f} million weights"),
        ("answers", f"calibrated probability of {CLASSES[1]} against {CLASSES[0]}, and Grad-CAM"),
        ("finished", f"{said(trained.get('date'))}, commit {said(trained.get('commit'))}"),
        ("use", RESEARCH_ONLY),
        ("code", "this project's, under the MIT licence (LICENSE)"),
    ]
    if adapted := state.get("adapted"):
        rows.append(("since then", said(adapted["text"])))
    return "Summary", table(("", ""), rows)


def use(state: Mapping[str, Any]) -> Section:
    """What it is for and what it is not for."""
    lines = [
        "- Intended: research and teaching: how a small network reads frontal chest radiographs like those it was "
        "trained on, how calibration, operating point and shortcuts behave; and a start for further training.",
        "- Not intended: any decision about a patient; screening, triage or reporting; other views and body parts; "
        "ages, machines and diseases that it was not evaluated on. It is not a medical device.",
        f"- An image unlike those of training is flagged: {said(state.get('likeness') is not None)}. A flag tells of "
        "pictures, not of diseases that training did not show.",
    ]
    return "Use", lines


def training_data(state: Mapping[str, Any]) -> Section:
    """What was learnt from, and under which licence."""
    trained = state.get("trained_on") or {}
    known = _SYNTHETIC if _is_synthetic(state) else _KAGGLE if _is_kaggle(state) else {}
    rows = [
        ("folder", said(trained.get("folder"))),
        *({"source": NOT_STATED, "licence": NOT_STATED} | known).items(),
        ("learnt from", f"{said(trained.get('images'))} images of {said(trained.get('patients'))} patients"),
    ]
    return "Training data", table(("", ""), rows)


def _is_synthetic(state: Mapping[str, Any]) -> bool:
    return (state.get("trained_on") or {}).get("synthetic") is True


def _is_kaggle(state: Mapping[str, Any]) -> bool:
    return (state.get("flow") or {}).get("named_as_kaggle") is True and not _is_synthetic(state)


def flow_of_images(state: Mapping[str, Any]) -> Section:
    """Where images and patients went, and what was left out and why."""
    flow, tested = state.get("flow"), state.get("test_report")
    if flow is None:
        return "Images and patients", []
    named = {"learnt from": flow["parts"]["train"], "validation, to choose by": flow["parts"]["validation"]}
    rows = [
        (words, *(said(of["images"][name]) for name in CLASSES), said(of["patients"])) for words, of in named.items()
    ]
    lines = [
        *table(("", *CLASSES, "patients"), rows),
        "",
        f"- Found for training and validation: {said(flow['listed'])} images, all that were in the folders. Left out: "
        f"{said(flow['unreadable'])} that cannot be read.",
        f"- Files with the content of another one: {said(flow['repeated'])}. They stay, and their patients are on one "
        "side.",
        "- Training and validation have no patient and no file content in common; a hash of the patient's name and the "
        "seed decides.",
    ]
    shifted = flow["shifted"]
    kind = "films of another source, never learnt from" if shifted["external"] else "made from validation"
    ", ".join(f"{said(shifted['images'][name])} {name}" for name in CLASSES)
    lines.append(f"- Also to choose by: {said(shifted['name'])} ({kind}): {counts}.")
    if tested:
        left_out = tested["left_out"]
        lines.append(
            f"- Test: {said(tested['scores']['images'])} images of {said(tested['scores']['patients'])} patients, read "
            f"once after the last choice. Left out: {said(left_out['unreadable'])} that cannot be read, "
            f"{said(left_out['in_training'])} with the content of a training or validation file."
        )
    return "Images and patients", lines


def recipe(state: Mapping[str, Any]) -> Section:
    """How it was trained, on what, for how long, and which epoch was kept."""
    config, made = state.get("config"), state.get("provenance") or {}
    if config is None:
        return "Recipe", []
    seconds: list[Any] = state.get("seconds") or [None]
    told = (
        None if None in seconds else f"{sum(seconds) / 60:.1f} minutes for {len(seconds)} epochs, validation included"
    )
    settings = [
        (f"`--{said(name).replace('_', '-')}`", "none" if value is None else said(value))
        for name, value in config.items()
    ]
    machine = f"{said(made.get('platform'))}; {said(made.get('device'))}, {said(made.get('threads'))} threads"
    lines = [
        "Each image is squashed to a square, standardised by itself (mean 0, standard deviation 1) and, while training "
        "goes on, varied in tone, sharpness, frame and geometry. AdamW, one-cycle schedule, class-weighted cross-"
        "entropy, running average of the weights. Kept is the epoch with the lowest mean loss over validation and the "
        "shifted set, each at its best temperature.",
        "",
        *table(("setting", "value"), settings),
        "",
        *table(
            ("", ""),
            [
                ("epoch kept", f"{said(state.get('epoch'))} of {said(config.get('epochs'))}"),
                ("first weights", "random" if config.get("weights") == "none" else said(config.get("weights"))),
                ("software", ", ".join(f"{name} {said(made.get(name))}" for name in ("python", "torch"))),
                ("machine", machine),
                ("precision", {"True": "bfloat16", "False": "float32"}.get(str(made.get("bf16")), NOT_STATED)),
                ("time", said(told)),
                ("energy and carbon", NOT_STATED),
            ],
        ),
    ]
    return "Recipe", lines


def operating_point(state: Mapping[str, Any]) -> Section:
    """Calibration and threshold, and what they did where they were chosen."""
    chosen, found = state["prediction"], state.get("validation") or {}
    lines = [
        f"- Temperature {said(chosen['temperature'])}: the log-odds are divided by it. Without a bias, which would "
        "carry the prevalence of the data set into every probability.",
        f"- Operating point {said(chosen['threshold'])}: at or above it an image is called {CLASSES[1]}.",
        f"- Mirror image averaged: {said(chosen['flip_average'])}.",
    ]
    if adapted := state.get("adapted"):
        lines.append(f"- {said(adapted['text'])}.")
    else:
        lines.append(
            "- Both were fitted on validation and the shifted set together; the operating point is where even odds lie."
        )
    if found:
        names = list(dict.fromkeys(name for scores in found.values() for name in scores))
        rows = [[said(part), *(said(scores.get(name)) for name in names)] for part, scores in found.items()]
        lines += ["", *table(("measured where it was fitted", *(said(name).replace("_", " ") for name in names)), rows)]
    return "Calibration and operating point", lines


def results(title: str, report: Mapping[str, Any]) -> list[str]:
    """Scores of ``image_metrics.evaluate_classifier`` with intervals, and the confusion matrix."""
    (tn, fp), (fn, tp) = report["confusion_matrix"]
    there = report["at_prevalence"]
    rows = [(name, interval_text(report["scores"][key])) for key, name in SCORES.items() if key in report["scores"]]
    rows += [
        (f"{key.upper()} at {there['prevalence']:.0%} {CLASSES[1]}", interval_text(there[key]))
        for key in ("ppv", "npv")
    ]
    threshold = report["threshold"]
    at = " to ".join(said(value) for value in threshold) if isinstance(threshold, list) else said(threshold)
    return [
        f"### {title}",
        "",
        f"{report['images']} images of {report['patients']} patients, operating point {at}. {report['confidence']:.0%} "
        f"intervals by patient ({report['resamples']} bootstrap resamples).",
        "",
        *table(("score", "value (interval)"), rows),
        "",
        *table(("truth / predicted", *CLASSES), [(CLASSES[0], str(tn), str(fp)), (CLASSES[1], str(fn), str(tp))]),
        "",
    ]


def measured(title: str, report: Mapping[str, Any]) -> list[str]:
    """A whole report on labelled images: scores, who was left out, subgroups, style, Grad-CAM."""
    lines = results(title, report["scores"])
    lines += [*(f"- {words.capitalize()}: {said(count)}." for words, count in counts(report).items()), ""]
    for kind, rows in group_tables(report).items():
        if kind == "corruptions":
            lines += [
                "The same images corrupted, as the small squares that prediction makes of them; noise in percent of "
                "the grey range, blur in pixels of these squares:",
                "",
            ]
        lines += block(rows)
    if point := report.get("operating_point"):
        words = f"{title}: operating point set here for {said(point['measure'])} {said(point['target'])}, cross-fitted"
        lines += results(words, point["cross_fitted"])
    return lines


def audit(report: Mapping[str, Any]) -> list[str]:
    """What shortcut_audit.py found."""
    listed = ", ".join(f"{said(count)} {said(name)}" for name, count in report["images"].items())
    told = [[name, interval_text(score)] for name, score in report["roc_auc"].items()]
    return [
        f"### Shortcut audit on {said(Path(report['data_dir']).name)}",
        "",
        f"{listed}, of {said(report['patients'])} patients. How well the class is told without lungs:",
        "",
        *block([["told by", "ROC AUC (interval)"], *told]),
        *block(style.group_rows(report["model"]["groups"])),
    ]


def all_results(state: Mapping[str, Any], judged: Sources) -> Section:
    """Everything that was measured."""
    lines: list[str] = []
    if own := state.get("validation_report"):
        lines += results("Validation, which temperature, operating point and epoch were chosen on", own)
    for source, reports in judged.items():
        for report in reports:
            lines += audit(report) if "contradicting" in report else measured(_named(source, report), report)
    if lines and not any(report.get("corruptions") for reports in judged.values() for report in reports):
        lines.append(f"Corrupted images (noise, blur, compression): {NOT_STATED}.")
    return "Results", lines


def _named(source: str, report: Mapping[str, Any]) -> str:
    return f"{source} ({said(Path(report.get('set', '')).name)})"


def failures(judged: Sources) -> Section:
    """Where it is wrong."""
    lines: list[str] = []
    for source, reports in judged.items():
        for report in (report for report in reports if "set" in report):
            (tn, fp), (fn, tp) = report["scores"]["confusion_matrix"]
            lines.append(
                f"- {_named(source, report)}, at {said(report['scores']['threshold'])}: {fp} of {tn + fp} {CLASSES[0]} "
                f"called {CLASSES[1]}, {fn} of {fn + tp} {CLASSES[1]} missed."
            )
    if lines:
        lines.append("- Each error, the most confident first, stands in errors.csv and errors.png beside its report.")
    return "Failures", lines


def claim(sections: Sequence[Section], state: Mapping[str, Any], judged: Sources) -> Section:
    """Each item of CLAIM 2024: where this card answers it, or that it does not."""
    where = {heading: heading for heading, lines in sections if lines}
    everything = [report for reports in judged.values() for report in reports]
    if _is_kaggle(state):
        where["data"] = "Training data"
    if _is_kaggle(state) or _is_synthetic(state):
        where |= {"source": "Training data", "available": "Summary, Training data"}
    if "Recipe" in where and (state.get("provenance") or {}).get("commit"):
        where["code"] = "Recipe, with the code at the commit in the summary"
    robust = {
        "corrupted images": any(report.get("corruptions") for report in everything),
        "by style": any("contradicting" in report for report in everything),
    }
    if any(robust.values()):
        where["robustness"] = ", ".join(["Results", *(words for words, is_there in robust.items() if is_there)])
    for source, reports in judged.items():
        if any("scores" in report for report in reports):
            where["external" if source == _EXTERNAL else "internal"] = "Results"
    if any(name.startswith(("sex ", "age ")) for report in everything for name in report.get("subgroups") or {}):
        where["subgroups"] = "Results, subgroups of the images judged"
    answers = {place: f"yes: {answer}" for place, answer in where.items()} | {NO_ENSEMBLE: "does not apply"}
    rows = [(str(number), words, answers.get(place, NOT_STATED)) for number, words, place in CLAIM]
    return "CLAIM 2024", [
        "Checklist for Artificial Intelligence in Medical Imaging, 2024 update "
        "([doi:10.1148/ryai.240300](https://doi.org/10.1148/ryai.240300)), in short words. What a person must write is "
        f'"{NOT_STATED}".',
        "",
        *table(("item", "", "answered"), rows),
    ]


def card(
    state: Mapping[str, Any],
    path: Path,
    internal: Sequence[Mapping[str, Any]] = (),
    external: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole card of the model file ``state`` read from ``path``.

    Args:
        internal: reports on images of the source that was learnt from. external: on images of another.
    """
    judged = {
        "Test images of training's own source": [state["test_report"]] if "test_report" in state else [],
        "Further images of the same source": internal,
        _EXTERNAL: external,
    }
    sections = [
        summary(state, path),
        use(state),
        training_data(state),
        flow_of_images(state),
        recipe(state),
        operating_point(state),
        all_results(state, judged),
        failures(judged),
    ]
    sections.append(claim(sections, state, judged))
    lines = [
        f"# Model card: {said(path.stem)}",
        "",
        "Written by `model_card.py` from the model file and its reports, not by hand.",
    ]
    for heading, found in sections:
        while found and not found[-1]:
            found.pop()
        lines += ["", f"## {heading}", "", *(found or [f"{NOT_STATED}."])]
    return "\n".join(lines) + "\n"
