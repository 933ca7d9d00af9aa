"""Overlap and volume of one mask against its reference mask."""

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heatmask.errors import InputError

EMPTY_RULE = (
    "Dice and IoU of an empty mask against an empty reference are not counted (NaN) and are "
    "reported apart; where only one of the two is empty they are 0."
)


def score_mask(
    mask: NDArray,
    reference: NDArray,
    spacing_mm: Sequence[float],
    slice_axis: int = 2,
) -> dict[str, float]:
    """Score one volume's mask; every voxel that is not 0 counts as tumour.

    Written here, not taken from MONAI: `monai.metrics.compute_dice` either leaves out every
    empty reference, also where the mask is wrong there, or counts empty against empty as 1.

    Parameters
    ----------
    mask, reference
        Boolean or whole-number label maps (X, Y, Z) on the same grid.
    spacing_mm
        Length of a voxel's edge along each axis, in mm.
    slice_axis
        The axis along which slices are stacked.

    Returns
    -------
    dict
        ``dice`` and ``iou`` in [0, 1], NaN where both are empty (`EMPTY_RULE`); ``mask_ml`` and
        ``reference_ml``; ``tumour_free_slices_ml``, the mask's volume on slices without any
        reference voxel, all of it false.

    Raises
    ------
    InputError
        If the shapes differ, a map is not of whole numbers, or the spacing does not fit.
    """
    check_same_shape(mask, reference)
    found, true = as_foreground(mask, "mask"), as_foreground(reference, "reference")
    voxel_ml = _measure_voxel_ml(spacing_mm, found.ndim)
    n_both, n_either = np.count_nonzero(found & true), np.count_nonzero(found | true)
    in_plane = tuple(axis for axis in range(true.ndim) if axis != slice_axis)
    found_per_slice = np.count_nonzero(found, axis=in_plane)
    true_per_slice = np.count_nonzero(true, axis=in_plane)
    return {
        "dice": 2 * n_both / (n_both + n_either) if n_either else float("nan"),
        "iou": n_both / n_either if n_either else float("nan"),
        "mask_ml": float(found_per_slice.sum() * voxel_ml),
        "reference_ml": float(true_per_slice.sum() * voxel_ml),
        "tumour_free_slices_ml": float(found_per_slice[true_per_slice == 0].sum() * voxel_ml),
    }


def check_same_shape(mask: NDArray, reference: NDArray) -> None:
    """Refuse a mask that has another shape than its reference, with an `InputError`."""
    if mask.shape != reference.shape:
        raise InputError(
            f"A mask must have its reference's shape, got {mask.shape} against "
            f"{reference.shape}. Resample the mask to the reference's grid first."
        )


def check_same_affine(affine: ArrayLike, reference_affine: ArrayLike, shape: Sequence[int]) -> None:
    """Refuse a grid that lies elsewhere than its reference, with an `InputError`.

    Two 4 x 4 voxel-to-world affines agree where no corner of a grid of `shape` lies more than
    a tenth of the reference's shortest voxel edge away: files round their affines.
    """
    ours, theirs = np.asarray(affine, float), np.asarray(reference_affine, float)
    corners = np.array([(*c, 1) for c in product(*((0, n - 1) for n in shape))]).T
    shift_mm = np.linalg.norm(((ours - theirs) @ corners)[:3], axis=0).max()
    edge_mm = measure_spacing_mm(theirs).min()
    if not shift_mm <= 0.1 * edge_mm:
        raise InputError(
            "A mask must lie where its reference lies, got the affines\n"
            f"{_format(ours)}\nagainst\n{_format(theirs)},\n"
            f"which put a corner {shift_mm:.2f} mm apart. "
            "Resample the mask to the reference's grid first."
        )


def check_same_grid(
    shape: Sequence[int],
    affine: ArrayLike,
    reference_shape: Sequence[int],
    reference_affine: ArrayLike,
) -> None:
    """Refuse a mask that does not lie on its scan's grid, with an `InputError` that names both.

    Shapes (X, Y, Z) must be equal, and affines agree as `check_same_affine` asks.
    """
    if tuple(shape) != tuple(reference_shape):
        ours, theirs = (
            f"{tuple(s)} voxels with the affine\n{_format(np.asarray(a, float))}"
            for s, a in ((shape, affine), (reference_shape, reference_affine))
        )
        raise InputError(
            f"A mask must lie on the grid of its scan, got {ours}\nfor a scan of {theirs}.\n"
            "Resample the mask to the scan's grid first."
        )
    check_same_affine(affine, reference_affine, reference_shape)


def measure_spacing_mm(affine: ArrayLike) -> NDArray[np.float64]:
    """Return the voxel's edge lengths (3,) in mm of a 4 x 4 affine, rotated or not."""
    return np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)


def as_foreground(labels: NDArray, name: str = "mask") -> NDArray[np.bool_]:
    """Turn a label map into a boolean mask; a heatmap or probabilities raise `InputError`."""
    if labels.dtype == bool:
        return labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"A {name} must hold whole numbers or booleans, got {labels.dtype}. "
            "Threshold a heatmap first; read labels from a file as uint8."
        )
    return labels != 0


def _format(affine: NDArray[np.float64]) -> str:
    return np.array2string(affine, precision=3, suppress_small=True)


def _measure_voxel_ml(spacing_mm: Sequence[float], n_axes: int) -> float:
    if len(spacing_mm) != n_axes or not all(0 < s < float("inf") for s in spacing_mm):
        raise InputError(
            f"spacing_mm must hold {n_axes} positive lengths in mm, got {tuple(spacing_mm)}. "
            "Take it from the volume's affine."
        )
    return prod(spacing_mm) / 1000
