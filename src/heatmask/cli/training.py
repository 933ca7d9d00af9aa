"""Commands for a classifier of your own: train, derive-labels."""

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from heatmask.bundle import DEFAULT_BUNDLE, OWN_DATA_BUNDLE
from heatmask.command_line import Device, Options, Pattern, console, read_options
from heatmask.errors import OptionError


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with patients.csv, slice_labels.csv and a folder for each patient."
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundle in bundles/, or the path of its folder. Default: "
            f"{DEFAULT_BUNDLE} with DATA, {OWN_DATA_BUNDLE} with LABELS."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Your own task: CSV with image and label, and where needed slice, patient, split."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Your own task: folder that the paths in LABELS are relative to."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Your own task: the classes in order, a,b,c; default: those of LABELS, sorted."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Your own task: folder of the new bundle.")
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option(
            "--fine-tune/--from-scratch",
            help="Your own task: start from the bundle's weights; their licence then applies too.",
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
    options: Options = None,
) -> None:
    """Train a bundle from image-level labels alone; no mask is opened.

    With DATA: the bundle's own task, from slice labels. RUN_DIR/model.pt gets the best epoch by
    validation classification loss; of self-trained bundles the averaged weights at the end. A
    bundle's own weights are replaced only on request: --weights bundles/NAME/models/model.pt.

    With --labels, --images and --output: a task of your own, on 2D images or volumes and for
    any number of classes. OUTPUT becomes a complete bundle; below bundles/ it is served at once.
    By default a pretrained network learns from its own pseudo-masks. A bundle of attribution
    methods offers a few quick ones; all of them: --set calibrated_methods=all (minutes more).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")  # epochs' metrics
    given = {"max_epochs": epochs, "pattern": pattern, "seed": seed, "device": device}
    settings = {k: v for k, v in given.items() if v is not None} | read_options(options)
    own = {"--labels": labels, "--images": images, "--output": output}
    check_train_arguments(
        data, own, {"--classes": classes, "--fine-tune": fine_tune or None}, weights
    )
    console.print(f"Reading {escape(str(data or labels))}")
    if data is None and labels and images and output:
        from heatmask.authoring.train import OwnData, train_own_bundle

        names = classes.split(",") if classes is not None else None
        source = bundle or OWN_DATA_BUNDLE
        folder = train_own_bundle(
            OwnData(labels, images, output, names, source, fine_tune, run_dir, settings)
        )
        console.print(
            f"Bundle: {escape(str(folder))}\n"
            f"Try it: heatmask segment IMAGE --bundle {escape(str(folder))}"
        )
        return
    from heatmask.bundle import find_bundle, read_bundle, run_bundle

    bundle = bundle or DEFAULT_BUNDLE
    places = {"dataset_dir": data, "output_dir": run_dir, "weights": weights}
    settings = {k: str(v) for k, v in places.items() if v is not None} | settings
    parser = read_bundle(find_bundle(bundle), ("train",), settings)
    run_bundle(parser)
    trained = parser.get_parsed_content("weights")
    words = ["heatmask", "segment", "SCAN", "--bundle", bundle, "--set", f"weights={trained}"]
    for option in options or ():  # What makes the network belongs to its weights
        if option.startswith("sequences="):
            words += ["--set", option.replace("sequences=", "channels=", 1)]
        if option.startswith(("sequences=", "network_def#", "pixel_spacing_mm=")):
            words += ["--set", option]
    console.print(f"Try them: {escape(shlex.join(words))}")


def derive_labels(
    masks: Annotated[
        Path, typer.Argument(help="Folder searched for masks (BraTS, Decathlon), or one mask.")
    ],
    output: Annotated[Path, typer.Argument(help="The CSV to write; it must not exist.")],
    seed: Annotated[int, typer.Option(help="Seed of the split by patient.")] = 0,
) -> None:
    """Make slice labels from reference masks: a use of masks, noted in every line.

    For data sets that come with masks and without labels: a slice that holds any labelled voxel
    gets tumour 1. Training then sees these labels and no mask:

    `heatmask train DATA --set slice_labels=OUTPUT --set patients=OUTPUT`
    """
    from heatmask.data.tables.derive import derive_slice_labels

    slices = derive_slice_labels(masks, output, seed)
    console.print(
        f"{escape(str(output))}: slice labels of {len(slices)} patients, {sum(slices.values())} "
        "slices with tumour, derived from reference masks."
    )


def check_train_arguments(
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
            f"DATA is for the bundle's own task and {', '.join(given)} for yours. Leave one out."
        )
    if data is None and missing:
        raise OptionError(f"Give DATA, or {', '.join(missing)} for a task of your own.")
    if data is None and weights is not None:
        raise OptionError("Leave out --weights: with --labels they go into the new bundle.")
