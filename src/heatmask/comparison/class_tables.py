"""The tables of a report about the classifier: how well it tells, and whether it knows."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from heatmask.comparison.results import Classifier, Comparison
from heatmask.comparison.tables import NAN, Table, show, show_interval
from heatmask.evaluation.bootstrap import bootstrap_clusters
from heatmask.evaluation.classification import (
    auroc_within_position_deciles,
    expected_calibration_error,
    slice_auroc,
)
from heatmask.evaluation.selective import measure_risk_coverage


def tabulate_classes(comparison: Comparison) -> Table:
    """How well each bundle's network classifies."""
    if comparison.subjects.pictures:
        names = comparison.subjects.classes
        header = ("network", "macro F1 [95 %]", *(f"F1, {name}" for name in names))
        header += ("accuracy [95 %]", "calibration error")
        lines = [_describe_pictures(c, len(names)) for c in comparison.classifiers]
        note = "Accuracy among tumours: every picture shows one."
    else:
        header = ("network", "AUROC [95 %]", "within tenths of the stack", "average precision",
                  "macro F1 [95 %]", "F1, tumour", "F1, none", "accuracy [95 %]",
                  "calibration error")  # fmt: skip
        lines = [_describe_slices(c) for c in comparison.classifiers]
        position = comparison.position_auroc
        note = f"At probability 0.5. Position alone has an AUROC of {show(position)}."
    return Table("Classification", header, tuple(lines), note)


def _describe_slices(classifier: Classifier) -> tuple[str, ...]:
    labels, told = classifier.labels, classifier.probabilities.sum(axis=1).clip(max=1)
    deciles = auroc_within_position_deciles(labels, told, classifier.positions)
    said = (told >= 0.5).astype(int)
    f1 = metrics.f1_score(labels, said, average=None, labels=[0, 1], zero_division=0)
    clusters = classifier.clusters

    def find(statistic: str) -> str:
        def measure(chosen: np.ndarray) -> float:
            if statistic == "auroc":
                return slice_auroc(labels[chosen], told[chosen])
            if statistic == "accuracy":
                return float((labels[chosen] == said[chosen]).mean())
            return float(
                metrics.f1_score(
                    labels[chosen], said[chosen], average="macro", labels=[0, 1], zero_division=0
                )
            )

        return show_interval(bootstrap_clusters(measure, clusters, n=300))

    return (
        classifier.name, find("auroc"), show(deciles.mean),
        show(_measure_precision(labels, told)), find("macro F1"),
        show(f1[1]), show(f1[0]), find("accuracy"),
        show(expected_calibration_error(labels, told)),
    )  # fmt: skip


def _measure_precision(labels: NDArray[np.int64], told: NDArray[np.float64]) -> float:
    """Return the average precision, NaN where one class is missing, as of AUROC."""
    both = 0 < labels.mean() < 1
    return float(metrics.average_precision_score(labels, told)) if both else NAN


def _describe_pictures(classifier: Classifier, count: int) -> tuple[str, ...]:
    labels, told = classifier.labels, classifier.probabilities
    said, clusters = told.argmax(axis=1), classifier.clusters
    f1 = metrics.f1_score(labels, said, average=None, labels=range(count), zero_division=0)
    macro = bootstrap_clusters(
        lambda i: float(metrics.f1_score(labels[i], said[i], average="macro", zero_division=0)),
        clusters, n=300,
    )  # fmt: skip
    accuracy = bootstrap_clusters(lambda i: float((labels[i] == said[i]).mean()), clusters, n=300)
    ece = expected_calibration_error(labels == said, told.max(axis=1))
    return (
        classifier.name, show_interval(macro), *map(show, f1), show_interval(accuracy), show(ece),
    )  # fmt: skip


def tabulate_slices(comparison: Comparison) -> Table:
    """Median slice Dice as the third paper reports it, and ours beside it."""
    lines = []
    for row in comparison.rows:
        if row.kind != "method" or row.slice_dice is None or row.how not in ("own", "paper"):
            continue
        if row.entry and row.entry.method != "inherent" and not comparison.subjects.pictures:
            continue
        dice, owner = row.slice_dice
        clusters = np.array(comparison.subjects.clusters)[owner]
        median = bootstrap_clusters(partial(_find_median, dice), clusters, n=300)
        lines.append(
            (
                row.name, row.how, show_interval(median), show(float(dice.mean())),
                show(row.mean("dice")),
            )
        )  # fmt: skip
    return Table(
        "Median Dice of slices with a lesion",
        (
            "heatmap", "steps to the mask", "median slice Dice [95 %]", "mean slice Dice",
            "our protocol",
        ),
        tuple(lines),
        "The paper takes the median over slices with a tumour. Our protocol, in the last column: "
        "mean over volumes (pictures) with every slice counted, split by patient.",
    )  # fmt: skip


def _find_median(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
    return float(np.median(values[chosen]))


def tabulate_confidence(comparison: Comparison, count: int = 8) -> Table:
    """Confidence against Dice."""
    lines = []
    for row in comparison.find_headlines()[:count]:
        found = measure_risk_coverage(row.scores["confidence"], row.scores["dice"])
        half = found.dice[max(0, len(found.dice) // 2 - 1)] if found.dice.size else NAN
        lines.append(
            (
                row.name, show(found.rank_correlation, 2), show(row.mean("dice")),
                show(float(half)), show(found.area), show(found.ideal),
            )
        )  # fmt: skip
    return Table(
        "Confidence against Dice",
        (
            "masks from", "rank correlation", "Dice of all", "of the more confident half",
            "area under the curve", "area, ranked by Dice itself",
        ),
        tuple(lines),
        "Confidence: the mean probability of what is shown. Area: mean Dice over all coverages.",
    )  # fmt: skip
