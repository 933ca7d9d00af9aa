"""Label-free thresholds on the raw heatmap of one volume.

No rule sees a reference mask: each reads the heatmap alone (rule (a) of the evaluation
protocol, docs/explanation/evaluation.md).
"""

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_multiotsu, threshold_otsu

from heatmask.errors import OptionError
from heatmask.masks.settings import THRESHOLD_RULES, check_calibration

_BINS = 256


def threshold_heatmap(
    heatmap: NDArray[np.float32],
    rule: str,
    calibration: tuple[float, float],
    level: float = 0.5,
) -> float:
    """Return the value above which a voxel of `heatmap` (any shape, raw scale) is foreground.

    Parameters
    ----------
    rule
        ``"otsu"``: Otsu's two-class threshold of the values clipped to `calibration`;
        ``"multi_otsu"``: the upper threshold of three classes, stricter;
        ``"fixed"``: the given `level`.
    calibration
        The bundle's fixed range (low, high) of the raw scale. Clipping to it keeps a few
        extreme values from deciding, and a heatmap that is constant inside it has no
        foreground: the answer is then ``inf``.
    level
        From 0, the low end of `calibration`, to 1, its high end: the scale of the heatmap that
        people are shown. It means the same on every scan, and about the same of every bundle.

    Raises
    ------
    OptionError
        Unknown rule, or a calibration whose high end is not above its low end.
    """
    check_calibration(calibration)
    low, high = calibration
    if rule == "fixed":
        return float(low + level * (high - low))
    if rule not in THRESHOLD_RULES:
        raise OptionError(f"threshold_rule must be one of {THRESHOLD_RULES}, got {rule!r}.")
    counts, centers = _count_values(heatmap, low, high)
    classes = 2 if rule == "otsu" else 3
    if np.count_nonzero(counts) < classes:
        return float("inf")
    if rule == "otsu":
        center = threshold_otsu(hist=(counts, centers))
    else:
        center = threshold_multiotsu(classes=3, hist=(counts, centers))[-1]
    # The whole bin belongs to the lower class; above its centre a flat background may lie.
    return float(center + (high - low) / _BINS / 2)


def _count_values(
    heatmap: NDArray[np.float32], low: float, high: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    # Binning by bincount is several times faster than np.histogram on a whole volume.
    index = heatmap.ravel() - low
    index *= _BINS / (high - low)
    counts = np.bincount(index.clip(0, _BINS - 1, out=index).astype(np.uint8), minlength=_BINS)
    centers = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    return counts, centers
