"""A comparison on paper: report.html, which needs nothing beside it, two CSVs and summary.json."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from heatmask import __version__
from heatmask.experiments import class_tables, figures, sentences, tables
from heatmask.experiments.entries import RANDOM
from heatmask.experiments.figures import Picture
from heatmask.experiments.files import format_csv, write_files
from heatmask.experiments.metrics import SURFACE_RULE
from heatmask.experiments.overlap import EMPTY_RULE
from heatmask.experiments.results import KEYS, NAN, Comparison
from heatmask.experiments.tables import Table
from heatmask.files import render


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
    sections = list_sections(comparison)
    texts = {
        "report.html": render(
            __package__,
            "report.html.j2",
            comparison=comparison,
            cases=comparison.cases,
            sections=sections,
            command=command,
            version=__version__,
        ),
        "rows.csv": format_rows(comparison),
        "compare.csv": format_cases(comparison),
        "summary.json": format_summary(comparison, sections, command),
    }
    return write_files(folder, texts)


def write_retraining(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write retraining.csv and retraining.png; see `write_report`."""
    table = tables.tabulate_outcomes(comparison)
    picture = base64.b64decode(figures.draw_outcomes(comparison).data)
    text = format_csv(table.header, table.rows)
    return write_files(folder, {"retraining.csv": text, "retraining.png": picture})


def list_sections(comparison: Comparison) -> list[Section]:
    """Return the parts of the page; an experiment that was not run has none."""
    one = comparison
    sections = [
        Section("In short", sentences.summarise(one), [], [figures.draw_masks(one)]),
        Section("Masks", _explain_rules(one), [tables.tabulate_masks(one)]),
        Section("Thresholds", (), [tables.tabulate_rules(one)]),
        Section("Lesion size", (), [tables.tabulate_strata(one)]),
        Section(
            "Attribution methods and random weights",
            sentences.judge_controls(one),
            [tables.tabulate_controls(one)],
        ),
    ]
    if one.outcomes:
        lines = [sentences.describe_retraining(one), *sentences.judge_retraining(one)]
        found, drawn = tables.tabulate_outcomes(one), figures.draw_outcomes(one)
        sections.append(Section(found.title, lines, [found], [drawn]))
    classes = [class_tables.tabulate_classes(one), class_tables.tabulate_slices(one)]
    sections += [
        Section("Classification", (), _drop_empty(classes), [figures.draw_curves(one)]),
        Section(
            "Confidence",
            (),
            [class_tables.tabulate_confidence(one)],
            [figures.draw_risk(one), figures.draw_confidence(one)],
        ),
    ]
    faithful = _drop_empty([tables.tabulate_faithfulness(one), tables.tabulate_cascades(one)])
    if faithful:
        pictures = [figures.draw_cascades(one)] if one.cascades else []
        lines = [*sentences.judge_faithfulness(one), *sentences.judge_cascades(one)]
        sections.append(Section("Faithfulness", lines, faithful, pictures))
    return [
        *sections,
        Section("Published numbers", (), [tables.tabulate_published()]),
        Section("Left out", one.notes, _drop_empty([tables.tabulate_refused(one)])),
    ]


def _drop_empty(found: Sequence[Table]) -> list[Table]:
    return [table for table in found if table.rows]


def _explain_rules(comparison: Comparison) -> list[str]:
    lines = [EMPTY_RULE, SURFACE_RULE + f" Its tolerance is 2 {comparison.unit}."]
    if not comparison.cases.pictures:
        nominal = "where that is nominal, as on the LGG set, so are they."
        return [*lines, f"mm and ml are as the files' spacing has them; {nominal}"]
    lines.append("Pictures have no spacing: everything is in pixels, never mm.")
    return [*lines, "Intervals are drawn over groups, a guess at patients."]


def format_rows(comparison: Comparison) -> str:
    """Return a CSV with one line per row: means over cases, and the interval of Dice."""
    header = ("name", "kind", "rule", "threshold", "n", "dice_low", "dice_high", "dice_median")
    lines = []
    for row in comparison.rows:
        _, *ends = comparison.find_dice(row)
        values = [*ends, row.median_dice, *map(row.mean, KEYS)]
        lines.append((row.name, row.kind, row.rule, row.how, row.n_counted, *values))
    return format_csv((*header, *KEYS), lines)


def format_cases(comparison: Comparison) -> str:
    """Return a CSV with one line per row and case, but for single draws of random weights."""
    header = ("subject", "cluster", "name", "kind", "rule", "threshold", *KEYS)
    lines = []
    for row in comparison.rows:
        if row.entry and row.entry.control not in ("", RANDOM):
            continue
        for number, case in enumerate(comparison.cases.cases):
            own = (float(row.scores[key][number]) if key in row.scores else NAN for key in KEYS)
            lines.append((case.name, case.cluster, row.name, row.kind, row.rule, row.how, *own))
    return format_csv(header, lines)


def format_summary(comparison: Comparison, sections: Sequence[Section], command: str) -> str:
    """Return the sentences and tables as strict JSON."""
    content = {
        "command": command,
        "version": __version__,
        "settings": comparison.settings,
        "left_out": dict(comparison.cases.left_out),
        "sections": [
            {"title": s.title, "lines": list(s.lines), "tables": [asdict(t) for t in s.found]}
            for s in sections
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
