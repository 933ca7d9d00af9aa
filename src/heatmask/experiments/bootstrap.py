"""Intervals over patients by the percentile bootstrap (Efron, 1979)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from heatmask.errors import InputError


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, n: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of one value per patient with its 95 % percentile interval.

    Parameters
    ----------
    values
        (P,), one number per patient: the patient is what is drawn again.
    n
        Number of resamples.
    seed
        The same seed gives the same interval.

    Returns
    -------
    Interval
        For a single patient `low` and `high` are NaN: there is nothing to draw from.

    Raises
    ------
    InputError
        If there is no value, or one that is not finite.
    """
    numbers = _check_values(values)
    mean = float(numbers.mean())
    if numbers.size == 1:
        return Interval(mean, float("nan"), float("nan"))
    result = stats.bootstrap(
        (numbers,), np.mean, n_resamples=n, method="percentile", rng=np.random.default_rng(seed)
    )
    return Interval(mean, *(float(end) for end in result.confidence_interval))


def bootstrap_clusters(
    statistic: Callable[[NDArray[np.int64]], float],
    clusters: ArrayLike,
    n: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of many observations with its 95 % percentile interval over clusters.

    Slices of one patient are alike: what is drawn again is the patient, with all slices.

    Parameters
    ----------
    statistic
        Indices (M,) of observations, some of them repeated, to a number; NaN where it is not
        defined, as an AUROC of one class. Such resamples are left out.
    clusters
        (N,), the cluster of each observation: any values that differ.
    n, seed
        As `bootstrap_mean`.

    Returns
    -------
    Interval
        ``mean`` is the statistic of all observations. For a single cluster, or where no resample
        has a value, `low` and `high` are NaN.
    """
    whole = np.arange(np.size(clusters))
    value = float(statistic(whole))
    order = np.unique(np.asarray(clusters), return_inverse=True)[1]
    members = [whole[order == cluster] for cluster in range(order.max(initial=-1) + 1)]
    if len(members) < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(members), size=len(members)) for _ in range(n))
    values = [statistic(np.concatenate([members[c] for c in draw])) for draw in drawn]
    counted = np.array([v for v in values if not np.isnan(v)])
    ends = np.percentile(counted, (2.5, 97.5)) if counted.size else [float("nan")] * 2
    return Interval(value, *map(float, ends))


def bootstrap_cluster_mean(
    values: ArrayLike, clusters: ArrayLike, n: int = 1_000, seed: int = 0
) -> Interval:
    """Return the mean of values (N,), NaN left out, with its 95 % interval over clusters (N,).

    What `bootstrap_clusters` gives for a mean, of the same draws, without a loop over them.
    """
    numbers = np.asarray(values, float)
    counted = ~np.isnan(numbers)
    order = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums = np.bincount(order, np.where(counted, numbers, 0))
    sizes = np.bincount(order, counted)
    mean = float(sums.sum() / sizes.sum()) if counted.any() else float("nan")
    if sums.size < 2 or not counted.any():
        return Interval(mean, float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).integers(sums.size, size=(n, sums.size))
    totals, counts = sums[drawn].sum(axis=1), sizes[drawn].sum(axis=1)
    found = totals[counts > 0] / counts[counts > 0]
    return Interval(mean, *(float(end) for end in np.percentile(found, (2.5, 97.5))))


def _check_values(values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, float)
    if numbers.ndim != 1 or numbers.size == 0:
        raise InputError(
            f"A bootstrap needs one value per patient, got an array of shape {numbers.shape}. "
            "Give a list of at least one number."
        )
    n_bad = int(np.count_nonzero(~np.isfinite(numbers)))
    if n_bad:
        raise InputError(
            f"A bootstrap needs finite values, got {n_bad} of {numbers.size} that are NaN or "
            "infinite. Leave patients out whose score is not counted, and say how many."
        )
    return numbers
