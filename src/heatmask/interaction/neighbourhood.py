"""What lies near an edit, in mm: nothing else is looked at, and nothing else changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.interaction.edits import Edit
from heatmask.progress import advance

REACH_MM = 40.0
"""How far from an edit the mask may change at most."""
RIM_MM = 10.0
"""How far around a box or a lasso lies what its content is compared with."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The box around an edit, all arrays of one shape (X, Y, Z).

    Attributes
    ----------
    scan
        In [0, 1].
    hot
        What the heatmap shows of the edit's label; nothing if there is no heatmap.
    mask
        Where the edit's label lies so far.
    said
        `heatmask.interaction.statements.IN`, OUT or UNKNOWN.
    core
        The voxels that the edit surely means: its own, of a box or a lasso the innermost.
    free
        Where the mask may change.
    positive
        As `heatmask.interaction.edits.Edit`.
    spacing_mm
        Edges of a voxel.
    """

    scan: NDArray[np.float32]
    hot: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    said: NDArray[np.int8]
    core: NDArray[np.bool_]
    free: NDArray[np.bool_]
    positive: bool
    spacing_mm: tuple[float, ...]

    def measure_distance_mm(self, voxels: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how far each voxel is from the nearest of some; infinity if there are none."""
        return measure_distance_mm(voxels, self.spacing_mm)


def measure_distance_mm(
    voxels: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Return how far each voxel is from the nearest of some; infinity if there are none."""
    advance(0)  # of a large neighbourhood this is a long step
    if not voxels.any():
        return np.full(voxels.shape, np.inf)
    return ndimage.distance_transform_edt(~voxels, sampling=spacing_mm)


def find_core(touched: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """Return the innermost voxels of a box or a lasso: at least half as deep as the deepest."""
    depth = measure_distance_mm(~touched, spacing_mm)
    return touched & (depth >= depth.max() / 2)


def crop_around(
    edit: Edit, shape: Sequence[int], spacing_mm: Sequence[float], reach_mm: float
) -> tuple[slice, ...]:
    """Return the box of all voxels within `reach_mm` of an edit's along each axis.

    A box or a lasso that was drawn in one slice is compared with this slice alone: the same object
    lies in the next ones.
    """
    start, stop = edit.voxels.min(axis=0), edit.voxels.max(axis=0) + 1
    reach = np.floor(reach_mm / np.asarray(spacing_mm)).astype(int)
    reach = np.where((stop - start == 1) & (not edit.exact), 0, reach)
    start, stop = np.maximum(start - reach, 0), np.minimum(stop + reach, shape)
    return tuple(map(slice, start.tolist(), stop.tolist()))
