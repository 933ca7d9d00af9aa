"""Overlap and volume of one mask against its reference mask."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

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
        If the shapes differ, or a map is not of whole numbers.
    """
    check_same_shape(mask, reference)
    found, true = as_foreground(mask, "mask"), as_foreground(reference, "reference")
    voxel_ml = prod(spacing_mm) / 1000
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
