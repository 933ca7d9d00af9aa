"""How well a mask's outline and a heatmap agree with a reference mask."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from heatmask.errors import InputError
from heatmask.experiments.overlap import check_same_shape

NAN = float("nan")
SURFACE_RULE = (
    "HD95 is not counted where the mask or the reference is empty, as an outline is missing; "
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
        (X, Y, Z); of a picture, or a volume of one slice, the outline is that in its plane.
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
    if 1 in mask.shape:
        flat = mask.shape.index(1)
        pair = [part.squeeze(flat) for part in pair]
        del edges[flat]
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


def score_heatmap(
    heatmap: NDArray[np.float32], reference: NDArray[np.bool_], low: float
) -> dict[str, float]:
    """Score a heatmap against a reference mask of its shape.

    Parameters
    ----------
    heatmap
        Any shape, raw scale, finite.
    reference
        True inside the lesion.
    low
        What the heatmap is where there is nothing: energy counts from here.

    Returns
    -------
    dict
        ``auprc``: average precision of the voxels. ``pointing``: 1 where the highest voxel lies in
        the lesion, 0 where not, the share inside where several are highest (pointing game,
        Zhang et al. 2016, arXiv 1608.00507, without a margin). ``energy``: share of what exceeds
        `low` that lies in the lesion (Wang et al. 2020, arXiv 1910.01279), 0 where nothing does.
        All NaN for an empty reference, for which nothing can be found.

    Raises
    ------
    InputError
        The shapes differ, or the heatmap is not finite.
    """
    check_same_shape(heatmap, reference)
    if not np.isfinite(heatmap).all():
        raise InputError("A heatmap must be finite to be scored, and this one is not.")
    if not reference.any():
        return {"auprc": NAN, "pointing": NAN, "energy": NAN}
    highest = heatmap == heatmap.max()
    excess = np.maximum(heatmap - low, 0, dtype=np.float64)
    total = excess.sum()
    return {
        "auprc": measure_auprc(heatmap, reference),
        "pointing": float(reference[highest].mean()),
        "energy": float(excess[reference].sum() / total) if total else 0.0,
    }


def measure_auprc(heatmap: NDArray[np.float32], reference: NDArray[np.bool_]) -> float:
    """Return the average precision of voxels ranked by a heatmap, NaN for an empty reference.

    scikit-learn's, of voxels counted by value: their values are rounded to half precision, relative
    to the largest, which leaves some 30,000 of them to be sorted instead of millions.
    """
    if not reference.any():
        return NAN
    scale = np.abs(heatmap).max() / 60_000 or 1.0
    codes = (heatmap / scale).astype(np.float16).view(np.uint16)
    every = np.bincount(codes.ravel(), minlength=2**16)
    inside = np.bincount(codes[reference], minlength=2**16)
    used = np.flatnonzero(every)
    values = used.astype(np.uint16).view(np.float16).astype(np.float64)
    inside, outside = inside[used], (every - inside)[used]
    truth = np.repeat((1, 0), values.size)
    ranks, counts = np.tile(values, 2), np.concatenate((inside, outside))
    return float(average_precision_score(truth, ranks, sample_weight=counts))
