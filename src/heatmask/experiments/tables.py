"""The tables of a report about masks and explanations."""

import csv
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatmask.experiments.bootstrap import Interval
from heatmask.experiments.entries import list_draws
from heatmask.experiments.faithfulness import MAX_SLICES
from heatmask.experiments.files import read_text
from heatmask.experiments.results import NAN, Comparison
from heatmask.experiments.retraining import WHOLE

_NOTES: dict[str, str] = tomllib.loads(read_text("notes.toml"))
_LENDERS = {
    True: ("any picture of another group", ""),
    False: (
        "a slice of about the same height",
        ", and take another patient's reference where a slice has no lesion, for an empty mask "
        "would tell the label",
    ),
}
"""Of pictures and of volumes: where another patient's mask comes from, and what that needs."""


@dataclass(frozen=True)
class Table:
    """A table as texts.

    Attributes
    ----------
    title
        What it shows.
    header
        (C,).
    rows
        Each (C,).
    note
        What the reader has to know beside it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def make_table(
    title: str, items: Iterable[Any], columns: Mapping[str, Callable[[Any], Any]], **words: object
) -> Table:
    """Return a table with a row for each item; a column gives its text, number or interval.

    `words` fill the note that notes.toml has under this title.
    """
    rows = tuple(tuple(show(column(item)) for column in columns.values()) for item in items)
    return Table(title, tuple(columns), rows, _NOTES[title].format(**words))


def show(value: Any, digits: int = 3) -> str:
    """Return a text as it is, a number, a dash for NaN and None, or "mean [low, high]"."""
    if isinstance(value, Interval):
        mean, low, high = (show(part, digits) for part in value)
        return mean if low == "–" else f"{mean} [{low}, {high}]"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def show_p(p: float) -> str:
    """Return a p value."""
    return "< 0.001" if p < 0.001 else show(p)


def tabulate_masks(comparison: Comparison) -> Table:
    """Masks by each bundle's own label-free rule, the best first, then what needs no classifier."""
    interval, first = comparison.find_interval, comparison.ranking[0][0]
    columns = {
        "masks from": lambda pair: pair[0].name,
        "rule": lambda pair: f"({pair[0].rule})",
        "mean Dice [95 %]": lambda pair: comparison.find_dice(pair[0]),
        "less the first [95 %]": lambda pair: (
            None if pair[0] is first else comparison.subtract(pair[0], first)
        ),
        "p": lambda pair: show_p(pair[1]),
        "median": lambda pair: pair[0].median_dice,
        "mean IoU [95 %]": lambda pair: interval(pair[0].scores["iou"]),
        f"HD95, {comparison.unit}": lambda pair: show(pair[0].mean("hd95"), 1),
        "surface Dice": lambda pair: pair[0].mean("surface_dice"),
        "pixel AUPRC": lambda pair: pair[0].mean("auprc"),
        "pointing": lambda pair: show(pair[0].mean("pointing"), 2),
        "energy": lambda pair: show(pair[0].mean("energy"), 2),
        "false ml": lambda pair: show(pair[0].mean("false_size"), 1),
        "without mask": lambda pair: f"{comparison.count_missed(pair[0]):.0f}",
    }
    if comparison.cases.pictures:  # there are no slices without a lesion beside some with one
        del columns["false ml"]
    if not comparison.cases.findings.all():
        none = np.count_nonzero(~comparison.cases.findings)
        columns[f"masked, of {none} that show nothing"] = lambda pair: (
            f"{comparison.count_false(pair[0]):.0f}"
        )
    return make_table(
        "Masks",
        comparison.ranking,
        columns,
    )


def tabulate_rules(comparison: Comparison) -> Table:
    """The same heatmaps by other thresholds, (a), (b) and (c) apart."""
    rows = [
        row
        for headline in comparison.find_headlines()
        for row in sorted(comparison.rows, key=lambda row: row.rule)
        if row.entry == headline.entry
    ]
    return make_table(
        "Thresholds",
        rows,
        {
            "heatmap": lambda row: row.name,
            "rule": lambda row: f"({row.rule})",
            "threshold": lambda row: row.how,
            "mean Dice [95 %]": lambda row: comparison.find_dice(row),
            "median": lambda row: row.median_dice,
        },
    )


