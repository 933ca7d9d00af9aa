"""The figures of a report, as PNG within the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from heatmask.experiments.outcomes import Outcome
from heatmask.experiments.results import Comparison, Row
from heatmask.experiments.retraining import TRAIN
from heatmask.experiments.statistics import measure_risk_coverage

INK, MUTED, FAINT = "#1f2430", "#6b7280", "#d9dce1"
METHOD, CONTROL, BASELINE, MASKS = "#0b6e99", "#c2571a", "#565d69", "#6b4fa0"
CYCLE = ("#0b6e99", "#c2571a", "#3b7d3b", "#6b4fa0", "#9a6410", "#a33b5c", "#3f6f8f", "#777777")


@dataclass(frozen=True)
class Picture:
    """A figure with its words.

    Attributes
    ----------
    caption
        What it shows.
    data
        PNG, base64.
    """

    caption: str
    data: str


def draw_masks(comparison: Comparison) -> Picture:
    """Dice of every headline beside its control, baselines and networks trained on masks."""
    rows = comparison.find_headlines()
    rows += sorted(
        (row for row in comparison.rows if row.kind in ("baseline", "masks")),
        key=lambda row: -row.mean("dice"),
    )
    figure, axes = _make_figure(7.2, 0.9 + 0.27 * len(rows))
    for height, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        mean, low, high = comparison.find_dice(row)
        colour = {"method": METHOD, "baseline": BASELINE, "masks": MASKS}[row.kind]
        axes.plot((low, high), (height, height), color=colour, linewidth=2)
        axes.plot(mean, height, "D", color=colour, markersize=5)
        control = comparison.find_control(row.entry)
        if control is not None:
            axes.plot(control.mean("dice"), height, "x", color=CONTROL, markersize=5)
    axes.set_yticks(range(len(rows) - 1, -1, -1), [_label(row) for row in rows], fontsize=8)
    for colour, mark, name in (
        (METHOD, "D", "explanation"), (CONTROL, "x", "same, random weights"),
        (BASELINE, "D", "no learning"), (MASKS, "D", "trained on masks"),
    ):  # fmt: skip
        axes.plot([], [], mark, color=colour, label=name)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean Dice, 95 % interval", fontsize=9)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.grid(axis="x", color=FAINT)
    return _encode(figure, "Mean Dice of the masks; (a) but for rows that say (b) or (c)")


def draw_risk(comparison: Comparison, count: int = 6) -> Picture:
    """Risk-coverage curves."""
    figure, axes = _make_figure(6.2, 3.8)
    for row, colour in zip(comparison.find_headlines()[:count], CYCLE, strict=False):
        found = measure_risk_coverage(row.confidence, row.dice)
        axes.plot(found.coverage, found.dice, color=colour, label=row.name)
    _finish(axes, "coverage: share of cases kept, the most confident first", "mean Dice of these")
    return _encode(
        figure, "Risk (1 - Dice) and coverage: does the classifier know which masks are good?"
    )


def draw_confidence(comparison: Comparison, count: int = 6) -> Picture:
    """Confidence against Dice, one dot a case."""
    figure, axes = _make_figure(6.2, 3.8)
    for row, colour in zip(comparison.find_headlines()[:count], CYCLE, strict=False):
        size = 16 if len(row.dice) < 100 else 4
        axes.scatter(
            row.confidence, row.dice, s=size, alpha=0.6, color=colour,
            label=row.name,
        )  # fmt: skip
    _finish(axes, "confidence", "Dice")
    return _encode(figure, "Confidence against Dice")


def draw_curves(comparison: Comparison) -> Picture:
    """Precision-recall and reliability of the classifiers."""
    figure = Figure(figsize=(8.6, 3.8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    for classifier, colour in zip(comparison.predictions, CYCLE, strict=False):
        several = comparison.cases.by_class
        classes = range(len(comparison.cases.classes)) if several else [0]
        for k in classes:
            truth = classifier.labels == (k if several else 1)
            given = classifier.probabilities[:, k] if several else classifier.any_class
            precision, recall, _ = precision_recall_curve(truth, given)
            name = comparison.cases.classes[k] if several else classifier.name
            own = CYCLE[k] if several else colour
            left.plot(recall, precision, color=own, label=name)
            right.plot(*_bin(truth, given), "o-", markersize=3, color=own, label=name)
    _finish(left, "recall", "precision")
    right.plot((0, 1), (0, 1), ":", color=MUTED)
    _finish(right, "predicted probability", "observed rate")
    return _encode(figure, "Precision and recall; calibration")


def draw_outcomes(comparison: Comparison) -> Picture:
    """Retraining on filtered images."""
    found = comparison.outcomes
    figure, axes = _make_figure(7.2, 0.9 + 0.24 * len(found))
    heights = range(len(found) - 1, -1, -1)
    for height, outcome in zip(heights, found, strict=True):
        colour = _choose_colour(outcome)
        mean, low, high = outcome.score
        axes.plot((low, high), (height, height), color=colour, linewidth=2)
        axes.plot(mean, height, "D", color=colour, markersize=5)
        axes.plot(outcome.seeds, [height] * len(outcome.seeds), ".", color=INK, markersize=3)
    axes.set_yticks(heights, [outcome.name for outcome in found], fontsize=8)
    score = "macro F1" if comparison.cases.by_class else f"AUROC of the {comparison.cases.image}s"
    axes.set_xlabel(f"{score}, 95 % interval; dots: seeds", fontsize=9, loc="right")
    axes.grid(axis="x", color=FAINT)
    return _encode(figure, "Retraining on filtered images, and its controls")


def draw_cascades(comparison: Comparison) -> Picture:
    """Dice and similarity against depth."""
    figure = Figure(figsize=(8.6, 3.8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    for (entry, depths), colour in zip(comparison.cascades.items(), CYCLE, strict=False):
        ordered = sorted(depths, key=lambda depth: depth.stages)
        share = [depth.stages / ordered[-1].stages for depth in ordered]
        left.plot(share, [d.dice for d in ordered], "o-", color=colour, label=entry.name)
        right.plot(share, [d.similarity for d in ordered], "o-", color=colour, label=entry.name)
    _finish(left, "share of stages forgotten", "mean Dice")
    _finish(right, "share of stages forgotten", "rank correlation")
    right.set_ylim(-1.02, 1.02)
    return _encode(figure, "Cascading randomisation, from the output to the input")


def _make_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(-0.02, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))


def _label(row: Row) -> str:
    return row.name if row.rule == "a" else f"{row.name} ({row.rule})"


def _choose_colour(outcome: Outcome) -> str:
    if outcome.learns != TRAIN:
        return MASKS
    control = outcome.condition.blank or outcome.condition.kind in ("random", "other")
    return CONTROL if control else METHOD


def _bin(truth: np.ndarray, given: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    place = np.minimum((given * 10).astype(int), 9)
    used = [k for k in range(10) if (place == k).any()]
    return [given[place == k].mean() for k in used], [truth[place == k].mean() for k in used]


def _encode(figure: Figure, caption: str) -> Picture:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130)
    return Picture(caption, base64.b64encode(content.getvalue()).decode())
