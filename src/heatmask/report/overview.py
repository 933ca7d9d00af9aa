"""The picture of one result: scan, heatmap and mask outline on the most telling slices."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from heatmask.geometry import SLICE_AXES, find_slice_axis, order_as_stored, to_ras
from heatmask.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLANES = {axis: name for name, axis in SLICE_AXES.items()}
_ROWS = 4
_MASK_COLOUR = "#35d0ff"
NOTICE = "Pseudo-mask to be corrected by a radiologist. Not a diagnosis, not a medical device."


def draw_overview(result: Result, summary: dict[str, Any]) -> "Figure":
    """Return the figure: a row for each telling slice, columns scan, heatmap, mask.

    Slices are shown as radiologists look at them: the patient's right on the left of the
    picture, anterior up (axial), superior up (coronal, sagittal). Their numbers are those of the
    summary.
    """
    from matplotlib.figure import Figure  # takes its time, and the server draws none

    affine = np.asarray(result.scan.affine)
    scan, heat, mask = (
        to_ras(np.asarray(volume), affine)
        for volume in (result.scan[0], result.display.amax(0), result.mask[0])
    )
    slice_axis = find_slice_axis(scan.shape, result.slice_axis)
    probabilities = np.asarray(result.slice_probabilities).max(axis=1)
    shown = choose_slices(mask, probabilities, slice_axis)
    spacing = np.asarray(result.scan.pixdim)[np.argsort(nib.io_orientation(affine)[:, 0])]
    figure = Figure(figsize=(9.6, 1.5 + 2.9 * len(shown)), facecolor="white", layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False)
    top = float(np.percentile(scan[scan != 0], 99.5))
    numbers = order_as_stored(np.arange(len(probabilities)), affine, slice_axis)
    for row, index in zip(axes, shown, strict=True):
        planes = [_turn(np.take(v, index, slice_axis), slice_axis) for v in (scan, heat, mask)]
        image = _draw_row(row, planes, (float(scan.min()), top), _aspect(spacing, slice_axis))
        p = f"p = {probabilities[index]:.2f}"
        name = f"{_PLANES[slice_axis]} slice {numbers[index]} of 0 to {len(numbers) - 1}"
        row[0].set_ylabel(f"{name}\n{p}")
    for axis, title in zip(axes[0], ("Scan", "Heatmap", "Pseudo-mask"), strict=True):
        axis.set_title(title, fontsize=11)
    bar = figure.colorbar(image, ax=axes[:, 1], location="bottom", fraction=0.04, pad=0.01)
    bar.set_label("heatmap, 0 to 1 by the bundle's fixed calibration", fontsize=8)
    title = "\n".join([result.case, *wrap(summary["finding"], 92)])
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel("\n".join([*summary["warnings"], NOTICE]), fontsize=8, wrap=True)
    return figure


def choose_slices(
    mask: NDArray[np.uint8], probabilities: NDArray[np.floating], slice_axis: int
) -> Sequence[int]:
    """Return up to four slice indices in stack order: through the mask, or the likeliest.

    With a mask: the slice of its largest area and three spread over its extent, so that
    its ends are seen too. Without: the most probable slice and its surroundings.
    """
    others = tuple(a for a in range(3) if a != slice_axis)
    area = mask.astype(bool).sum(axis=others)
    if area.any():
        hit = np.flatnonzero(area)
        spread = np.quantile(hit, [0.1, 0.5, 0.9], method="nearest")
        return sorted({int(area.argmax()), *(int(i) for i in spread)})[:_ROWS]
    best, last = int(probabilities.argmax()), len(probabilities) - 1
    step = max(1, len(probabilities) // 8)
    return sorted({min(max(best + k * step, 0), last) for k in (-1, 0, 1)})


def _turn(plane: NDArray, slice_axis: int) -> NDArray:
    """Turn an RAS plane to rows and columns of a picture: up is up, right is left."""
    plane = plane.T[::-1]
    return plane if slice_axis == 0 else plane[:, ::-1]


def _aspect(spacing: NDArray, slice_axis: int) -> float:
    across, up = (s for a, s in enumerate(spacing) if a != slice_axis)
    return float(up / across)


def _draw_row(
    row: Sequence["Axes"], planes: Sequence[NDArray], window: tuple[float, float], aspect: float
) -> Any:
    scan, heat, mask = planes
    for axis in row:
        axis.imshow(scan, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)
        axis.set(xticks=[], yticks=[])
    image = row[1].imshow(
        heat, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.75 * heat, aspect=aspect
    )
    if mask.any():
        row[2].contour(mask > 0, levels=[0.5], colors=_MASK_COLOUR, linewidths=1.4)
    return image
