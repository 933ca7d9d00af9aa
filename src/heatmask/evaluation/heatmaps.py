"""How well a heatmap finds the lesion, before any threshold."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from heatmask.errors import InputError
from heatmask.evaluation.segmentation import check_same_shape

NAN = float("nan")


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
    told, counts = np.tile(values, 2), np.concatenate((inside, outside))
    return float(average_precision_score(truth, told, sample_weight=counts))
