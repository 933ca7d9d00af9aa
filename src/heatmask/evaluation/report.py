"""An evaluation on paper: per_patient.csv, summary.json, evaluation.md and evaluation.png."""

import csv
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from heatmask.errors import OutputError
from heatmask.evaluation.bootstrap import Interval
from heatmask.evaluation.figure import draw_evaluation
from heatmask.evaluation.protocol import Evaluation
from heatmask.evaluation.segmentation import EMPTY_RULE
from heatmask.evaluation.table import Row, ScoreTable

RULES = {
    "a": "without any mask",
    "b": "with a few validation masks",
    "c": "on the reported masks themselves: an upper bound, no result",
}
SCORE_KEYS = ("dice", "iou", "mask_ml", "reference_ml", "tumour_free_slices_ml")


def write_evaluation(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Write all four files into `folder`, made if need be, and return their paths by name.

    Each file appears whole or not at all. A folder that cannot be written to raises
    `OutputError`.
    """
    texts = {
        "per_patient.csv": format_csv(evaluation),
        "summary.json": format_json(evaluation),
        "evaluation.md": format_markdown(evaluation),
    }
    return write_files(folder, texts, draw_evaluation(evaluation))


def format_csv(evaluation: Evaluation) -> str:
    """One line per patient and method; a score that is not counted is left empty."""
    return format_lines(evaluation, {"patient": evaluation.patients}, SCORE_KEYS)


def format_json(evaluation: Evaluation) -> str:
    """Everything but the patients' rows, as strict JSON: NaN becomes null."""
    deciles = evaluation.deciles
    summary = {
        "n_patients": len(evaluation.patients),
        "n_slices": len(evaluation.slices.labels),
        "rules": RULES,
        "empty_rule": EMPTY_RULE,
        "best_label_free_floor": evaluation.best_floor.name,
        "methods": [
            summarise_row(row, {"mean_tumour_free_slices_ml": _measure_false_ml(evaluation, row)})
            for row in evaluation.rows
        ],
        "slices": {
            **evaluation.slice_scores,
            "position_only_auroc": evaluation.position_auroc,
            "auroc_within_deciles": deciles._asdict(),
            "intervals": {n: i._asdict() for n, i in evaluation.slice_intervals.items()},
        },
        "notes": list(evaluation.notes),
        "left_out": dict(evaluation.left_out),
    }
    return dump_strictly(summary)


def format_markdown(evaluation: Evaluation) -> str:
    """Return the table of methods, the slice scores and the rules they follow, as Markdown."""
    header = (
        "| method | threshold | label-free | patients | mean Dice [95 %] | median | mean IoU "
        "| false ml | difference to the best floor [95 %] |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    rows = (
        format_row(row, [f"{_measure_false_ml(evaluation, row):.1f}"]) for row in evaluation.rows
    )
    parts = [header, *rows, "", *(f"- {line}" for line in _explain_table(evaluation))]
    return "\n".join(parts) + "\n"


def _explain_table(evaluation: Evaluation) -> list[str]:
    scores, deciles = evaluation.slice_scores, evaluation.deciles
    found = {name: format_interval(i) for name, i in evaluation.slice_intervals.items()}
    position = evaluation.position_auroc
    lines = [
        *explain_left_out(evaluation.left_out, evaluation.n_asked, "patients"),
        f"Dice per volume, {len(evaluation.patients)} patients, every slice; intervals are "
        "percentile bootstraps over patients.",
        *explain_rules(evaluation),
        f"{EMPTY_RULE} The column patients holds those that are counted.",
        "False ml: mean volume found on slices without tumour.",
        f"Slices ({len(evaluation.slices.labels)}): AUROC {found['auroc']}, average "
        f"precision {scores['average_precision']:.3f}, F1 {found['f1']} and accuracy "
        f"{scores['accuracy']:.3f} at 0.5, calibration error {scores['ece']:.3f}.",
        f"AUROC within tenths of the stack: {found['auroc_within_deciles']} on average over "
        f"{10 - len(deciles.excluded)}; left out for want of both classes: "
        f"{', '.join(str(d + 1) for d in deciles.excluded) or 'none'} (counted from 1).",
    ]
    if not math.isnan(position):
        lines.append(f"A table that knows only the slice's position: AUROC {position:.3f}.")
    return lines + list(evaluation.notes)


def _measure_false_ml(evaluation: Evaluation, row: Row) -> float:
    return float(evaluation.column(row.method.name, "tumour_free_slices_ml").mean())


def write_files(folder: Path, texts: Mapping[str, str], figure: Figure) -> dict[str, Path]:
    """Write texts by file name and ``evaluation.png``, as `write_evaluation` does."""
    writers: dict[str, Callable[[Path], Any]] = {
        name: partial(_write_text, text=text) for name, text in texts.items()
    }
    writers["evaluation.png"] = lambda path: figure.savefig(path, format="png", dpi=160)
    return {name: _write_whole(folder / name, write) for name, write in writers.items()}


def format_lines(
    table: ScoreTable, cases: Mapping[str, Sequence[object]], keys: Sequence[str]
) -> str:
    """Return a CSV with a line per case and method.

    `cases` holds the columns that tell one case from another; `keys` are the scores.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*cases, "method", "rule", "label_free", *keys))
    for number, case in enumerate(zip(*cases.values(), strict=True)):
        for method in table.methods:
            scores = table.scores[method.name][number]
            values = ("" if math.isnan(scores[k]) else f"{scores[k]:.6g}" for k in keys)
            writer.writerow((*case, method.name, method.rule, method.label_free, *values))
    return text.getvalue()


def explain_left_out(left_out: Mapping[str, str], total: int, items: str) -> list[str]:
    """Return a text that counts and names what was not scored, and why; nothing if all was."""
    if not left_out:
        return []
    named = " ".join(f"{name}: {reason}" for name, reason in left_out.items())
    return [f"Left out: {len(left_out)} of {total} {items}. {named}"]


def explain_rules(table: ScoreTable) -> list[str]:
    """Return the sentences on thresholds and on the floor that others are compared with."""
    return [
        "Threshold chosen " + "; ".join(f"({key}) {text}" for key, text in RULES.items()) + ".",
        f"The best label-free floor is {table.best_floor.name}; differences are paired.",
    ]


def format_row(row: Row, further: Sequence[str]) -> str:
    """Return a line of the Markdown table; `further` cells stand before the difference."""
    method = row.method
    level = "" if method.level is None else f" (mean + {method.level:g} SD)"
    cells = (
        f"{method.name}{level}",
        f"({method.rule})",
        "yes" if method.label_free else "no",
        str(row.n_counted),
        format_interval(row.dice),
        f"{row.median_dice:.3f}",
        f"{row.mean_iou:.3f}",
        *further,
        "the best floor" if row.difference is None else format_interval(row.difference, "+"),
    )
    return f"| {' | '.join(cells)} |"


def format_interval(interval: Interval, sign: str = "") -> str:
    """Return "mean [low, high]"."""
    mean, low, high = (format(value, f"{sign}.3f") for value in interval)
    return f"{mean} [{low}, {high}]"


def summarise_row(row: Row, further: Mapping[str, Any]) -> dict[str, Any]:
    """Return what summary.json holds of a row."""
    return {
        **asdict(row.method),
        "n_counted": row.n_counted,
        "mean_dice": row.dice._asdict(),
        "median_dice": row.median_dice,
        "mean_iou": row.mean_iou,
        **further,
        "difference_to_best_floor": row.difference and row.difference._asdict(),
    }


def dump_strictly(summary: Mapping[str, Any]) -> str:
    """Return strict JSON: NaN becomes null."""
    return json.dumps(_replace_nan(dict(summary)), indent=2, allow_nan=False) + "\n"


def _replace_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write beside `path` and move it there, so that no half file is ever seen."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
            draft = Path(beside) / path.name
            write(draft)
            os.replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"The evaluation must be written to {path}, which failed: {error.strerror or error}. "
            "Give a folder that you may write to."
        ) from error
    return path
