"""Does the classifier know which of its masks are good? Confidence against Dice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean Dice of the most confident share of cases (Geifman and El-Yaniv 2017, 1705.08500).

    Attributes
    ----------
    coverage
        (N,), 1 / N to 1: the share of cases kept, the most confident first.
    dice
        (N,), mean Dice of these.
    area
        Mean of `dice` over the coverages.
    ideal
        What `area` would be if confidence ranked the cases by their Dice.
    rank_correlation
        Spearman's, of confidence and Dice; NaN where either is constant.
    """

    coverage: NDArray[np.float64]
    dice: NDArray[np.float64]
    area: float
    ideal: float
    rank_correlation: float


def measure_risk_coverage(confidence: ArrayLike, dice: ArrayLike) -> RiskCoverage:
    """Return how Dice (N,) changes as the least confident cases are handed back.

    Cases whose Dice is NaN are left out. Cases of equal confidence are kept together: each counts
    as the mean of them.
    """
    told, scores = np.asarray(confidence, float), np.asarray(dice, float)
    told, scores = told[~np.isnan(scores)], scores[~np.isnan(scores)]
    if scores.size == 0:
        empty = np.zeros(0)
        return RiskCoverage(empty, empty, NAN, NAN, NAN)
    values, place = np.unique(told, return_inverse=True)
    tied = np.bincount(place, scores) / np.bincount(place)
    ordered = tied[place][np.argsort(-told, kind="stable")]
    counts = np.arange(1, scores.size + 1)
    curve = np.cumsum(ordered) / counts
    best = np.cumsum(np.sort(scores)[::-1]) / counts
    constant = values.size < 2 or np.ptp(scores) == 0
    return RiskCoverage(
        coverage=counts / scores.size,
        dice=curve,
        area=float(curve.mean()),
        ideal=float(best.mean()),
        rank_correlation=NAN if constant else float(stats.spearmanr(told, scores).statistic),
    )
