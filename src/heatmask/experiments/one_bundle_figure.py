"""The figure of an evaluation: Dice beside the baselines, and what the classifier does."""

import math
from itertools import compress

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from sklearn.metrics import confusion_matrix

from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.bootstrap import Interval
from heatmask.experiments.figures import BASELINE, FAINT, INK, METHOD, MUTED
from heatmask.experiments.results import Comparison, Row

BOUND = "#9a6410"
_SHADES = LinearSegmentedColormap.from_list("shares", ["white", METHOD])


def draw_evaluation(comparison: Comparison) -> Figure:
    """Draw both panels; no window or global state is involved, so threads may call it."""
    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.1)
    height = 2.2 + 0.45 * len(comparison.rows)
    figure = Figure(figsize=(12.5, height), layout=layout, facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_dice(left, comparison)
    draw = _draw_confusion if comparison.cases.pictures else _draw_deciles
    draw(right, comparison)
    return figure


def _draw_dice(axes: Axes, comparison: Comparison) -> None:
    """One line per method: a dot per case, the mean with its 95 % interval on top."""
    rows, cases = comparison.rows, comparison.cases
    count = np.count_nonzero(cases.findings)
    title, unit, cluster = f"Dice per volume, {len(cases.cases)} patients", "patient", "patient"
    if cases.pictures:
        groups = len(set(compress(cases.clusters, cases.findings)))
        shown = "pictures" if cases.by_class else f"pictures with {cases.classes[0]}"
        title = f"Dice per picture, {count} {shown} in {groups} groups"
        unit, cluster = "picture", "group"
    heights = np.arange(len(rows))[::-1]
    for row, height in zip(rows, heights, strict=True):
        _draw_row(axes, row, height, comparison.find_dice(row))
    axes.set_yticks(heights, [_label_row(row) for row in rows], fontsize=10)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(_choose_colour(row))
    axes.plot([], [], "o", color=MUTED, alpha=0.5, label=f"a {unit}")
    label = f"mean, 95 % interval over {cluster}s"
    axes.plot([], [], "D-", color=INK, linewidth=2.2, label=label)
    _add_legend(axes)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.text(1.03, len(rows) - 0.42, "mean", fontsize=9, color=MUTED, va="bottom")
    _finish(axes, title, "Dice")
    axes.spines["bottom"].set_bounds(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)


def _draw_row(axes: Axes, row: Row, height: float, interval: Interval) -> None:
    colour, dice = _choose_colour(row), row.dice
    # Spread the dots by a fixed pattern, so that the same scores give the same picture.
    spread = 0.2 * (np.arange(dice.size) * 0.618 % 1 - 0.5) * 2
    size, alpha = (20, 0.4) if dice.size <= 100 else (8, 0.15)
    axes.scatter(
        dice, height + spread, s=size, color=colour, alpha=alpha, linewidths=0, clip_on=False
    )
    mean, low, high = interval
    axes.plot((low, high), (height, height), color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot(mean, height, marker="D", markersize=7, color=colour, markeredgecolor="white")
    text = "–" if math.isnan(mean) else f"{mean:.2f}"
    axes.text(1.03, height, text, color=colour, va="center", fontsize=10, fontweight="bold")


def _draw_deciles(axes: Axes, comparison: Comparison) -> None:
    """Bars of AUROC within each tenth of the stack, the whole stack's as lines."""
    first = comparison.predictions[0]
    mean, per_decile, excluded = first.within_deciles
    tenths = np.arange(1, 11)
    axes.bar(tenths, per_decile, width=0.72, color=METHOD, alpha=0.45)
    for decile in excluded:
        axes.text(
            decile + 1, 0.02, "one class only", rotation=90, ha="center", va="bottom",
            color=MUTED, fontsize=9,
        )  # fmt: skip
    lines = (
        (slice_auroc(first.labels, first.any_class), METHOD, "-", "all slices"),
        (mean, INK, "--", "mean of the tenths"),
        (comparison.position_auroc, BOUND, "-.", "position alone, all slices"),
    )
    for value, colour, style, name in lines:
        if not math.isnan(value):
            axes.axhline(value, color=colour, linestyle=style, label=f"{name}: {value:.2f}")
    axes.axhline(0.5, color=MUTED, linestyle=":", linewidth=1, label="chance: 0.50")
    axes.set_xticks(tenths)
    axes.set_xlim(0.4, 10.6)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("AUROC", color=INK)
    _add_legend(axes)
    _finish(axes, "AUROC of the slices, by position", "tenth of the stack, by slice number")


def _draw_confusion(axes: Axes, comparison: Comparison) -> None:
    """One square per true and predicted class: how many pictures, and the share of the true."""
    first, names = comparison.predictions[0], comparison.cases.classes
    if comparison.cases.by_class:
        scores = first.class_scores
        counts = scores.confusion
        title = f"Macro F1 {scores.macro_f1.mean:.2f}, accuracy {scores.accuracy.mean:.2f}"
    else:
        names = ("none", *names)
        counts = confusion_matrix(first.labels, first.any_class >= 0.5, labels=(0, 1))
        title = f"AUROC {slice_auroc(first.labels, first.any_class):.2f}; predicted from 0.5 on"
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        axes.text(
            column, row, f"{count}\n{share:.0%}", ha="center", va="center", fontsize=11,
            color="white" if share > 0.6 else INK,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel("true class", color=INK)
    _finish(axes, title, "predicted class")
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _add_legend(axes: Axes) -> None:
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9.5, frameon=False
    )


def _finish(axes: Axes, title: str, x_label: str) -> None:
    """Set title and label, and take away what frames the panel."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=14)
    axes.set_xlabel(x_label, color=INK)
    axes.tick_params(color=MUTED)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def _choose_colour(row: Row) -> str:
    if row.kind != "baseline":
        return METHOD
    return BASELINE if row.label_free else BOUND


def _label_row(row: Row) -> str:
    return row.name if row.label_free else f"{row.name}\n(level chosen on these masks)"
