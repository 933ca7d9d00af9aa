"""Axes of a stored volume against RAS world space."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SLICE_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis of a volume in RAS orientation that a slice is cut across, by its usual name."""


def find_slice_axis(shape: Sequence[int], chosen: int) -> int:
    """Return the axis that the slices of a volume of `shape` lie along.

    It is the chosen one, but of a single slice there is only one: a coronal slice is not cut
    into axial lines.
    """
    single = [axis for axis, count in enumerate(shape) if count == 1]
    return single[0] if len(single) == 1 else chosen


def find_ras_slice_axis(shape: Sequence[int], affine: NDArray, chosen: int) -> int:
    """Return the RAS axis that `find_slice_axis` finds for a volume stored in any orientation."""
    ras_axes = nib.io_orientation(affine)[:, 0].astype(int).tolist()
    counts = dict(zip(ras_axes, shape, strict=True))
    return find_slice_axis([counts[axis] for axis in range(3)], chosen)


def find_array_axis(affine: NDArray, ras_axis: int) -> int:
    """Return the array axis that runs closest along axis `ras_axis` of RAS world space."""
    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == ras_axis)[0])


def order_as_stored(values: NDArray, affine: NDArray, ras_axis: int) -> NDArray:
    """Reorder values along RAS axis `ras_axis` (their axis 0) to the order of the stored array."""
    orientation = nib.io_orientation(affine)
    flipped = orientation[orientation[:, 0] == ras_axis, 1][0] < 0
    return values[::-1] if flipped else values


def to_ras(array: NDArray, affine: NDArray) -> NDArray:
    """Return the array (X, Y, Z) with its axes permuted and flipped to the closest RAS."""
    return nib.apply_orientation(array, nib.io_orientation(affine))
