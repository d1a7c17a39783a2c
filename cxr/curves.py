"""What is shown of a run while it goes on: its curves as a picture, and the same numbers for TensorBoard."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.pictures import GREY, LINES, WIDTH, drawable, picture, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_curves(
    records: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    scores: Mapping[str, str],
    losses: Mapping[str, str] | None = None,
    parts: Mapping[str, str] | None = None,
) -> None:
    """Loss and validation scores by epoch, with the best epoch so far where one is chosen.

    Args:
        records: lines of metrics.jsonl with ``epoch`` (the first is 1), ``improved`` (the best so far), ``train_loss``,
            ``val_loss`` and what is named below. A missing, None or non-finite value leaves a gap.
        scores: key of a record -> name in the legend, for the panel of scores.
        losses: key of a record -> name in the legend, beside the two losses.
        parts: name of a part of the loss -> name in the legend. A second row of panels shows ``train_`` and ``val_``
            plus that name, one panel each.
    """
    best_epoch = max((record["epoch"] for record in records if record.get("improved")), default=None)
    panels: list[tuple[str, str, Mapping[str, str]]] = [
        ("Loss", "loss", {"train_loss": "training", "val_loss": "validation", **(losses or {})}),
        ("Validation scores", "score", scores),
    ]
    if parts:
        for prefix, name in (("train_", "training"), ("val_", "validation")):
            series = {prefix + key: text for key, text in parts.items()}
            panels.append((f"Parts that add up to the {name} loss", "loss", series))
    with picture(path, (WIDTH, 2.2 * len(panels))) as figure:
        for axes, (title, unit, series) in zip(figure.subplots(len(panels) // 2, 2).flat, panels, strict=True):
            _by_epoch(axes, records, series, best_epoch)
            axes.set(title=title, xlabel="epoch", ylabel=unit)


def _by_epoch(
    axes: "Axes", records: Sequence[Mapping[str, Any]], series: Mapping[str, str], best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    for index, (key, label) in enumerate(series.items()):
        colour, style = LINES[index % len(LINES)]
        found = [record.get(key) for record in records]
        values = np.array([np.nan if value is None else value for value in found], np.float64)
        values[~np.isfinite(values)] = np.nan
        if np.isfinite(values).any():
            axes.plot(epochs, values, linestyle=style, color=colour, marker="o", markersize=3, label=drawable(label))
    if axes.lines:
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch: {best_epoch}")
        # Below the panel: curves of scores fill it, and a legend inside would hide one.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    else:
        say(axes, "not recorded")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def require_tensorboard() -> None:
    """Raise ValueError with the command that installs it where TensorBoard is missing."""
    if find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")


def write_scalars(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Every number of the ``records``, lines of metrics.jsonl, by epoch, as an event file in ``folder``.

    The file is written anew each time: a run that was resumed has no epochs in it that the log does not know.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    earlier = [*folder.glob("events.out.tfevents.*")]
    # The purge tells a TensorBoard that is open to forget what it has read of the earlier file.
    with SummaryWriter(folder, purge_step=1) as writer:
        for record in records:
            for name, value in record.items():
                if name != "epoch" and type(value) in (int, float):
                    writer.add_scalar(name, value, record["epoch"])
    for path in earlier:
        path.unlink()
