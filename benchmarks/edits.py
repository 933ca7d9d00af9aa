"""Seconds an edit takes, of the processor: ``python benchmarks/edits.py``.

A bright ball of 60 mm across in noise, with a mask and a heatmap that are somewhat off: clicks,
a stroke and a box, on a usual 2D stack and on an isotropic volume.
"""

import time

import numpy as np
from rich.console import Console
from rich.table import Table

from heatmask.interaction import Correction, Edit

GRIDS = {
    "256 x 256 x 32, 1 x 1 x 5 mm": ((256, 256, 32), (1.0, 1.0, 5.0), 1.0),
    "240 x 240 x 155, 1 mm": ((240, 240, 155), (1.0, 1.0, 1.0), 3.0),
}


def main() -> None:
    """Print the slowest of each kind of edit beside its limit."""
    table = Table("grid", "start s", "click s", "stroke s", "box s", "limit s")
    for name, (shape, spacing, limit) in GRIDS.items():
        started, seconds = measure(shape, spacing)
        shown = (started, *(max(seconds[kind]) for kind in ("click", "stroke", "box")), limit)
        table.add_row(name, *(f"{value:.2f}" for value in shown))
    Console().print(table)


def measure(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[float, dict[str, list[float]]]:
    """Return the seconds to begin with, and of each edit by its kind."""
    rng = np.random.default_rng(0)
    middle = np.array(shape) // 2
    grid = np.indices(shape, np.float32).transpose(1, 2, 3, 0) - middle
    away = np.linalg.norm(grid * np.array(spacing_mm, np.float32), axis=-1)
    scan = (60 + 60 * (away < 30) + rng.normal(0, 6, shape)).astype(np.float32)
    begin = time.process_time()
    correction = Correction(scan, spacing_mm, heatmap=np.exp(-away / 30), mask=away < 22)
    started = time.process_time() - begin
    edge = (26 / np.array(spacing_mm)).astype(int)
    line = np.array([np.add(middle, (0, step, 0)) for step in range(-20, 21)])
    edits = {
        "click": [Edit.click(middle + edge * (axis == np.arange(3))) for axis in range(3)]
        + [Edit.click(middle + edge, positive=False)],
        "stroke": [Edit.stroke(np.add(line, (edge[0], 0, 0))), Edit.stroke(line, positive=False)],
        "box": [Edit.box(middle - edge, middle + edge)],
    }
    seconds: dict[str, list[float]] = {}
    for kind, some in edits.items():
        for edit in some:
            begin = time.process_time()
            correction.apply(edit)
            seconds.setdefault(kind, []).append(time.process_time() - begin)
    return started, seconds


if __name__ == "__main__":
    main()
