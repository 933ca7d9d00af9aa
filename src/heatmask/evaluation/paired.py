"""Whether one method is better than another on the same cases, when many are asked about."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from heatmask.errors import InputError

NAN = float("nan")


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
