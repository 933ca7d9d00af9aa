"""Overlap and volume of one mask against its reference mask."""

from collections.abc import Sequence
from itertools import product
from math import prod

import nibabel as nib
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


def _describe_grid(shape: Sequence[int], affine: NDArray[np.float64]) -> str:
    size, edges, origin = (
        f.join(f"{value:.4g}" for value in values)
        for f, values in (
            (" x ", shape), (" x ", measure_spacing_mm(affine)), (", ", affine[:3, 3]),
        )
    )  # fmt: skip
    axes = "".join(nib.aff2axcodes(affine))
    return f"{size} voxels of {edges} mm ({axes}, from {origin} mm)"
