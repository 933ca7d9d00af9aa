"""The picture of an evaluation: Dice per patient beside the floors, and AUROC by position."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from heatmask.evaluation.protocol import Evaluation
from heatmask.evaluation.table import Row, ScoreTable

INK, MUTED, FAINT = "#1f2430", "#6b7280", "#d9dce1"
METHOD, FLOOR, ORACLE = "#0b6e99", "#565d69", "#9a6410"


def draw_evaluation(evaluation: Evaluation) -> Figure:
    """Draw both panels; no window or global state is involved, so threads may call it."""
    figure, left, right = make_panels(len(evaluation.rows))
    draw_dice(left, evaluation, f"Dice per volume, {len(evaluation.patients)} patients")
    _draw_deciles(right, evaluation)
    return figure


def make_panels(n_rows: int) -> tuple[Figure, Axes, Axes]:
    """Return an empty figure with two panels, high enough for the rows of a table."""
    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.1)
    figure = Figure(figsize=(12.5, 2.2 + 0.45 * n_rows), layout=layout, facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    return figure, left, right


def draw_dice(axes: Axes, table: ScoreTable, title: str) -> None:
    """One line per method: a dot per case, the mean with its 95 % interval on top."""
    rows = table.rows
    heights = np.arange(len(rows))[::-1]
    for row, height in zip(rows, heights, strict=True):
        _draw_row(axes, row, height, table.column(row.method.name))
    axes.set_yticks(heights, [_label_row(row) for row in rows], fontsize=10)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(_choose_colour(row))
    axes.plot([], [], "o", color=MUTED, alpha=0.5, label=f"a {table.unit}")
    label = f"mean, 95 % interval over {table.cluster}s"
    axes.plot([], [], "D-", color=INK, linewidth=2.2, label=label)
    _add_legend(axes)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.text(1.03, len(rows) - 0.42, "mean", fontsize=9, color=MUTED, va="bottom")
    finish(axes, title, "Dice")
    axes.spines["bottom"].set_bounds(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)


def _draw_row(axes: Axes, row: Row, height: float, dice: np.ndarray) -> None:
    colour = _choose_colour(row)
    # Spread the dots by a fixed pattern, so that the same scores give the same picture.
    spread = 0.2 * (np.arange(dice.size) * 0.618 % 1 - 0.5) * 2
    size, alpha = (20, 0.4) if dice.size <= 100 else (8, 0.15)
    axes.scatter(
        dice, height + spread, s=size, color=colour, alpha=alpha, linewidths=0, clip_on=False
    )
    mean, low, high = row.dice
    axes.plot((low, high), (height, height), color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot(mean, height, marker="D", markersize=7, color=colour, markeredgecolor="white")
    text = "–" if math.isnan(mean) else f"{mean:.2f}"
    axes.text(1.03, height, text, color=colour, va="center", fontsize=10, fontweight="bold")


def _draw_deciles(axes: Axes, evaluation: Evaluation) -> None:
    """Bars of AUROC within each tenth of the stack, the whole stack's as lines."""
    mean, per_decile, excluded = evaluation.deciles
    tenths = np.arange(1, 11)
    axes.bar(tenths, per_decile, width=0.72, color=METHOD, alpha=0.45)
    for decile in excluded:
        axes.text(
            decile + 1, 0.02, "one class only", rotation=90, ha="center", va="bottom",
            color=MUTED, fontsize=9,
        )  # fmt: skip
    lines = (
        (evaluation.slice_scores["auroc"], METHOD, "-", "all slices"),
        (mean, INK, "--", "mean of the tenths"),
        (evaluation.position_auroc, ORACLE, "-.", "position alone, all slices"),
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
    finish(axes, "AUROC of the slices, by position", "tenth of the stack, by slice number")


def _add_legend(axes: Axes) -> None:
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9.5, frameon=False
    )


def finish(axes: Axes, title: str, x_label: str) -> None:
    """Set title and label, and take away what frames the panel."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=14)
    axes.set_xlabel(x_label, color=INK)
    axes.tick_params(color=MUTED)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def _choose_colour(row: Row) -> str:
    if not row.method.floor:
        return METHOD
    return FLOOR if row.method.label_free else ORACLE


def _label_row(row: Row) -> str:
    if row.method.rule == "c":
        return f"{row.method.name}\n(level chosen on these masks)"
    if row.method.rule == "b":
        return f"{row.method.name}\n(level chosen on validation masks)"
    return row.method.name
