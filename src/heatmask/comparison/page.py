"""A comparison on paper: report.html, which needs nothing beside it, two CSVs and summary.json."""

import base64
import csv
import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from heatmask import __version__
from heatmask.comparison import class_tables, figures, sentences, tables
from heatmask.comparison.entries import RANDOM
from heatmask.comparison.figures import Picture
from heatmask.comparison.glossary import GLOSSARY
from heatmask.comparison.results import KEYS, Comparison, Row
from heatmask.comparison.tables import Table
from heatmask.errors import OutputError
from heatmask.evaluation.segmentation import EMPTY_RULE
from heatmask.evaluation.surface import SURFACE_RULE

LIMITS = (
    "Pseudo-masks are for research and to be corrected by a radiologist: not a diagnosis, and not "
    "a medical device."
)


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    lines: Sequence[str] = ()
    found: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()

    @property
    def anchor(self) -> str:
        """Its name within the page."""
        return "-".join(self.title.lower().split())


def write_report(comparison: Comparison, folder: str | Path, command: str) -> list[Path]:
    """Write everything to a folder, each file whole or not at all; return the paths.

    Parameters
    ----------
    comparison
        What was found.
    folder
        Made if need be.
    command
        The command line, for the page.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    texts = {
        "report.html": format_page(comparison, command),
        "rows.csv": format_rows(comparison),
        "compare.csv": format_subjects(comparison),
        "summary.json": format_summary(comparison, command),
    }
    return [_write(Path(folder) / name, text) for name, text in texts.items()]


def write_retraining(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write retraining.csv and retraining.png; see `write_report`."""
    table = tables.tabulate_outcomes(comparison)
    picture = base64.b64decode(figures.draw_outcomes(comparison).data)
    return [
        _write(Path(folder) / "retraining.csv", _format_csv(table.header, table.rows)),
        _write(Path(folder) / "retraining.png", picture),
    ]


def format_page(comparison: Comparison, command: str) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("heatmask.comparison", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    what = "pictures" if comparison.subjects.pictures else "volumes"
    return environment.get_template("report.html.j2").render(
        title=f"Heatmask: masks from classifiers on {comparison.settings['data']}, "
        f"{comparison.subjects.split}",
        lead=f"{len(comparison.subjects.subjects)} {what}, "
        f"{len(set(comparison.subjects.clusters))} "
        f"{'groups' if comparison.subjects.pictures else 'patients'}, every slice counted.",
        sections=list_sections(comparison),
        command=command,
        version=__version__,
        limits=LIMITS,
        glossary=GLOSSARY,
    )


def list_sections(comparison: Comparison) -> list[Section]:
    """Return the parts of the page; an experiment that was not run has none."""
    paper = [class_tables.tabulate_slices(comparison)]
    sections = [
        Section("In short", sentences.summarise(comparison), [], [figures.draw_masks(comparison)]),
        Section("Masks", _explain_rules(comparison), [tables.tabulate_masks(comparison)]),
        Section("Thresholds", (), [tables.tabulate_rules(comparison)]),
        Section("Lesion size", (), [tables.tabulate_strata(comparison)]),
        Section(
            "Attribution methods and random weights",
            sentences.judge_controls(comparison),
            [tables.tabulate_controls(comparison)],
        ),
    ]
    if comparison.outcomes:
        lines = [sentences.describe_retraining(comparison), *sentences.judge_retraining(comparison)]
        sections.append(
            Section(
                "Retraining on filtered images",
                lines,
                [tables.tabulate_outcomes(comparison)],
                [figures.draw_outcomes(comparison)],
            )
        )
    sections += [
        Section(
            "Classification",
            (),
            [class_tables.tabulate_classes(comparison), *(table for table in paper if table.rows)],
            [figures.draw_curves(comparison)],
        ),
        Section(
            "Confidence",
            (),
            [class_tables.tabulate_confidence(comparison)],
            [figures.draw_risk(comparison), figures.draw_confidence(comparison)],
        ),
    ]
    faithful = [tables.tabulate_faithfulness(comparison)] if comparison.faithfulness else []
    forgetful = [tables.tabulate_cascades(comparison)] if comparison.cascades else []
    if faithful or forgetful:
        drawn = [figures.draw_cascades(comparison)] if forgetful else []
        lines = [*sentences.judge_faithfulness(comparison), *sentences.judge_cascades(comparison)]
        sections.append(Section("Faithfulness", lines, [*faithful, *forgetful], drawn))
    refused = tables.tabulate_refused(comparison)
    sections.append(Section("Published numbers", (), [tables.tabulate_published()]))
    sections.append(Section("Left out", comparison.notes, [refused] if refused.rows else []))
    return sections


def _explain_rules(comparison: Comparison) -> list[str]:
    lines = [EMPTY_RULE, SURFACE_RULE + f" Its tolerance is 2 {comparison.unit}."]
    if comparison.subjects.pictures:
        lines.append("Pictures have no spacing: everything is in pixels, never mm.")
        lines.append("Intervals are drawn over groups, a guess at patients.")
    else:
        lines.append(
            "mm and ml are as the files' spacing has them; where that is nominal, as on the LGG "
            "set, so are they."
        )
    return lines


def format_rows(comparison: Comparison) -> str:
    """Return a CSV with one line per row: means over subjects, and the interval of Dice."""
    header = ("name", "kind", "rule", "threshold", "n", "dice_low", "dice_high", "dice_median")
    lines = []
    for row in comparison.rows:
        dice = row.scores["dice"]
        counted = dice[~np.isnan(dice)]
        _, low, high = comparison.find_interval(dice)
        median = np.median(counted) if counted.size else math.nan
        means = [row.mean(key) for key in KEYS]
        values = [low, high, float(median), *means]
        lines.append((row.name, row.kind, row.rule, row.how, counted.size, *map(_show, values)))
    return _format_csv((*header, *KEYS), lines)


def format_subjects(comparison: Comparison) -> str:
    """Return a CSV with one line per row and subject, but for single draws of random weights."""
    header = ("subject", "cluster", "name", "kind", "rule", "threshold", *KEYS)
    lines = []
    rows = [row for row in comparison.rows if not row.entry or row.entry.control in ("", RANDOM)]
    for row in rows:
        for number, subject in enumerate(comparison.subjects.subjects):
            values = [_pick(row, key, number) for key in KEYS]
            lines.append(
                (subject.name, subject.cluster, row.name, row.kind, row.rule, row.how, *values)
            )
    return _format_csv(header, lines)


def format_summary(comparison: Comparison, command: str) -> str:
    """Return the sentences and tables as strict JSON."""
    content = {
        "command": command,
        "version": __version__,
        "settings": comparison.settings,
        "left_out": dict(comparison.subjects.left_out),
        "sections": [
            {
                "title": section.title,
                "lines": list(section.lines),
                "tables": [
                    {"title": t.title, "header": t.header, "rows": t.rows, "note": t.note}
                    for t in section.found
                ],
            }
            for section in list_sections(comparison)
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _pick(row: Row, key: str, number: int) -> str:
    values = row.get(key)
    return "" if values is None else _show(float(values[number]))


def _show(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _format_csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def _write(path: Path, content: str | bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
            draft = Path(beside) / path.name
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"The report must be written to {path}, which failed: {error.strerror or error}. "
            "Give a folder that you may write to."
        ) from error
    return path
