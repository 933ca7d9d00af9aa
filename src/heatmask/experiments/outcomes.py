"""What retraining on filtered images gave: scores by condition, over seeds and patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.bootstrap import Interval, bootstrap_clusters
from heatmask.experiments.cases import name_split
from heatmask.experiments.classifier_metrics import auroc_within_position_deciles
from heatmask.experiments.filtered import Condition
from heatmask.experiments.retraining import TRAIN, WHOLE, Trial


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a condition gave, over seeds.

    Attributes
    ----------
    condition, learns
        The trials'.
    score
        Mean over the seeds, with an interval over patients: AUROC, or macro F1 of several classes.
    gap
        The same less that of whole images, on the same draws of patients.
    seeds
        The score of each seed.
    within_deciles
        AUROC within tenths of the stack, mean over the seeds; NaN for several classes.
    """

    condition: Condition
    learns: str
    score: Interval
    gap: Interval
    seeds: tuple[float, ...]
    within_deciles: float

    @property
    def name(self) -> str:
        """The condition's name, with the split where that is not the usual one."""
        where = "" if self.learns == TRAIN else f", trained on the {name_split(self.learns)}"
        return self.condition.name + where


def summarise_trials(results: Mapping[Trial, Mapping[str, Any]]) -> list[Outcome]:
    """Return one outcome for each condition and split learnt from, in the order of the trials."""
    grouped: dict[tuple[Condition, str], list[Mapping[str, Any]]] = {}
    for trial, result in results.items():
        grouped.setdefault((trial.condition, trial.learns), []).append(result)
    predicted = {key: _Predicted(runs) for key, runs in grouped.items()}
    outcomes = []
    for (condition, learns), own in predicted.items():
        whole = predicted[WHOLE, learns]
        outcomes.append(
            Outcome(
                condition,
                learns,
                bootstrap_clusters(own.score, own.patients, n=300),
                bootstrap_clusters(partial(_subtract, own, whole), own.patients, n=300),
                tuple(own.score_seeds(np.arange(own.labels.size))),
                own.within_deciles,
            )
        )
    return outcomes


def _subtract(one: "_Predicted", other: "_Predicted", chosen: NDArray) -> float:
    return one.score(chosen) - other.score(chosen)


class _Predicted:
    """What the networks of a condition, one a seed, predict of the test slices."""

    def __init__(self, runs: Sequence[Mapping[str, Any]]) -> None:
        self.labels, self.patients = np.array(runs[0]["labels"]), runs[0]["patients"]
        self.positions = np.array(runs[0]["positions"])
        self.logits = [np.array(run["logits"]) for run in runs]

    def score_seeds(self, chosen: NDArray) -> list[float]:
        """Return AUROC, or macro F1 of several classes, of each seed on some slices."""
        labels = self.labels[chosen]
        if self.logits[0].shape[1] == 1:
            return [slice_auroc(labels, logits[chosen, 0]) for logits in self.logits]
        said = [logits[chosen].argmax(axis=1) + 1 for logits in self.logits]
        return [float(f1_score(labels, s, average="macro", zero_division=0)) for s in said]

    def score(self, chosen: NDArray) -> float:
        """Return the mean over seeds."""
        return float(np.mean(self.score_seeds(chosen)))

    @property
    def within_deciles(self) -> float:
        """AUROC within tenths of the stack, mean over the seeds."""
        if self.logits[0].shape[1] > 1:
            return float("nan")
        found = [
            auroc_within_position_deciles(self.labels, logits[:, 0], self.positions).mean
            for logits in self.logits
        ]
        return float(np.mean(found))
