"""The tables of a report about the classifier: how well it does, and whether it knows."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.bootstrap import bootstrap_clusters
from heatmask.experiments.classifier_metrics import score_classes, score_slices
from heatmask.experiments.predictions import Predictions
from heatmask.experiments.results import Comparison, Row
from heatmask.experiments.statistics import measure_risk_coverage
from heatmask.experiments.tables import Table, make_table, show

_DRAWS = 300


def tabulate_classes(comparison: Comparison) -> Table:
    """How well each bundle's network classifies."""
    if comparison.cases.by_class:
        names = comparison.cases.classes
        header = ("network", "macro F1 [95 %]", *(f"F1, {name}" for name in names),
                  "accuracy [95 %]", "calibration error")  # fmt: skip
        rows = [_describe_pictures(one) for one in comparison.predictions]
        note = "Accuracy among lesions: every picture shows one."
    else:
        stacked = not comparison.cases.pictures
        known = f"Position alone has an AUROC of {show(comparison.position_auroc)}."
        header = ("network", "AUROC [95 %]", *stacked * ("within tenths of the stack",),
                  "average precision", "macro F1 [95 %]", "F1, lesion", "F1, none",
                  "accuracy [95 %]", "calibration error")  # fmt: skip
        rows = [_describe_slices(one, stacked) for one in comparison.predictions]
        note = "At probability 0.5." + f" {known}" * stacked
    return Table("Classification", header, tuple(tuple(map(show, row)) for row in rows), note)


def _describe_slices(classifier: Predictions, stacked: bool) -> tuple[object, ...]:
    labels, given = classifier.labels, classifier.any_class
    scores = score_slices(labels, given)
    f1 = metrics.f1_score(labels, given >= 0.5, average=None, labels=[0, 1], zero_division=0)
    auroc, macro_f1, accuracy = (
        classifier.bootstrap(lambda true, given, _, f=f: f(true, given), _DRAWS)
        for f in (slice_auroc, _score_macro_f1, _score_accuracy)
    )
    return (
        classifier.name, auroc, *stacked * (classifier.within_deciles.mean,),
        scores["average_precision"], macro_f1, f1[1], f1[0], accuracy, scores["ece"],
    )  # fmt: skip


def _score_macro_f1(true: NDArray, given: NDArray) -> float:
    return float(
        metrics.f1_score(true, given >= 0.5, average="macro", labels=[0, 1], zero_division=0)
    )


def _score_accuracy(true: NDArray, given: NDArray) -> float:
    return float((true == (given >= 0.5)).mean())


def _describe_pictures(one: Predictions) -> tuple[object, ...]:
    scores = score_classes(one.labels, one.probabilities, one.clusters, _DRAWS)
    return one.name, scores.macro_f1, *np.nan_to_num(scores.f1), scores.accuracy, scores.ece


def tabulate_slices(comparison: Comparison) -> Table:
    """Median slice Dice as the third paper reports it, and ours beside it."""
    clusters = np.array(comparison.cases.clusters)

    def find_median(row: Row) -> object:
        dice, owner = row.slice_dice
        return bootstrap_clusters(partial(_find_median, dice), clusters[owner], _DRAWS)

    return make_table(
        "Median Dice of slices with a lesion",
        [
            row
            for row in comparison.rows
            if row.kind == "method"
            and row.how in ("own", "paper")
            and (comparison.cases.pictures or not row.entry or row.entry.method == "inherent")
        ],
        {
            "heatmap": lambda row: row.name,
            "steps to the mask": lambda row: row.how,
            "median slice Dice [95 %]": find_median,
            "mean slice Dice": lambda row: row.slice_dice[0].mean(),
            "our protocol": lambda row: row.mean("dice"),
        },
    )


def _find_median(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
    return float(np.median(values[chosen]))


def tabulate_confidence(comparison: Comparison, count: int = 8) -> Table:
    """Confidence against Dice, of the cases with a mask."""
    clusters = np.array(comparison.cases.clusters)

    def correlate(row: Row) -> str:
        def find(chosen: NDArray[np.int64]) -> float:
            kept = measure_risk_coverage(row.confidence[chosen], row.dice[chosen])
            return kept.rank_correlation

        return show(bootstrap_clusters(find, clusters, _DRAWS), 2)

    rows = comparison.find_headlines()[:count]
    found = [measure_risk_coverage(row.confidence, row.dice) for row in rows]
    return make_table(
        "Confidence against Dice",
        list(zip(rows, found, strict=True)),
        {
            "masks from": lambda pair: pair[0].name,
            "cases": lambda pair: str(pair[1].dice.size),
            "rank correlation [95 %]": lambda pair: correlate(pair[0]),
            "Dice of all": lambda pair: pair[1].dice[-1] if pair[1].dice.size else float("nan"),
            "of the more confident half": lambda pair: pair[1].half,
            "area under the curve": lambda pair: pair[1].area,
            "area, ranked by Dice itself": lambda pair: pair[1].ideal,
        },
    )
