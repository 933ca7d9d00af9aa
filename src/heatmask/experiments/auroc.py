"""The area under the ROC curve of slices with and without a tumour."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from heatmask.errors import InputError


def slice_auroc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve; NaN where one class is missing, for then nothing is ranked.

    Parameters
    ----------
    labels
        (N,), 1 for a slice with tumour, 0 without.
    probabilities
        (N,), any score that is higher for tumour.
    """
    true, scores = check_pairs(labels, probabilities)
    n_true = int(true.sum())
    if n_true in (0, true.size):
        return float("nan")
    # By ranks (Mann and Whitney), many times as fast as scikit-learn: a bootstrap asks often.
    excess = rankdata(scores)[true == 1].sum() - n_true * (n_true + 1) / 2
    return float(excess / (n_true * (true.size - n_true)))


def check_pairs(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and scores as arrays (N,); labels but 0 and 1 raise `InputError`.

    So do scores that are not finite, and lists of two lengths.
    """
    true, given = np.asarray(labels), np.asarray(scores, float)
    if true.ndim != 1 or true.shape != given.shape:
        raise InputError(
            f"Labels and scores must be lists of one length, got {true.shape} and {given.shape}. "
            "Give one of each per slice."
        )
    if not np.isin(true, (0, 1)).all():
        raise InputError(f"Slice labels must be 0 or 1, got {np.unique(true).tolist()[:5]}.")
    if not np.isfinite(given).all():
        raise InputError("Scores must be finite, got NaN or infinity. Check the network's output.")
    return true.astype(int), given
