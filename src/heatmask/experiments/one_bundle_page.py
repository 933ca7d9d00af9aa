"""An evaluation on paper: a CSV by case, summary.json, evaluation.md and evaluation.png."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.experiments.baselines import RIM_SHARE
from heatmask.experiments.bootstrap import Interval
from heatmask.experiments.cases import Cases
from heatmask.experiments.classifier_metrics import score_slices
from heatmask.experiments.files import format_csv, write_files
from heatmask.experiments.one_bundle import RIGHT_CLASS
from heatmask.experiments.one_bundle_figure import draw_evaluation
from heatmask.experiments.overlap import EMPTY_RULE
from heatmask.experiments.results import NAN, Comparison, Row
from heatmask.experiments.scores import UNGATED
from heatmask.experiments.tables import show
from heatmask.files import render

RULES = {
    "a": "without any mask",
    "b": "with a few validation masks",
    "c": "on the reported masks themselves: an upper bound, no result",
}


def write_evaluation(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write all four files, each whole or not at all, and return their paths.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    unit, picture = "picture" if comparison.cases.pictures else "patient", BytesIO()
    draw_evaluation(comparison).savefig(picture, format="png", dpi=160)
    contents: dict[str, str | bytes] = {
        f"per_{unit}.csv": format_cases(comparison, unit),
        "summary.json": format_json(comparison),
        "evaluation.md": format_markdown(comparison),
        "evaluation.png": picture.getvalue(),
    }
    return write_files(folder, contents)


def format_cases(comparison: Comparison, unit: str) -> str:
    """Return a line for each case and method; a score that is not counted is left empty."""
    cases, size = comparison.cases, "pixels" if comparison.cases.pictures else "ml"
    columns: dict[str, list[str]] = {unit: [case.name for case in cases.cases]}
    keys = {"dice": "dice", "iou": "iou", f"mask_{size}": "mask_size"}
    keys |= {f"reference_{size}": "reference_size", f"hd95_{comparison.unit}": "hd95"}
    if cases.pictures:
        first = comparison.predictions[0]
        columns["group"] = cases.clusters
        if cases.by_class:
            columns["class"] = [cases.classes[k] for k in first.labels]
            columns["predicted"] = [cases.classes[k] for k in first.probabilities.argmax(axis=1)]
        else:
            columns[cases.classes[0]] = [str(k) for k in first.labels]
            columns["probability"] = [f"{p:.4f}" for p in first.any_class]
    else:
        keys["tumour_free_slices_ml"] = "false_size"

    def list_scores(row: Row) -> Iterator[NDArray[np.float64]]:
        return (row.scores.get(key, np.full(len(cases.cases), NAN)) for key in keys.values())

    lines = [
        (*case, r.name, r.rule, r.label_free, *(float(s[n]) for s in list_scores(r)))
        for n, case in enumerate(zip(*columns.values(), strict=True))
        for r in comparison.rows
    ]
    return format_csv((*columns, "method", "rule", "label_free", *keys), lines)


def format_json(comparison: Comparison) -> str:
    """Return everything but the cases' rows, as strict JSON: NaN becomes null."""
    cases = comparison.cases
    best = comparison.best_baseline
    counts = {"n_pictures": len(cases.cases), "n_groups": len(set(cases.clusters))}
    if not cases.pictures:
        n_slices = len(comparison.predictions[0].labels)
        counts = {"n_patients": len(cases.cases), "n_slices": n_slices}
    summary = {
        **counts,
        "rules": RULES,
        "empty_rule": EMPTY_RULE,
        "best_label_free_baseline": best.name if best else None,
        "methods": [_summarise_row(comparison, row) for row in comparison.rows],
        **_summarise_classifier(comparison),
        "notes": list(comparison.notes),
        "left_out": dict(cases.left_out),
    }
    return json.dumps(_replace_nan(summary), indent=2, allow_nan=False) + "\n"


def _summarise_row(comparison: Comparison, row: Row) -> dict[str, Any]:
    difference = find_difference(comparison, row)
    cases = comparison.cases
    if cases.by_class:
        further: dict[str, Any] = {"mean_dice_by_class": find_class_dice(comparison, row)}
    elif cases.pictures:
        further = {
            "found_without_mask": comparison.count_missed(row),
            "masked_without_finding": comparison.count_false(row),
        }
    else:
        further = {"mean_tumour_free_slices_ml": row.mean("false_size")}
    return {
        "name": row.name,
        "rule": row.rule,
        "label_free": row.label_free,
        "baseline": row.kind == "baseline",
        "level": row.level,
        "n_counted": row.n_counted,
        "mean_dice": comparison.find_dice(row)._asdict(),
        "median_dice": row.median_dice,
        "mean_iou": row.mean("iou"),
        f"mean_hd95_{comparison.unit}": row.mean("hd95"),
        **further,
        "difference_to_best_baseline": difference and difference._asdict(),
    }


