"""The training curve of one run or several, from their TensorBoard logs.

``python -m heatmask.training.curve PICTURE RUN [RUN ...]``
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_PANELS = (
    ("val_loss", "Validation loss (slices, with position offset)"),
    ("val_auroc", "Validation AUROC (slices, network alone)"),
)


def draw_curves(runs: Sequence[str | Path], picture: str | Path) -> None:
    """Draw validation loss and AUROC by epoch, a line for each run, to `picture`.

    Runs that logged nothing draw nothing.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(_PANELS))
    for run in runs:
        events = EventAccumulator(str(run)).Reload()
        for axis, (tag, _) in zip(panels, _PANELS, strict=True):
            if tag in events.Tags()["scalars"]:
                points = {point.step: point.value for point in events.Scalars(tag)}
                epochs = sorted(points)
                axis.plot(epochs, [points[e] for e in epochs], marker=".", label=Path(run).name)
    for axis, (_, title) in zip(panels, _PANELS, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        panels[0].legend(frameon=False, fontsize=9)
    partial = Path(picture).with_suffix(".partial.png")
    figure.savefig(partial, dpi=130)
    os.replace(partial, picture)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    draw_curves(sys.argv[2:], sys.argv[1])
