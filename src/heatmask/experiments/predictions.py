"""What the classifier of a bundle predicts for every slice or picture, and how well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.bootstrap import Interval, bootstrap_clusters
from heatmask.experiments.cases import Cases
from heatmask.experiments.classifier_metrics import (
    ClassScores,
    DecileAuroc,
    auroc_within_position_deciles,
    compute_relative_positions,
    score_classes,
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the classifier of a bundle predicts for every slice or picture.

    Attributes
    ----------
    name
        The bundle's.
    labels
        (N,), 0 or 1 of slices; the class, from 0, of pictures.
    probabilities
        (N, K).
    positions
        (N,), relative height of slices.
    clusters
        (N,).
    """

    name: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    positions: NDArray[np.float64]
    clusters: Sequence[str]

    @property
    def any_class(self) -> NDArray[np.float64]:
        """The probability (N,) of any class: they exclude one another."""
        return self.probabilities.astype(np.float32).sum(axis=1).clip(max=1).astype(float)

    @property
    def within_deciles(self) -> DecileAuroc:
        """AUROC within each tenth of the stack."""
        return auroc_within_position_deciles(self.labels, self.any_class, self.positions)

    def bootstrap(self, statistic: Callable[..., float], n: int) -> Interval:
        """Return a statistic of labels, probabilities of any class and positions, over clusters."""
        columns = self.labels, self.any_class, self.positions
        return bootstrap_clusters(lambda i: statistic(*(c[i] for c in columns)), self.clusters, n)

    @cached_property
    def slice_intervals(self) -> dict[str, Interval]:
        """Scores of slices with their intervals over patients."""
        return {
            "auroc": self.bootstrap(lambda true, given, _: slice_auroc(true, given), 1_000),
            "auroc_within_deciles": self.bootstrap(_rank_within_deciles, 1_000),
            "f1": self.bootstrap(lambda true, given, _: _score_f1(true == 1, given >= 0.5), 1_000),
        }

    @cached_property
    def class_scores(self) -> ClassScores:
        """How well pictures are classified."""
        return score_classes(self.labels, self.probabilities, self.clusters)


def _rank_within_deciles(true: NDArray, given: NDArray, positions: NDArray) -> float:
    return auroc_within_position_deciles(true, given, positions).mean


def _score_f1(true: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    wrong, right = (true != predicted).sum(), (true & predicted).sum()
    return 2 * right / (2 * right + wrong) if right + wrong else float("nan")


def gather_predictions(
    name: str,
    found: Sequence[Mapping[str, Any]],
    cases: Cases,
    classes: Sequence[str] = (),
) -> Predictions:
    """Return what a network predicts for every slice or picture.

    `classes` is the network's own order of the classes, where it may be another than that of
    `cases`.
    """
    labels = [np.array(case.labels) for case in cases.cases]
    probabilities = np.concatenate([np.array(one["probabilities"]) for one in found])
    if len(classes) > 1:
        probabilities = probabilities[:, [classes.index(one) for one in cases.classes]]
    return Predictions(
        name,
        np.concatenate(labels),
        probabilities,
        np.concatenate([compute_relative_positions(len(part)) for part in labels]),
        [c.cluster for c, part in zip(cases.cases, labels, strict=True) for _ in part],
    )
