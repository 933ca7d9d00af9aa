"""The `heatmask` command, thin over the bundles' configs.

torch and MONAI take seconds to import, so each command imports what it needs, and
`heatmask --help` nothing of it.
"""

import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import get_console
from rich.console import Console
from rich.markup import escape

from heatmask import __version__
from heatmask.bundle import DEFAULT_BUNDLE
from heatmask.errors import HeatmaskError, OptionError

app = typer.Typer(
    name="heatmask",
    help="Image-level classifiers, explained, as segmenters: one MRI in, a heatmap and a "
    "pseudo-mask to correct in 3D Slicer out.",
    epilog="Start with: heatmask demo   then: heatmask segment SCAN   and: heatmask serve STUDIES. "
    "Pseudo-masks are for research and to be corrected by a radiologist: not a diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = get_console()  # The progress bars' own, so that lines appear above the bar

Bundle = Annotated[
    str, typer.Option(help="Name of a bundle in bundles/, or the path of its folder.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]
Knobs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KNOB=VALUE",
        help="Any other knob of the bundle's config, such as batch_size=4 or, below one, "
        "network_def#features=32. Repeatable.",
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(help='File names to take from a folder, such as "*-t2f.nii.gz".'),
]


@app.command()
def demo(
    image: Annotated[
        Path | None, typer.Option(help="A scan of your own instead of the synthetic brain.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo"),
    bundle: Bundle = DEFAULT_BUNDLE,
    device: Device = "auto",
) -> None:
    """Segment a synthetic brain with a known lesion, or your own scan, and show the picture.

    Works offline. The synthetic brain is generated, not a patient; its lesion is known, so the
    command ends with the Dice of the pseudo-mask against it.
    """
    from heatmask.demo import run_demo

    run_demo(image, output, bundle, device, console)


@app.command()
def segment(
    scan: Annotated[
        Path,
        typer.Argument(
            help="A NIfTI, an NRRD, a DICOM series folder, or a folder searched for scans."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "output"
    ),
    bundle: Bundle = DEFAULT_BUNDLE,
    pattern: Pattern = None,
    device: Device = "auto",
    threshold_rule: Annotated[
        str | None, typer.Option(help="otsu, multi_otsu (stricter) or level.")
    ] = None,
    threshold_level: Annotated[
        float | None,
        typer.Option(help="Heatmap value for the rule level, in logits: 0 is even odds."),
    ] = None,
    min_volume_mm3: Annotated[
        float | None, typer.Option(help="Objects smaller than this are dropped.")
    ] = None,
    gate: Annotated[
        bool | None,
        typer.Option("--gate/--no-gate", help="Mask only slices predicted to hold a tumour."),
    ] = None,
    snap: Annotated[
        bool | None, typer.Option("--snap/--no-snap", help="Fit the mask's border to the scan.")
    ] = None,
    slice_axis: Annotated[str | None, typer.Option(help="axial, coronal or sagittal.")] = None,
    knobs: Knobs = None,
) -> None:
    """Make heatmap, pseudo-mask, report and picture of a scan, or of every scan in a folder.

    Each case gets a folder in OUTPUT with CASE_mask.nii.gz (labels), CASE_heatmap.nii.gz
    (0 to 1), report.json and overview.png. A scan that fails is reported at the end and
    stops no other. Options left out are the bundle's own.
    """
    from heatmask.bundle import find_bundle, read_bundle, run_bundle

    given = {
        "threshold_rule": threshold_rule,
        "threshold_level": threshold_level,
        "min_volume_mm3": min_volume_mm3,
        "gate": gate,
        "snap": snap,
        "slice_axis": None if slice_axis is None else read_axis(slice_axis),
        "pattern": pattern,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"input": str(scan), "output_dir": str(output), "device": device}
    parser = read_bundle(find_bundle(bundle), knobs={**settings, **read_knobs(knobs)})
    segmenter = run_bundle(parser, "evaluator")
    segmenter.run(show_report)


@app.command()
def serve(
    studies: Annotated[Path, typer.Argument(help="A folder searched for scans; it is only read.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    device: Device = "auto",
    workdir: Annotated[
        Path | None, typer.Option(help="Where index and labels are kept; default work/serve.")
    ] = None,
    pattern: Pattern = None,
) -> None:
    """Serve every bundle to 3D Slicer through MONAI Label.

    In Slicer: module MONAI Label, server http://127.0.0.1:8000, Next Sample, Run, correct the
    mask, Submit Label. There is no authentication: keep it on your own machine.
    """
    from heatmask.serving.server import start_server

    start_server(studies, host, port, device, workdir, pattern=pattern)


@app.command()
def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with patients.csv, slice_labels.csv and a folder a patient; or, for a "
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
    knobs: Knobs = None,
) -> None:
    """Score a bundle on patients with reference masks, beside floors without learning.

    Writes evaluation.md, evaluation.png, per_patient.csv and summary.json: per-volume Dice
    (mean, median, 95 % bootstrap interval over patients), IoU, slice AUROC. Every slice of
    every volume counts, and nothing is tuned on these masks. Of 2D pictures: Dice and classes
    per picture, in per_picture.csv.
    """
    from rich.markdown import Markdown

    from heatmask.bundle import find_bundle, read_bundle, run_bundle

    settings: dict[str, Any] = {"dataset_dir": str(data), "output_dir": str(output)}
    settings |= {"split": split, "device": device}
    if pattern:
        settings["pattern"] = pattern
    if weights:
        settings["weights"] = str(weights[0])
        settings["further_weights"] = [str(path) for path in weights[1:]]
    configs = ("inference", "evaluate")
    parser = read_bundle(find_bundle(bundle), configs, {**settings, **read_knobs(knobs)})
    (evaluation,) = run_bundle(parser)
    folder = Path(parser.get_parsed_content("output_dir"))
    console.print(Markdown((folder / "evaluation.md").read_text("utf-8")))
    files = f"evaluation.md, evaluation.png, per_{evaluation.unit}.csv"
    console.print(f"Written to {escape(str(folder))}: {files}")


@app.command()
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
    seeds: Annotated[int, typer.Option(help="Of retraining on filtered images.")] = 3,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out few-masks, retraining, faithfulness or cascade; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="What is reported on.")] = "test",
    given: Annotated[str, typer.Option(help="Whose masks rule (b) may use.")] = "val",
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
    outlines, pointing, floors, random weights, a U-Net on a few masks, retraining on filtered
    images, classification, confidence and faithfulness. What is computed is kept in CACHE under
    the hash of weights, settings, data and code: a run that stopped goes on, and a second one
    computes nothing.
    """
    from heatmask.comparison.gather import PARTS, Request, compare
    from heatmask.comparison.page import write_report
    from heatmask.comparison.sentences import summarise
    from heatmask.comparison.work import Place

    unknown = sorted({*(without or ())} - {*PARTS})
    if unknown:
        raise OptionError(f"--without must be of {', '.join(PARTS)}, got {', '.join(unknown)}.")
    if seeds < 1:
        raise OptionError(f"--seeds must be at least 1, got {seeds}.")
    parts = tuple(part for part in PARTS if part not in (without or ()))
    folder = cache or output / "cache"
    request = Request(tuple(bundle or ()), tuple(method or ()), quick, seeds, jobs, parts)
    place = Place(str(data.resolve()), str(folder.resolve()), split, given, pattern, device)
    comparison = compare(request, place)
    paths = write_report(comparison, output, shlex.join(["heatmask", *sys.argv[1:]]))
    for line in summarise(comparison):
        console.print(f"  {escape(line)}")
    console.print(f"Written: {', '.join(escape(str(path)) for path in paths)}")


@app.command()
def retrain(
    data: Annotated[Path, typer.Argument(help="As for compare.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "retraining"
    ),
    bundle: Annotated[
        str | None, typer.Option(help="Default: the first of slices that offers grad_cam.")
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
    from rich.table import Table

    from heatmask.comparison.gather import retrain
    from heatmask.comparison.page import write_retraining
    from heatmask.comparison.retraining import QUANTILES
    from heatmask.comparison.sentences import judge_retraining
    from heatmask.comparison.tables import tabulate_outcomes
    from heatmask.comparison.work import Place

    folder = cache or output / "cache"
    place = Place(str(data.resolve()), str(folder.resolve()), pattern=pattern, device=device)
    comparison = retrain(bundle, place, seeds, tuple(quantile or QUANTILES), jobs)
    found = tabulate_outcomes(comparison)
    table = Table(*found.header)
    for row in found.rows:
        table.add_row(*row)
    console.print(table)
    for line in judge_retraining(comparison):
        console.print(f"  {escape(line)}")
    paths = write_retraining(comparison, output)
    console.print(f"Written: {', '.join(escape(str(path)) for path in paths)}")


@app.command()
def train(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with patients.csv, slice_labels.csv and a folder a patient."),
    ] = None,
    bundle: Bundle = DEFAULT_BUNDLE,
    labels: Annotated[
        Path | None,
        typer.Option(help="Own task: CSV with image, label, and if need be slice, patient, split."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Own task: folder that the paths in LABELS begin in.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Own task: the classes in their order, a,b,c; default: as in LABELS."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Own task: folder of the new bundle.")
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option(
            "--fine-tune/--from-scratch",
            help="Own task: start from the bundle's weights, whose licence then holds on.",
        ),
    ] = False,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Checkpoints and logs; a run that stopped there is resumed."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Where the trained weights go; default: into RUN_DIR.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Default: the bundle's.")] = None,
    pattern: Pattern = None,
    device: Device = "auto",
    knobs: Knobs = None,
) -> None:
    """Train a bundle from image-level labels alone; no mask is opened.

    With DATA: the bundle's own task, from slice labels. The best epoch by validation
    classification loss is written to RUN_DIR/model.pt. A bundle's own weights are replaced
    only on request: --weights bundles/NAME/models/model.pt.

    With --labels, --images and --output: a task of your own, on 2D images or volumes and for
    any number of classes. OUTPUT becomes a complete bundle; below bundles/ it is served at once.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")  # epochs' metrics
    given = {"max_epochs": epochs, "pattern": pattern, "seed": seed, "device": device}
    settings = {k: v for k, v in given.items() if v is not None} | read_knobs(knobs)
    own = {"--labels": labels, "--images": images, "--output": output}
    check_train_words(data, own, {"--classes": classes, "--fine-tune": fine_tune or None}, weights)
    if data is None and labels and images and output:
        from heatmask.training.own_data import OwnData, train_own_bundle

        names = classes.split(",") if classes is not None else None
        folder = train_own_bundle(
            OwnData(labels, images, output, names, bundle, fine_tune, run_dir, settings)
        )
        console.print(
            f"Bundle: {escape(str(folder))}\n"
            f"Try it: heatmask segment IMAGE --bundle {escape(str(folder))}"
        )
        return
    from heatmask.bundle import find_bundle, read_bundle, run_bundle

    places = {"dataset_dir": data, "output_dir": run_dir, "weights": weights}
    settings = {k: str(v) for k, v in places.items() if v is not None} | settings
    parser = read_bundle(find_bundle(bundle), ("train",), settings)
    run_bundle(parser)
    trained = parser.get_parsed_content("weights")
    words = ["heatmask", "segment", "SCAN", "--bundle", bundle, "--set", f"weights={trained}"]
    for knob in knobs or ():  # What makes the network belongs to its weights
        if knob.startswith(("sequences=", "network_def#", "pixel_spacing_mm=")):
            words += ["--set", knob]
    console.print(f"Try them: {escape(shlex.join(words))}")


@app.command()
def derive_labels(
    masks: Annotated[
        Path, typer.Argument(help="Folder searched for masks (BraTS, Decathlon), or one mask.")
    ],
    output: Annotated[Path, typer.Argument(help="The CSV to write; it must not exist.")],
    seed: Annotated[int, typer.Option(help="Of the split by patient, in the column split.")] = 0,
) -> None:
    """Make slice labels from reference masks: a use of masks, noted in every line.

    For data sets that come with masks and without labels: a slice that holds any labelled voxel
    gets tumour 1. Training then sees these labels and no mask:

    `heatmask train DATA --set slice_labels=OUTPUT --set patients=OUTPUT`
    """
    from heatmask.data.derive import derive_slice_labels

    slices = derive_slice_labels(masks, output, seed)
    console.print(
        f"{escape(str(output))}: slice labels of {len(slices)} patients, {sum(slices.values())} "
        "slices with tumour, derived from reference masks."
    )


@app.command()
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with sources.")] = False,
) -> None:
    """List the attribution methods: what each needs, what it costs and where it comes from.

    Needs are what the network must have; costs are in passes through it, for one class.
    """
    from heatmask.doctor import describe_methods, format_json, print_methods

    if as_json:
        typer.echo(format_json(describe_methods()))
    else:
        print_methods(console)


@app.command()
def doctor(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or the path of its folder.")],
    method: Annotated[
        str | None, typer.Option(help="Look at this method alone; `heatmask methods` lists them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Check which attribution methods can be believed with a bundle's network.

    Measures on a synthetic image what each method rests on (gradients against finite
    differences, ReLUs gated, sums that must come out, an image alone against in a batch) and
    refuses what would give a plausible wrong heatmap. Exit status 1 if METHOD, or else the
    bundle's own, is refused.
    """
    from heatmask.doctor import format_json, inspect_bundle, print_diagnosis

    diagnosis = inspect_bundle(bundle, method, device)
    if as_json:
        typer.echo(format_json(diagnosis.to_dict()))
    else:
        print_diagnosis(diagnosis, console)
    if not diagnosis.sound:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def show_version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Show the version."""
    if version:
        console.print(f"heatmask {__version__}")
        raise typer.Exit


def show_report(report: dict[str, Any]) -> None:
    """Print what was found in one case and where the files are."""
    seconds = sum(report["seconds"].values())
    console.print(f"[bold]{escape(report['case'])}[/bold]: {report['finding']}")
    for warning in report["warnings"]:
        console.print(f"  [yellow]Warning:[/yellow] {escape(warning)}")
    console.print(f"  {seconds:.1f} s on {report['device']}; {escape(report['output'])}")


def check_train_words(
    data: Path | None,
    own: Mapping[str, object],
    only_own: Mapping[str, object],
    weights: Path | None,
) -> None:
    """Refuse a mixture of the two forms of `heatmask train`, or neither of them."""
    given = [name for name, value in {**own, **only_own}.items() if value is not None]
    missing = [name for name, value in own.items() if value is None]
    if data is not None and given:
        raise OptionError(
            f"train must be given DATA, or a task of your own with {', '.join(own)}; got DATA and "
            f"{', '.join(given)}. Leave one of them out."
        )
    if data is None and missing:
        raise OptionError(
            f"train must be given DATA, or a task of your own with {', '.join(own)}; "
            f"{', '.join(missing)} is missing."
        )
    if data is None and weights is not None:
        raise OptionError(
            "--weights must not be given with --labels: the weights go into the new bundle, the "
            "folder of --output. Leave it out."
        )


def read_axis(name: str) -> int:
    """Return the RAS axis that slices of this name are cut across."""
    from heatmask.geometry import SLICE_AXES

    if name not in SLICE_AXES:
        raise OptionError(f"slice_axis must be one of {', '.join(SLICE_AXES)}, got {name!r}.")
    return SLICE_AXES[name]


def read_knobs(knobs: list[str] | None) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a dict, values read as JSON where they are."""
    import json

    values: dict[str, Any] = {}
    for knob in knobs or ():
        name, sign, text = knob.partition("=")
        if not sign or not name:
            raise OptionError(f"--set must be given as KNOB=VALUE, got {knob!r}.")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def main() -> None:
    """Run the command; a `HeatmaskError` is printed alone, with exit status 1."""
    try:
        app()
    except HeatmaskError as error:
        Console(stderr=True, highlight=False).print(
            f"[red]heatmask: error:[/red] {escape(str(error))}"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
