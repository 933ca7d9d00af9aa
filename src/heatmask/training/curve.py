"""The training curve of one run or several, from their TensorBoard logs."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from heatmask.files import write_atomically

_PANELS = {
    "val_loss": "Validation loss (with position offset, if any)",
    "val_auroc": "Validation AUROC (network alone)",
    "val_macro_f1": "Validation macro F1",
}


def draw_curves(runs: Sequence[str | Path], picture: str | Path) -> None:
    """Draw validation loss and scores by epoch, a line for each run, to `picture`.

    Runs that logged nothing draw nothing, and what none logged has no panel, but for the loss.
    """
    logs = [EventAccumulator(str(run)).Reload() for run in runs]
    found = {tag for events in logs for tag in events.Tags()["scalars"]}
    tags = [tag for tag in _PANELS if tag in found] or ["val_loss"]
    figure = Figure(figsize=(4.5 * len(tags), 3.4), layout="constrained")
    panels = figure.subplots(1, len(tags), squeeze=False)[0]
    for number, (run, events) in enumerate(zip(runs, logs, strict=True)):
        look = {"marker": ".", "label": Path(run).name, "color": f"C{number}"}
        for axis, tag in zip(panels, tags, strict=True):
            if tag in events.Tags()["scalars"]:
                points = {point.step: point.value for point in events.Scalars(tag)}
                epochs = sorted(points)
                axis.plot(epochs, [points[e] for e in epochs], **look)
    for axis, tag in zip(panels, tags, strict=True):
        axis.set_title(_PANELS[tag], fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        panels[0].legend(frameon=False, fontsize=9)
    with write_atomically(picture) as draft:
        figure.savefig(draft, dpi=130)
