"""Axes of a stored volume against RAS world space."""

from collections.abc import Sequence
from itertools import product

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from heatmask.errors import InputError

_MOST_STEPS = 32
"""Of a reach: beyond it scipy's distances are faster."""
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


def match_voxels(
    mask: NDArray, affine: ArrayLike, shape: Sequence[int], scan_affine: ArrayLike
) -> NDArray:
    """Return a mask in the order of its scan's voxels, in whichever order it was stored.

    Axes may be swapped and mirrored: what counts is that both affines put the same voxels in the
    same places, but for a tenth of the scan's shortest edge: files round their affines.

    Parameters
    ----------
    mask, affine
        (X, Y, Z) in any storage order, and its 4 x 4 voxel-to-world affine.
    shape, scan_affine
        The scan's.

    Raises
    ------
    InputError
        The mask lies on other voxels than the scan.
    """
    ours, theirs = np.asarray(affine, float), np.asarray(scan_affine, float)
    change = nib.io_orientation(np.linalg.inv(theirs) @ ours)
    moved = nib.apply_orientation(mask, change)
    placed = ours @ nib.orientations.inv_ornt_aff(change, mask.shape)
    corners = np.array([(*c, 1) for c in product(*((0, n - 1) for n in shape))]).T
    shift_mm = np.linalg.norm(((placed - theirs) @ corners)[:3], axis=0).max()
    if moved.shape == tuple(shape) and shift_mm <= 0.1 * measure_spacing_mm(theirs).min():
        return moved
    is_identity = bool(np.allclose(np.abs(ours), np.eye(4)))
    apart = f", up to {shift_mm:.4g} mm apart" * (moved.shape == tuple(shape))
    raise InputError(
        f"A mask must lie on the voxels of its scan: {_describe_grid(mask.shape, ours)} for a scan "
        f"of {_describe_grid(shape, theirs)}{apart}."
        f"{' Its affine is the identity: it was saved without one.' * is_identity} Save "
        "it with the affine of its scan, or resample it to the scan's grid."
    )


def measure_spacing_mm(affine: ArrayLike) -> NDArray[np.float64]:
    """Return the voxel's edge lengths (3,) in mm of a 4 x 4 affine, rotated or not."""
    return np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)


def _describe_grid(shape: Sequence[int], affine: NDArray[np.float64]) -> str:
    size, edges, origin = (
        f.join(f"{value:.4g}" for value in values)
        for f, values in (
            (" x ", shape), (" x ", measure_spacing_mm(affine)), (", ", affine[:3, 3]),
        )
    )  # fmt: skip
    axes = "".join(nib.aff2axcodes(affine))
    return f"{size} voxels of {edges} mm ({axes}, from {origin} mm)"


def find_near(
    voxels: NDArray[np.bool_], reach_mm: float, spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """Return which voxels (X, Y, Z) lie within reach of some, those included.

    As from `scipy.ndimage.distance_transform_edt`, which takes four times as long for a reach of
    some voxels: squared distances grow along one axis after another (Felzenszwalb and Huttenlocher,
    Theory of Computing 2012), and no further than the reach.

    Parameters
    ----------
    spacing_mm
        Edges of a voxel; along an axis with a longer one than the reach nothing is near.
    """
    if not voxels.any():
        return np.zeros_like(voxels)
    if max(reach_mm / edge for edge in spacing_mm) > _MOST_STEPS:
        return ndimage.distance_transform_edt(~voxels, sampling=spacing_mm) <= reach_mm
    squared = np.where(voxels, np.float32(0), np.float32(np.inf))
    for axis, edge in enumerate(spacing_mm):
        lines = np.moveaxis(squared, axis, 0)
        known = lines.copy()
        for step in range(1, min(len(lines), 1 + int(reach_mm / edge + 1e-6))):
            further = np.float32((step * edge) ** 2)
            np.minimum(lines[step:], known[:-step] + further, out=lines[step:])
            np.minimum(lines[:-step], known[step:] + further, out=lines[:-step])
    return squared <= reach_mm**2 * (1 + 1e-6)
