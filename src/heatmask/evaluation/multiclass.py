"""How well pictures are told to be of one of several classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from heatmask.errors import InputError
from heatmask.evaluation.bootstrap import Interval, bootstrap_clusters
from heatmask.evaluation.classification import expected_calibration_error


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
    class_idx: ArrayLike, probabilities: ArrayLike, clusters: Sequence[str]
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

    Raises
    ------
    InputError
        The shapes do not fit, a class is not one of K, or a probability lies outside [0, 1].
    """
    true, told = np.asarray(class_idx), np.asarray(probabilities, float)
    _check_classes(true, told, clusters)
    said, classes = told.argmax(axis=1), range(told.shape[1])

    def find_f1(chosen: NDArray[np.int64]) -> float:
        return float(_score_f1(true[chosen], said[chosen], classes, "macro"))

    return ClassScores(
        macro_f1=bootstrap_clusters(find_f1, clusters),
        accuracy=bootstrap_clusters(lambda i: float(np.mean(true[i] == said[i])), clusters),
        f1=np.asarray(_score_f1(true, said, classes, None)),
        confusion=metrics.confusion_matrix(true, said, labels=classes),
        ece=expected_calibration_error(true == said, told.max(axis=1)),
    )


def _score_f1(
    true: NDArray, said: NDArray, classes: range, average: str | None
) -> float | NDArray[np.float64]:
    return metrics.f1_score(true, said, labels=classes, average=average, zero_division=float("nan"))


def _check_classes(true: NDArray, told: NDArray[np.float64], clusters: Sequence[str]) -> None:
    if true.ndim != 1 or told.ndim != 2 or not true.size == len(told) == len(clusters) > 0:
        raise InputError(
            "Each picture must have one class, K probabilities and one cluster, got shapes "
            f"{true.shape} and {told.shape} and {len(clusters)} clusters."
        )
    if not np.isin(true, range(told.shape[1])).all():
        raise InputError(
            f"Classes must be 0 to {told.shape[1] - 1} with {told.shape[1]} probabilities, got "
            f"{np.unique(true).tolist()[:5]}."
        )