def tabulate_strata(comparison: Comparison, count: int = 8) -> Table:
    """Dice by the size of the lesion, in thirds of the cases."""
    rows = comparison.find_headlines()[:count]
    rows += [comparison.best_baseline] if comparison.best_baseline else []
    sizes = rows[0].scores["reference_size"]
    third = np.digitize(sizes, np.quantile(sizes[sizes > 0], (1 / 3, 2 / 3)))
    unit = "pixels" if comparison.cases.pictures else "ml"

    def measure(own: np.ndarray) -> Callable[[Any], float]:
        return lambda row: float(np.nanmean(row.dice[own]))

    columns: dict[str, Callable[[Any], Any]] = {"masks from": lambda row: row.name}
    for k, word in enumerate(("small", "middle", "large")):
        own = (third == k) & (sizes > 0)
        if own.any():
            span = f"{sizes[own].min():.0f} to {sizes[own].max():.0f} {unit}"
            columns[f"{word} ({span}, n = {own.sum()})"] = measure(own)
    return make_table("By size of the lesion", rows, columns)


def tabulate_controls(comparison: Comparison) -> Table:
    """Each method beside the same on random weights."""
    return make_table(
        "The control with random weights",
        comparison.contrasts,
        {
            "explanation": lambda one: one.row.name,
            "Dice": lambda one: one.row.mean("dice"),
            "Dice, random weights": lambda one: one.control.mean("dice"),
            "draws": lambda one: str(one.draws),
            "of these without mask": lambda one: f"{100 * one.control.mean('empty'):.0f} %",
            "difference [95 %]": lambda one: one.difference,
            "p": lambda one: show_p(one.p),
            "AUPRC": lambda one: one.row.mean("auprc"),
            "AUPRC, random weights": lambda one: one.control.mean("auprc"),
            f"seconds a {comparison.cases.unit}": lambda one: show(one.row.mean("seconds"), 2),
            "memory, MB": lambda one: show(1000 * comparison.memory_gb.get(one.row.entry, NAN), 0),
        },
    )


def tabulate_outcomes(comparison: Comparison) -> Table:
    """Retraining on filtered images."""
    pictures = comparison.cases.pictures
    score = "macro F1" if comparison.cases.by_class else "AUROC"
    source, lent = _LENDERS[pictures]
    within = {} if pictures else {"within tenths": lambda one: one.within_deciles}
    return make_table(
        "Retraining on filtered images",
        comparison.outcomes,
        {
            "images, for training and test": lambda one: one.name,
            f"{score} [95 %]": lambda one: one.score,
            "less whole images [95 %]": lambda one: None if one.condition == WHOLE else one.gap,
            "each seed": lambda one: ", ".join(map(show, one.seeds)),
            **within,
        },
        source=source,
        lent=lent,
    )


def tabulate_faithfulness(comparison: Comparison) -> Table:
    """Deletion and insertion."""
    found = comparison.faithfulness
    trained = [entry for entry in found if not entry.control]

    def measure(name: str) -> Callable[[Any], Interval]:
        return lambda entry: comparison.find_interval(column_of(found[entry], name))

    def measure_random(name: str) -> Callable[[Any], float]:
        return lambda entry: mean_of(found.get(list_draws(entry)[0], []), name)

    return make_table(
        "Deletion and insertion",
        sorted(trained, key=lambda entry: (entry.label, mean_of(found[entry], "deletion"))),
        {
            "explanation": lambda entry: entry.name,
            "deletion (low is good)": measure("deletion"),
            "deletion, random weights": measure_random("deletion"),
            "insertion (high is good)": measure("insertion"),
            "insertion, random weights": measure_random("insertion"),
        },
        slices=MAX_SLICES,
    )


def column_of(scores: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """Return one score of every case."""
    return np.array([one[name] for one in scores], float)


def mean_of(scores: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the mean over cases, NaN left out."""
    values = column_of(scores, name)
    return float(np.nanmean(values)) if np.isfinite(values).any() else NAN


def tabulate_cascades(comparison: Comparison) -> Table:
    """Cascading randomisation."""
    return make_table(
        "Cascading randomisation",
        [
            (entry.name, depth)
            for entry, depths in comparison.cascades.items()
            for depth in sorted(depths, key=lambda depth: depth.stages)
        ],
        {
            "explanation": lambda pair: pair[0],
            "stages forgotten": lambda pair: str(pair[1].stages),
            "down to": lambda pair: pair[1].last,
            "Dice": lambda pair: pair[1].dice,
            "less that of the trained [95 %]": lambda pair: (
                pair[1].difference if pair[1].stages else None
            ),
            "rank correlation with the trained": lambda pair: pair[1].similarity,
        },
    )


def tabulate_refused(comparison: Comparison) -> Table:
    """What was not done."""
    lines = tuple((one.bundle, one.method, one.reason) for one in comparison.refused)
    return Table("What could not be done", ("bundle", "method", "why"), lines)


def tabulate_published() -> Table:
    """What others have published, from abstracts unless said otherwise: never mixed with ours."""
    header, *rows = map(tuple, csv.reader(read_text("published.csv").splitlines()))
    title = "Published numbers"
    return Table(title, header, tuple(rows), _NOTES[title])
