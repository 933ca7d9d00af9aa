"""The commands of the extra: evaluate, compare, retrain, simulate.

`heatmask --help` lists them without it too; each says then what to install.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from heatmask.bundle import DEFAULT_BUNDLE
from heatmask.command_line import Bundle, Device, Options, Pattern, console, read_options
from heatmask.errors import OptionError, raise_failures

if TYPE_CHECKING:
    from heatmask.experiments.cases import Cases

_OF_THE_DATA = ("reference_pattern", "slice_labels", "patients", "labels")
"""Options of `evaluate` that say where the data are, and are none of the bundle's."""


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with patients.csv, slice_labels.csv and one folder per patient; or, for a "
            "bundle of 2D pictures, with labels.csv (image, mask, label, split) and its files."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "evaluation"
    ),
    bundle: Bundle = DEFAULT_BUNDLE,
    split: Annotated[str, typer.Option(help="Which lines of patients.csv or labels.csv.")] = "test",
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoints to score instead of the bundle's; repeat for more seeds."),
    ] = None,
    pattern: Pattern = None,
    device: Device = "auto",
    options: Options = None,
) -> None:
    """Score a bundle on patients with reference masks, beside baselines without learning.

    Writes evaluation.md, evaluation.png, per_patient.csv and summary.json: per-volume Dice
    (mean, median, 95 % bootstrap interval over patients), IoU, slice AUROC. Every slice of
    every volume counts, and nothing is tuned on these masks. Of 2D pictures: Dice and classes
    per picture, in per_picture.csv; for a bundle of one class also AUROC and how many
    pictures without a finding, which need no mask, are masked. What cannot be scored is
    named at the end, with exit status 1, and stops no other.
    """
    _check_installed()
    from rich.markdown import Markdown

    from heatmask.bundle import find_bundle
    from heatmask.experiments.cases import Place
    from heatmask.experiments.one_bundle import evaluate_bundle
    from heatmask.experiments.one_bundle_page import write_evaluation

    chosen = read_options(options)
    tables: dict[str, Any] = {n: str(chosen.pop(n)) for n in _OF_THE_DATA if n in chosen}
    place = Place(str(data), split=split, pattern=pattern, device=device, **tables)
    first, *further = weights or (None,)
    chosen |= {"weights": str(first)} if first else {}
    comparison = evaluate_bundle(
        find_bundle(bundle), place, chosen, [str(path) for path in further]
    )
    paths = write_evaluation(comparison, output)
    console.print(Markdown((output / "evaluation.md").read_text("utf-8")))
    names = ", ".join(sorted(path.name for path in paths if path.suffix != ".json"))
    console.print(f"Written to {escape(str(output))}: {names}")
    _raise_left_out(comparison.cases, "picture" if comparison.cases.pictures else "patient")


def compare(
    data: Annotated[
        Path,
        typer.Argument(help="As for evaluate: a folder with patients.csv or labels.csv and masks."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the report goes.")] = Path(
        "comparison"
    ),
    bundle: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: all that fit the data.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable, for every bundle; default: each bundle's own and grad_cam, and "
            "all of the bundle that offers the most."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Only single-pass methods, and one seed of retraining.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="How many seeds the retraining uses.")] = 3,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out few-masks, retraining, faithfulness or cascade; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="What is reported on.")] = "test",
    given: Annotated[str, typer.Option(help="Split whose masks rule (b) may use.")] = "val",
    cache: Annotated[
        Path | None, typer.Option(help="Results of earlier runs; default: OUTPUT/cache.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: one a core, one on a GPU.")
    ] = None,
    pattern: Pattern = None,
    device: Device = "auto",
) -> None:
    """Compare bundles, attribution methods and thresholds on masks, with every control.

    Writes report.html (one file, also for a phone), rows.csv, compare.csv and summary.json: Dice,
    outlines, pointing, baselines, random weights, a U-Net on a few masks, retraining on filtered
    images, classification, confidence and faithfulness. What is computed is kept in CACHE under
    the hash of weights, settings, data and code: a run that stopped goes on, and a second one
    computes nothing. What cannot be scored is named at the end, with exit status 1, and stops
    no other.
    """
    _check_installed()
    from heatmask.experiments.cases import Place
    from heatmask.experiments.gather import compare
    from heatmask.experiments.page import write_report
    from heatmask.experiments.plan import PARTS, Request
    from heatmask.experiments.sentences import summarise

    unknown = sorted({*(without or ())} - {*PARTS})
    if unknown:
        raise OptionError(f"--without must be of {', '.join(PARTS)}, got {', '.join(unknown)}.")
    parts = tuple(part for part in PARTS if part not in (without or ()))
    folder = cache or output / "cache"
    request = Request(tuple(bundle or ()), tuple(method or ()), quick, seeds, jobs, parts)
    place = Place(str(data.resolve()), str(folder.resolve()), split, given, pattern, device)
    comparison = compare(request, place)
    paths = write_report(comparison, output, shlex.join(["heatmask", *sys.argv[1:]]))
    for line in summarise(comparison):
        console.print(f"  {escape(line)}")
    console.print(f"Written: {', '.join(escape(str(path)) for path in paths)}")
    _raise_left_out(comparison.cases, comparison.cases.unit)


