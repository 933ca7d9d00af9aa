"""The results of a simulation as files: a table, a figure, CSV and JSON."""

import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from heatmask.experiments.bootstrap import bootstrap_cluster_mean
from heatmask.experiments.cases import Cases
from heatmask.experiments.figures import BASELINE, CONTROL, FAINT, INK, METHOD
from heatmask.experiments.files import format_csv, write_files
from heatmask.experiments.simulation import (
    CALLED,
    CUT,
    EMPTY,
    GOALS,
    PSEUDO,
    SHOWN,
    Course,
)

_COLOURS = {PSEUDO: METHOD, CALLED: CONTROL, EMPTY: BASELINE, CUT: FAINT}


def summarise_courses(courses: Sequence[Course]) -> list[dict[str, Any]]:
    """Return a row of figures for each start, means over the cases.

    A goal that was not reached counts as one edit more than were made, so that the mean number of
    edits is at least what is said; how many reached it stands beside it.
    """
    starts = dict.fromkeys(course.start for course in courses)
    return [_summarise([c for c in courses if c.start == name]) for name in starts]


def _summarise(courses: Sequence[Course]) -> dict[str, Any]:
    made = len(courses[0].dice) - 1
    shown = [count for count in SHOWN if count <= made]
    row: dict[str, Any] = {"start": courses[0].start, "cases": len(courses)}
    for count in shown:
        row[f"dice_{count}"] = float(np.mean([c.dice[count] for c in courses]))
    last = [course.dice[shown[-1]] for course in courses]
    interval = bootstrap_cluster_mean(last, [course.cluster for course in courses])
    row["interval_after"], row["dice_interval"] = shown[-1], [*interval[1:]]
    for goal in GOALS:
        needed = [course.count_edits(goal) for course in courses]
        row[f"edits_to_{goal:.2f}"] = float(np.mean([min(n, made + 1) for n in needed]))
        row[f"reached_{goal:.2f}"] = sum(map(math.isfinite, needed))
    for count in shown:
        row[f"to_paint_{count}"] = float(np.mean([c.to_paint[count] for c in courses]))
    spent = [one for course in courses for one in course.seconds]
    row["seconds_mean"] = float(np.mean(spent)) if spent else 0.0
    row["seconds_max"] = max(spent, default=0.0)
    return row


def write_simulation(cases: Cases, courses: Sequence[Course], folder: Path) -> list[Path]:
    """Write simulation.json, simulation.csv and simulation.png; return their paths."""
    lines = [
        (c.case, c.start, count, dice, paint)
        for c in courses
        for count, (dice, paint) in enumerate(zip(c.dice, c.to_paint, strict=True))
    ]
    summary = {
        "split": cases.split,
        "left_out": dict(cases.left_out),
        "starts": summarise_courses(courses),
    }
    picture = BytesIO()
    draw_simulation(courses).savefig(picture, format="png", dpi=120)
    contents: dict[str, str | bytes] = {
        "simulation.json": json.dumps(summary, indent=2) + "\n",
        "simulation.csv": format_csv(("case", "start", "edits", "dice", "to_paint"), lines),
        "simulation.png": picture.getvalue(),
    }
    return write_files(folder, contents)


def draw_simulation(courses: Sequence[Course]) -> Figure:
    """Draw the Dice after each number of edits: every case thin, the mean thick."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for start in dict.fromkeys(course.start for course in courses):
        own = np.array([c.dice for c in courses if c.start == start])
        colour = _COLOURS[start]
        axes.plot(own.T, color=colour, alpha=0.12, linewidth=0.8)
        axes.plot(own.mean(axis=0), "o-", color=colour, linewidth=2.4, label=start)
    for goal in GOALS:
        axes.axhline(goal, color=FAINT, linestyle="--", linewidth=1, zorder=0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("edits", color=INK)
    axes.set_ylabel("Dice", color=INK)
    axes.set_title("Dice after each edit: cases and their mean", loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure
