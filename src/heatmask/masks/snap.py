"""Snap a mask to the scan: the heatmap finds the lesion, the scan knows its border."""

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import OptionError
from heatmask.geometry import find_near


def snap_mask(
    mask: NDArray[np.bool_],
    scan: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    slice_axis: int,
    distance_mm: float,
) -> NDArray[np.bool_]:
    """Keep the bright voxels of the mask's in-plane neighbourhood.

    The neighbourhood holds every voxel within `distance_mm` of the mask on its own slice.
    A voxel of it is kept if its intensity lies above half way between the median of the
    mask (core) and the median of the rest of the neighbourhood (surroundings). Where the
    core is not brighter than its surroundings the mask is returned as it came: there is no
    border to snap to. Meant for sequences on which the lesion is bright (FLAIR, T1-Gd).

    Parameters
    ----------
    mask, scan
        Same shape (X, Y, Z); the scan in any intensity unit.
    spacing_mm
        Voxel size along the three axes.
    slice_axis
        The array axis along which the slices lie.
    distance_mm
        Reach of the neighbourhood, at least 0.
    """
    if distance_mm < 0:
        raise OptionError(f"snap_distance_mm must be at least 0, got {distance_mm}.")
    if not mask.any():
        return mask
    sampling = list(spacing_mm)
    sampling[slice_axis] = 1e6  # neighbouring slices are out of reach
    near = find_near(mask, distance_mm, sampling)
    surroundings = near & ~mask
    if not surroundings.any():
        return mask
    core_level, outer_level = np.median(scan[mask]), np.median(scan[surroundings])
    if core_level <= outer_level:
        return mask
    return near & (scan > (core_level + outer_level) / 2)
