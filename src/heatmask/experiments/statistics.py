"""Tests of many methods on the same cases, the luck of the best, and confidence against Dice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from heatmask.errors import InputError

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

    @property
    def half(self) -> float:
        """Mean Dice of the more confident half."""
        return float(self.dice[max(0, len(self.dice) // 2 - 1)]) if self.dice.size else NAN


def measure_risk_coverage(confidence: ArrayLike, dice: ArrayLike) -> RiskCoverage:
    """Return how Dice (N,) changes as the least confident cases are handed back.

    Cases where either is NaN are left out. Cases of equal confidence are kept together: each counts
    as the mean of them.
    """
    trust, scores = np.asarray(confidence, float), np.asarray(dice, float)
    known = ~np.isnan(trust + scores)
    trust, scores = trust[known], scores[known]
    if scores.size == 0:
        empty = np.zeros(0)
        return RiskCoverage(empty, empty, NAN, NAN, NAN)
    values, place = np.unique(trust, return_inverse=True)
    tied = np.bincount(place, scores) / np.bincount(place)
    ordered = tied[place][np.argsort(-trust, kind="stable")]
    counts = np.arange(1, scores.size + 1)
    curve = np.cumsum(ordered) / counts
    best = np.cumsum(np.sort(scores)[::-1]) / counts
    constant = values.size < 2 or np.ptp(scores) == 0
    return RiskCoverage(
        coverage=counts / scores.size,
        dice=curve,
        area=float(curve.mean()),
        ideal=float(best.mean()),
        rank_correlation=NAN if constant else float(stats.spearmanr(trust, scores).statistic),
    )


def compare_paired(a: ArrayLike, b: ArrayLike, clusters: Sequence[str]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test that clusters of cases differ.

    Parameters
    ----------
    a, b
        (N,), scores of two methods on the same cases. A case where either is NaN is left out.
    clusters
        (N,). Cases of one cluster are alike, so that each cluster counts once, by its mean.

    Returns
    -------
    float
        1 where no cluster differs; NaN for fewer than 2 clusters.
    """
    differences = np.asarray(a, float) - np.asarray(b, float)
    if differences.shape != (len(clusters),):
        raise InputError(
            f"A paired test needs both scores of every case, got {np.shape(a)} and {np.shape(b)} "
            f"for {len(clusters)} cases."
        )
    means = mean_by_cluster(differences, clusters)
    means = means[~np.isnan(means)]
    if means.size < 2:
        return NAN
    # Zeros tell nothing; left in, scipy gives up the exact distribution for one of them.
    means = means[means != 0]
    return float(stats.wilcoxon(means).pvalue) if means.size else 1.0


def mean_by_cluster(values: ArrayLike, clusters: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of what is not NaN of each cluster, in the order of their first cases."""
    numbers, names = np.asarray(values, float), np.asarray(clusters)
    parts = (numbers[names == name] for name in dict.fromkeys(clusters))
    counted = (part[~np.isnan(part)] for part in parts)
    return np.array([part.mean() if part.size else NAN for part in counted])


def adjust_holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p values adjusted for their number (Holm, 1979); NaN stays and does not count."""
    given = np.asarray(p_values, float)
    adjusted = np.full(given.shape, NAN)
    tested = np.flatnonzero(~np.isnan(given))
    ordered = tested[np.argsort(given[tested], kind="stable")]
    factors = np.arange(ordered.size, 0, -1)
    adjusted[ordered] = np.minimum(np.maximum.accumulate(given[ordered] * factors), 1)
    return adjusted


def estimate_optimism(
    scores: ArrayLike, clusters: ArrayLike, n: int = 2_000, seed: int = 0
) -> float:
    """Return how much of the best method's mean is owed to being chosen on these very cases.

    The method with the highest mean is chosen without a random fifth of the clusters, and scored
    on that fifth, `n` times. The result is the highest mean of all less the mean of these scores.

    Parameters
    ----------
    scores
        (methods, N), NaN where a case is not counted.
    clusters
        (N,), the cluster of each case: any values that differ.
    n, seed
        Number of random fifths, and the seed that draws them.

    Returns
    -------
    float
        NaN for a single cluster, and where no case is counted.
    """
    numbers = np.asarray(scores, float)
    members = (np.asarray(clusters) == np.unique(clusters)[:, None]).astype(float)
    counted = ~np.isnan(numbers)
    if len(members) < 2 or not counted.any():
        return NAN
    sums, sizes = np.where(counted, numbers, 0) @ members.T, counted @ members.T
    places = np.random.default_rng(seed).random((len(members), n)).argsort(axis=0)
    out = places < max(1, len(members) // 5)
    best = ((sums @ ~out) / np.maximum(sizes @ ~out, 1)).argmax(axis=0), np.arange(n)
    left_out, known = (sums @ out)[best], (sizes @ out)[best]
    highest = (sums.sum(axis=1) / np.maximum(sizes.sum(axis=1), 1)).max()
    return float(highest - left_out.sum() / known.sum())