def retrain(
    data: Annotated[Path, typer.Argument(help="As for compare.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "retraining"
    ),
    bundle: Annotated[
        str | None,
        typer.Option(help="Default: the first that works slice by slice and offers grad_cam."),
    ] = None,
    quantile: Annotated[
        list[float] | None,
        typer.Option(help="Share of the head that a mask holds; repeatable. Default: .05 .15 .4"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each condition.")] = 3,
    cache: Annotated[Path | None, typer.Option(help="As for compare.")] = None,
    jobs: Annotated[int | None, typer.Option(help="As for compare.")] = None,
    pattern: Pattern = None,
    device: Device = "auto",
) -> None:
    """Train a bundle's network anew on images filtered by its Grad-CAM, beside the controls.

    Keeps or removes the hottest part of every head, a random blob of the same area, another
    patient's mask, the mask's shape alone, and reference masks; writes retraining.csv and
    retraining.png. A classifier that does as well on the hottest part needs no more; one that
    does as well without it does not need it.
    """
    _check_installed()
    from rich.table import Table

    from heatmask.experiments.cases import Place
    from heatmask.experiments.gather import retrain
    from heatmask.experiments.page import write_retraining
    from heatmask.experiments.retraining import QUANTILES
    from heatmask.experiments.sentences import describe_retraining, judge_retraining
    from heatmask.experiments.tables import tabulate_outcomes

    folder = cache or output / "cache"
    place = Place(str(data.resolve()), str(folder.resolve()), pattern=pattern, device=device)
    comparison = retrain(bundle, place, seeds, tuple(quantile or QUANTILES), jobs)
    found = tabulate_outcomes(comparison)
    table = Table(*found.header)
    for row in found.rows:
        table.add_row(*row)
    console.print(table)
    for line in (describe_retraining(comparison), *judge_retraining(comparison)):
        console.print(f"  {escape(line)}")
    paths = write_retraining(comparison, output)
    console.print(f"Written: {', '.join(escape(str(path)) for path in paths)}")


def simulate(
    data: Annotated[Path, typer.Argument(help="As for evaluate: scans with reference masks.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "simulation"
    ),
    bundle: Bundle = DEFAULT_BUNDLE,
    edits: Annotated[int, typer.Option(min=1, max=100, help="How many edits each case gets.")] = 10,
    strokes: Annotated[bool, typer.Option("--strokes", help="Lines instead of clicks.")] = False,
    split: Annotated[str, typer.Option(help="Which lines of patients.csv or labels.csv.")] = "test",
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Play at most this many cases, spread evenly over the split."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Heatmaps of earlier runs; default: OUTPUT/cache.")
    ] = None,
    pattern: Pattern = None,
    device: Device = "auto",
    options: Options = None,
) -> None:
    """Play a user who corrects the bundle's masks by clicks or strokes, and count them.

    Each goes to the middle of the largest error. The engine begins with the pseudo-mask, with an
    empty mask that gets a piece of the pseudo-mask when it is clicked, and with an empty mask
    alone; a graph cut from the same edits stands beside it. Writes simulation.json, simulation.csv
    and simulation.png: Dice after 0 to 10 edits, edits to a Dice of 0.85 and 0.90, and what is
    left to paint. What cannot be played is named at the end, with exit status 1.
    """
    _check_installed()
    from rich.table import Table

    from heatmask.bundle import find_bundle
    from heatmask.experiments.cases import Place
    from heatmask.experiments.simulation import simulate
    from heatmask.experiments.simulation_page import summarise_courses, write_simulation

    folder = cache or output / "cache"
    place = Place(str(data), str(folder), split, pattern=pattern, device=device)
    settings = read_options(options)
    cases, courses = simulate(find_bundle(bundle), place, settings, edits, strokes, most)
    paths = write_simulation(cases, courses, output)
    rows = summarise_courses(courses)
    names = [name for name in rows[0] if name.startswith(("dice_", "edits_")) and "int" not in name]
    table = Table("begins with", *(name.replace("_", " ") for name in names))
    for row in rows:
        table.add_row(row["start"], *(f"{row[name]:.2f}" for name in names))
    console.print(table)
    console.print(f"Written: {', '.join(escape(str(path)) for path in paths)}")
    _raise_left_out(cases, cases.unit)


def _check_installed() -> None:
    """Refuse to begin without the library that only experiments need."""
    from importlib.util import find_spec

    if not find_spec("joblib"):
        raise OptionError(
            "Experiments need further libraries: python -m pip install 'heatmask[experiments]'."
        )


def _raise_left_out(cases: "Cases", unit: str) -> None:
    raise_failures(cases.left_out, cases.n_asked, f"{unit}s")
