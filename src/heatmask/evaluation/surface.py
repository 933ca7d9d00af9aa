"""Distance between the outlines of a mask and its reference, by MONAI."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

from heatmask.evaluation.segmentation import check_same_shape

NAN = float("nan")
SURFACE_RULE = (
    "HD95 is not counted where the mask or the reference is empty, for an outline is wanting; "
    "surface Dice is then 0, and not counted where both are empty."
)


def score_surface(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerance: float,
) -> dict[str, float]:
    """Score outlines.

    Parameters
    ----------
    mask, reference
        (X, Y, Z), or (X, Y, 1) for a picture, whose outline is then that in its plane.
    spacing
        Edge of a voxel along each axis, in mm or pixels.
    tolerance
        How far apart outlines may lie and still agree, in the same unit.

    Returns
    -------
    dict
        ``hd95``: the 95th percentile of the distances from either outline to the other, the greater
        of both (Huttenlocher et al. 1993); ``surface_dice``: the share of both outlines within the
        tolerance (Nikolov et al. 2018, arXiv 1809.04430). `SURFACE_RULE` says what of empty masks.
    """
    check_same_shape(mask, reference)
    if not mask.any() or not reference.any():
        return {"hd95": NAN, "surface_dice": 0.0 if mask.any() or reference.any() else NAN}
    pair, edges = _crop(mask, reference), list(map(float, spacing))
    if mask.shape[2] == 1:
        pair, edges = [part[..., 0] for part in pair], edges[:2]
    ours, theirs = (torch.from_numpy(part.astype(np.float32))[None, None] for part in pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own, of an argument of its own
        distance = compute_hausdorff_distance(
            ours, theirs, include_background=True, percentile=95, spacing=edges
        )
        agreement = compute_surface_dice(
            ours, theirs, [float(tolerance)], include_background=True, spacing=edges
        )
    return {"hd95": float(distance), "surface_dice": float(agreement)}


def _crop(*masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return masks cut to the box of all, with a rim of one voxel of nothing."""
    hits = np.nonzero(np.logical_or.reduce(masks))
    box = tuple(slice(hit.min(), hit.max() + 1) for hit in hits)
    rim = [(1, 1) if size > 1 else (0, 0) for size in masks[0].shape]
    return [np.pad(mask[box], rim) for mask in masks]