def _summarise_classifier(comparison: Comparison) -> dict[str, Any]:
    first, names = comparison.predictions[0], comparison.cases.classes
    if not comparison.cases.by_class:
        scores = score_slices(first.labels, first.any_class)
        if comparison.cases.pictures:
            intervals = {k: first.slice_intervals[k]._asdict() for k in ("auroc", "f1")}
            found = {
                name: int((first.labels == k).sum()) for k, name in enumerate(("none", *names))
            }
            return {"pictures": {**found, **scores, "intervals": intervals}}
        slices = {
            **scores,
            "position_only_auroc": comparison.position_auroc,
            "auroc_within_deciles": first.within_deciles._asdict(),
            "intervals": {k: i._asdict() for k, i in first.slice_intervals.items()},
        }
        return {"slices": slices}
    own = first.class_scores
    classes = {
        "classifier": first.name,
        "names": list(names),
        "macro_f1": own.macro_f1._asdict(),
        "accuracy": own.accuracy._asdict(),
        "accuracy_of_the_commonest": own.commonest,
        "f1": dict(zip(names, own.f1.tolist(), strict=True)),
        "confusion": own.confusion.tolist(),
        "ece": own.ece,
    }
    return {"classes": classes}


def find_difference(comparison: Comparison, row: Row) -> Interval | None:
    """Return a row's Dice less that of the best label-free baseline; None for that itself."""
    best = comparison.best_baseline
    if best is None or row is best:
        return None
    return comparison.subtract(row, best)


def find_class_dice(comparison: Comparison, row: Row) -> dict[str, float]:
    """Return a row's mean Dice over the pictures of each true class."""
    labels, dice = comparison.predictions[0].labels, row.dice
    found = {}
    for k, name in enumerate(comparison.cases.classes):
        own = dice[(labels == k) & ~np.isnan(dice)]
        found[name] = float(own.mean()) if own.size else NAN
    return found


def format_markdown(comparison: Comparison) -> str:
    """Return the table of methods, what the classifier does, and the rules they follow."""
    cases, first = comparison.cases, comparison.predictions[0]
    return render(
        __package__,
        "evaluation.md.j2",
        cases=cases,
        unit="picture" if cases.pictures else "patient",
        further=_name_columns(cases),
        rows=[_list_cells(comparison, row) for row in comparison.rows],
        right_class=RIGHT_CLASS,
        rules=RULES,
        empty_rule=EMPTY_RULE,
        ungated=UNGATED,
        best=comparison.best_baseline,
        rim=f"{RIM_SHARE:.1%}",
        first=first,
        slices={} if cases.by_class else score_slices(first.labels, first.any_class),
        position=comparison.position_auroc,
        notes=comparison.notes,
        interval=format_interval,
        number="{:.3f}".format,
    )


def _name_columns(cases: Cases) -> Sequence[str]:
    """Return what the columns are called that not all tables have."""
    if cases.by_class:
        return cases.classes
    if not cases.pictures:
        return ("HD95, mm", "false ml")
    count = np.count_nonzero(cases.findings)
    return (
        f"without mask, of {count}",
        f"masked, of {len(cases.cases) - count} without {cases.classes[0]}",
    )


def _list_cells(comparison: Comparison, row: Row) -> list[str]:
    difference, cases = find_difference(comparison, row), comparison.cases
    if cases.by_class:
        further = [f"{dice:.3f}" for dice in find_class_dice(comparison, row).values()]
    elif cases.pictures:
        further = [f"{count(row):g}" for count in (comparison.count_missed, comparison.count_false)]
    else:
        further = [show(row.mean("hd95"), 1), f"{row.mean('false_size'):.1f}"]
    return [
        row.name + ("" if row.level is None else f" (mean + {row.level:g} SD)"),
        f"({row.rule})",
        "yes" if row.label_free else "no",
        str(row.n_counted),
        format_interval(comparison.find_dice(row)),
        f"{row.median_dice:.3f}",
        f"{row.mean('iou'):.3f}",
        *further,
        format_interval(difference, "+") if difference else "the best baseline",
    ]


def format_interval(interval: Interval, sign: str = "") -> str:
    """Return "mean [low, high]"."""
    mean, low, high = (format(value, f"{sign}.3f") for value in interval)
    return f"{mean} [{low}, {high}]"


def _replace_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
