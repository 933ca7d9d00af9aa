"""How well a classifier does: slices with and without a tumour, and classes of pictures.

Tumours are rare at both ends of a stack, so that a classifier may score well by knowing only
where a slice lies. Two numbers tell: the AUROC among slices of the same tenth of the stack, and
the AUROC of a table that knows the position and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from heatmask.errors import InputError
from heatmask.experiments.auroc import check_pairs, slice_auroc
from heatmask.experiments.bootstrap import Interval, bootstrap_clusters

NAN = float("nan")


class DecileAuroc(NamedTuple):
    """AUROC within each tenth of the stack.

    `mean` is over the tenths that hold both classes; `per_decile` has NaN for those that do not,
    and `excluded` lists them (0 to 9).
    """

    mean: float
    per_decile: list[float]
    excluded: list[int]


def compute_relative_positions(n_slices: int) -> NDArray[np.float64]:
    """Return (i + 0.5) / n for every slice i of a stack of n."""
    return (np.arange(n_slices) + 0.5) / n_slices


def auroc_within_position_deciles(
    labels: ArrayLike, probabilities: ArrayLike, relative_positions: ArrayLike
) -> DecileAuroc:
    """AUROC among slices of the same tenth of the stack, so that position cannot help.

    `relative_positions` (N,) lie in [0, 1); decile d holds [d / 10, (d + 1) / 10).
    """
    true, scores = check_pairs(labels, probabilities)
    decile = _find_bins(relative_positions, 10, true.size)
    per_decile = [slice_auroc(true[decile == d], scores[decile == d]) for d in range(10)]
    counted = [value for value in per_decile if not np.isnan(value)]
    excluded = [d for d, value in enumerate(per_decile) if np.isnan(value)]
    return DecileAuroc(float(np.mean(counted)) if counted else NAN, per_decile, excluded)


def position_only_auroc(
    train_positions: ArrayLike,
    train_labels: ArrayLike,
    test_positions: ArrayLike,
    test_labels: ArrayLike,
    n_bins: int = 20,
) -> float:
    """AUROC of a table that knows only how high in the stack a slice lies.

    The table holds the tumour rate of the training slices in each of `n_bins` bins, with one
    slice of the overall rate added to each, so that a bin without slices has that rate.
    """
    known, _ = check_pairs(train_labels, train_positions)
    if known.size == 0:
        raise InputError("The position table needs training slices, got none.")
    bins = _find_bins(train_positions, n_bins, known.size)
    n_slices = np.bincount(bins, minlength=n_bins)
    n_tumour = np.bincount(bins, weights=known, minlength=n_bins)
    rates = (n_tumour + known.mean()) / (n_slices + 1)
    asked = _find_bins(test_positions, n_bins, np.size(test_labels))
    return slice_auroc(test_labels, rates[asked])


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, n_bins: int = 10
) -> float:
    """Mean distance between the predicted probability and the observed rate, weighted by slices.

    Naeini et al., AAAI 2015, with bins of equal width over the probability of tumour (Guo et
    al., 2017, bin the confidence of the predicted class). No slice at all: NaN.
    """
    true, given = _check_probabilities(labels, probabilities)
    if true.size == 0:
        return NAN
    bins = np.minimum((given * n_bins).astype(int), n_bins - 1)  # 1.0 falls in the last bin
    gap = np.bincount(bins, weights=given - true, minlength=n_bins)
    return float(np.abs(gap).sum() / true.size)


def score_slices(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Score slice probabilities; tumour is predicted from 0.5 upwards.

    Returns
    -------
    dict
        ``auroc`` and ``average_precision`` (NaN where one class is missing), ``f1`` (NaN without
        any tumour, predicted or true), ``accuracy`` (NaN without slices), ``ece``.
    """
    true, given = _check_probabilities(labels, probabilities)
    predicted = (given >= 0.5).astype(int)
    both = np.unique(true).size == 2
    return {
        "auroc": slice_auroc(true, given),
        "average_precision": float(metrics.average_precision_score(true, given)) if both else NAN,
        "f1": float(metrics.f1_score(true, predicted)) if (true | predicted).any() else NAN,
        "accuracy": float(metrics.accuracy_score(true, predicted)) if true.size else NAN,
        "ece": expected_calibration_error(true, given),
    }


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of a classifier whose answer is the class of the largest probability.

    Attributes
    ----------
    macro_f1
        Mean of `f1` over the classes, interval over clusters.
    accuracy
        Share of right answers, interval over clusters.
    f1
        (K,), NaN for a class that neither occurs nor is predicted; `macro_f1` leaves it out.
    confusion
        (K, K) counts: the row is the true class, the column the predicted one.
    ece
        Calibration error of the largest probability (Guo et al., 2017).
    """

    macro_f1: Interval
    accuracy: Interval
    f1: NDArray[np.float64]
    confusion: NDArray[np.int64]
    ece: float

    @property
    def commonest(self) -> float:
        """Accuracy of always answering the class that is commonest here."""
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())


def score_classes(
    class_idx: ArrayLike, probabilities: ArrayLike, clusters: Sequence[str], n: int = 1_000
) -> ClassScores:
    """Score the class probabilities of N pictures.

    Parameters
    ----------
    class_idx
        (N,), the true class, 0 to K - 1; N is at least 1.
    probabilities
        (N, K) in [0, 1].
    clusters
        (N,), what the bootstrap draws: the picture's patient, or what comes near to it.
    n
        Draws of the bootstrap.

    Raises
    ------
    InputError
        The shapes do not fit, a class is not one of K, or a probability lies outside [0, 1].
    """
    true, given = np.asarray(class_idx), np.asarray(probabilities, float)
    _check_classes(true, given, clusters)
    predicted, classes = given.argmax(axis=1), range(given.shape[1])
    right = true == predicted

    def find_f1(chosen: NDArray[np.int64]) -> float:
        return float(_score_f1(true[chosen], predicted[chosen], classes, "macro"))

    return ClassScores(
        macro_f1=bootstrap_clusters(find_f1, clusters, n),
        accuracy=bootstrap_clusters(lambda i: float(np.mean(right[i])), clusters, n),
        f1=np.asarray(_score_f1(true, predicted, classes, None)),
        confusion=metrics.confusion_matrix(true, predicted, labels=classes),
        ece=expected_calibration_error(right, given.max(axis=1)),
    )


def _check_probabilities(
    labels: ArrayLike, probabilities: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    true, given = check_pairs(labels, probabilities)
    if given.size and not (given.min() >= 0 and given.max() <= 1):
        raise InputError(
            f"Probabilities must lie in [0, 1], got {given.min():.3g} to {given.max():.3g}. "
            "Put logits through a sigmoid first."
        )
    return true, given


def _find_bins(positions: ArrayLike, n_bins: int, n_slices: int) -> NDArray[np.int64]:
    where = np.asarray(positions, float)
    if where.shape != (n_slices,) or not ((where >= 0) & (where < 1)).all():
        raise InputError(
            f"Relative positions must be {n_slices} numbers in [0, 1), got shape {where.shape}. "
            "Slice i of n lies at (i + 0.5) / n."
        )
    return (where * n_bins).astype(int)


def _score_f1(
    true: NDArray, predicted: NDArray, classes: range, average: str | None
) -> float | NDArray[np.float64]:
    return metrics.f1_score(true, predicted, labels=classes, average=average, zero_division=NAN)


def _check_classes(true: NDArray, given: NDArray[np.float64], clusters: Sequence[str]) -> None:
    if true.ndim != 1 or given.ndim != 2 or not true.size == len(given) == len(clusters) > 0:
        raise InputError(
            "Each picture must have one class, K probabilities and one cluster, got shapes "
            f"{true.shape} and {given.shape} and {len(clusters)} clusters."
        )
    if not np.isin(true, range(given.shape[1])).all():
        raise InputError(
            f"Classes must be 0 to {given.shape[1] - 1} with {given.shape[1]} probabilities, got "
            f"{np.unique(true).tolist()[:5]}."
        )
