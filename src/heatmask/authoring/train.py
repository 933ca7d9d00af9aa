"""Train a bundle for a user's own task: from a table of labels to a bundle to serve."""

import copy
import json
import logging
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatmask.authoring.bundle import OwnBundle, check_output, write_bundle
from heatmask.authoring.config import adapt_training, choose_methods
from heatmask.authoring.lookalikes import warn_of_lookalikes
from heatmask.authoring.model_card import Training
from heatmask.authoring.task import OwnTask, describe_task
from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.data.label_table import LabelTable, read_label_table
from heatmask.data.tables.label_rows import SPLITS
from heatmask.errors import InputError
from heatmask.training.metrics import score_slices
from heatmask.training.slices import SliceDataset

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

FEW = 50
"""Training images of a label; with fewer there is a warning."""
_PLACES = {
    "bundle_root": {"_target_": "heatmask.bundle.find_bundle_root"},
    "output_dir": "$'runs/own_seed' + str(@seed)",
    "weights": "$@output_dir + '/model.pt'",
    "device": "auto",
}
"""What the training config of the new bundle says in place of this run's."""


@dataclass(frozen=True)
class OwnData:
    """What the user gives.

    Attributes
    ----------
    labels, images : the table and the folder of its images
    output : folder of the new bundle
    classes : their order; None for those of the table
    bundle : the bundle to train
    fine_tune : start from its weights
    run_dir : checkpoints and logs; None for a folder in ``runs`` that has the output's name
    options : of the bundle's training config, ``split_seed`` and ``patient_column``;
        ``calibrated_methods`` may be "all"
    """

    labels: Path
    images: Path
    output: Path
    classes: Sequence[str] | None = None
    bundle: str | Path = "."
    fine_tune: bool = False
    run_dir: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def train_own_bundle(data: OwnData) -> Path:
    """Train a bundle on a table of labels and write it as a bundle of its own.

    A run that was stopped goes on when it is called again with the same data.

    Returns
    -------
    Path
        The folder of the new bundle.

    Raises
    ------
    OutputError
        The folder exists or cannot be written; said before anything is trained.
    InputError, OptionError
        The table, an image or an option is not what it must be.
    """
    output, source = check_output(data.output), find_bundle(data.bundle)
    options = dict(data.options)
    split_seed = int(options.pop("split_seed", 0))
    patient_column = str(options.pop("patient_column", "patient"))
    methods, layers = options.pop("calibrated_methods", None), options.pop("calibrated_layers", ())
    table = read_label_table(data.labels, data.images, data.classes, split_seed, patient_column)
    warn_of_few(table)
    parser = read_bundle(source, ("train",), options)
    choose_methods(parser, read_bundle(source).get("method", "inherent"), methods, layers)
    task = describe_task(table, parser["sequences"], "sequences" in options, data.fine_tune)
    start = str(source / "models" / "model.pt") if data.fine_tune else None
    adapt_training(parser, task, split_seed, patient_column, options)
    task = _merge_classes(task, parser)
    train_config = {n: v for n, v in copy.deepcopy(parser.get()).items() if n != "_meta_"} | _PLACES
    run_dir = data.run_dir or Path("runs") / f"{output.name}_seed{parser['seed']}"
    parser.update(_point_to(data, run_dir) | {"start_from": start})
    test = _read_ahead(table, task, parser)
    run_bundle(parser)
    made = OwnBundle(
        source=source,
        task=task,
        training=_describe_training(data, table, task, parser, test),
        train_config=train_config,
        weights=run_dir / "model.pt",
        curve=run_dir / "training.png",
    )
    return write_bundle(output, made)


def warn_of_few(table: LabelTable) -> None:
    """Log which labels too few training images have for masks that are of use."""
    few = {name: n for name, n in table.count_labels("train").items() if n < FEW}
    if few:
        counts = ", ".join(f"{count} of {name}" for name, count in few.items())
        logger.warning(
            "There are few training images: %s. The masks will be of little use; some hundreds of "
            "each label are what it takes.",
            counts,
        )


def _merge_classes(task: OwnTask, parser: "ConfigParser") -> OwnTask:
    """Return the task of a network with one segment for all classes, where that is wanted."""
    segment = parser.get("segment")
    if not segment or len(task.class_names) == 1:
        return task
    if not task.negatives:
        raise InputError(
            f"With one segment '{segment}' for {', '.join(task.class_names)} there must be images "
            "without any of them, and the table has none. Add some, or leave the option "
            "segment out."
        )
    parser["network_def#num_classes"] = 1
    return replace(task, class_names=(str(segment),))


def _point_to(data: OwnData, run_dir: Path) -> dict[str, Any]:
    return {
        "labels": os.path.abspath(data.labels),
        "dataset_dir": os.path.abspath(data.images),
        "output_dir": str(run_dir),
        "weights": str(run_dir / "model.pt"),
    }


def _read_ahead(table: LabelTable, task: OwnTask, parser: "ConfigParser") -> SliceDataset | None:
    """Return the test slices, if any: what cannot be read is refused before training.

    Of pictures those of all splits at once, which prepares them; volumes would not fit into memory.
    """
    preprocessing, size = run_bundle(parser, "preprocessing"), parser["image_size"]
    if task.pictures:
        everything = SliceDataset(table.select(*SPLITS), preprocessing, size)
        warn_of_lookalikes(table, everything.images)
    test = table.select("test")
    return SliceDataset(test, preprocessing, size) if test else None


def _describe_training(
    data: OwnData,
    table: LabelTable,
    task: OwnTask,
    parser: "ConfigParser",
    test: SliceDataset | None,
) -> Training:
    report = Path(parser["output_dir"], "training.json").read_text(encoding="utf-8")
    found = json.loads(report)
    scores = dict(found["validation"])
    if test is not None:
        network = parser.get_parsed_content("network_def")
        if len(task.class_names) == 1:
            test.labels = test.labels.clamp(max=1)
        measured = score_slices(network, test, task.negatives)
        scores |= {f"test_{name}": value for name, value in measured.items()}
    counts = {split: table.count_labels(split) for split in SPLITS}
    return Training(
        source=find_bundle(data.bundle).resolve().name,
        data=data.images.resolve().name,
        counts={split: found for split, found in counts.items() if sum(found.values())},
        split_rule=table.split_rule,
        seed=parser["seed"],
        epochs=parser["max_epochs"],
        best_epoch=found["best_epoch"],
        command=_format_command(data),
        fine_tuned=data.fine_tune,
        scores={name: round(v, 4) for name, v in scores.items() if not math.isnan(v)},
        learnt=found.get("options", {}),
    )


def _format_command(data: OwnData) -> str:
    """What was typed, with the names of files and folders in place of their paths."""
    words = ["heatmask", "train", "--bundle", find_bundle(data.bundle).resolve().name]
    words += ["--labels", data.labels.name, "--images", data.images.resolve().name]
    if data.classes is not None:
        words += ["--classes", ",".join(data.classes)]
    words += ["--output", data.output.name]
    words += ["--fine-tune"] * data.fine_tune
    hidden = ("dataset_dir", "device", "output_dir", "weights")
    for name, value in data.options.items():
        if name not in hidden:
            words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)
