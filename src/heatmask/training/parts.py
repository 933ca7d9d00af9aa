"""The standard parts of a bundle's training, made from its options.

A bundle's ``train.json`` names these, as its ``inference.json`` names `heatmask.parts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from heatmask import parts
from heatmask.data.label_table import read_label_table
from heatmask.data.labels import list_labelled_volumes
from heatmask.device import resolve_device
from heatmask.errors import OptionError
from heatmask.options import take_part
from heatmask.parts import Options
from heatmask.training.augment import Augmentation
from heatmask.training.blocks import BlockDataset
from heatmask.training.calibrate import list_explainers
from heatmask.training.checkpoints import export_best
from heatmask.training.curve import draw_curves
from heatmask.training.engine import PrepareSlices, draw_or_copy_weights
from heatmask.training.metrics import SliceScore
from heatmask.training.position import PositionOffsetLoss, balance_classes, make_prior
from heatmask.training.settings import LabelSettings, TrainSettings
from heatmask.training.slices import SliceDataset, Volume
from heatmask.training.trainer import Objective, ResumableTrainer, find_rank, get_prediction

Data = SliceDataset | BlockDataset
_OFFERED = ("calibrated_methods", "calibrated_layers")
_SCORES = ("auroc", "macro_f1")


def read_labels(options: Options) -> Callable[[str], Sequence[Volume]]:
    """Return what lists the labelled images of a split."""
    found, images = take_part(LabelSettings, options), Path(options["dataset_dir"] or ".")
    tables = find_tables(options)
    if found.labels is not None:
        classes, column = options.get("class_names"), found.patient_column
        return read_label_table(tables["labels"], images, classes, found.split_seed, column).select
    where = (images, options.get("pattern"), tables["slice_labels"], tables["patients"])
    return partial(list_labelled_volumes, *where, sequences=options["sequences"])


def find_tables(options: Options) -> dict[str, Path]:
    """Return the files that hold the labels, by the option that names them."""
    found, images = take_part(LabelSettings, options), Path(options["dataset_dir"] or ".")
    if found.labels is not None:
        return {"labels": Path(found.labels)}
    given = {"slice_labels": found.slice_labels, "patients": found.patients}
    return {name: Path(path or images / f"{name}.csv") for name, path in given.items()}


def start_network(options: Options, network_def: nn.Module) -> nn.Module:
    """Return the network with its first weights, on the device of the training."""
    settings = take_part(TrainSettings, options)
    network = draw_or_copy_weights(network_def, settings.seed, settings.start_from)
    return network.to(resolve_device(options["device"]))


def make_preprocessing(options: Options) -> Compose:
    """Return the steps of inference; only pictures are scaled to `image_size`.

    Raises
    ------
    OptionError
        A slice scaled to its `longest_side` would lose its border in `image_size`.
    """
    longest, size = options.get("longest_side"), take_part(LabelSettings, options).image_size
    if longest is not None and min(size) < longest:
        raise OptionError(
            f"image_size must have room for slices of {longest} pixels (longest_side), got "
            f"{[*size]}. Set both, for example --set longest_side={min(size)}."
        )
    cropped = {} if options.get("pictures") else {"image_size": None}
    return parts.make_preprocessing({**options, **cropped})


def make_dataset(
    options: Options,
    volumes: Callable[[str], Sequence[Volume]],
    preprocessing: Compose,
    split: str,
) -> Data:
    """Return the images ``"train"`` or ``"val"`` with their labels; blocks for a network in 3D."""
    how = take_part(LabelSettings, options)
    chosen = how.train_splits if split == "train" else (split,)
    listed = [volume for name in chosen for volume in volumes(name)]
    if how.block_slices == 1:
        return SliceDataset(listed, preprocessing, how.image_size)
    return BlockDataset(listed, preprocessing, how.image_size, how.block_slices, how.block_step)


def make_trainer(
    options: Options,
    network: nn.Module,
    data: Data,
    validation: Data,
    inferer: Inferer,
    max_epochs: int,
    handlers: Sequence[Any] = (),
) -> ResumableTrainer:
    """Return what trains the classifier of a bundle."""
    settings = take_settings(options, max_epochs, data)
    objective = make_objective(settings, data, len(options.get("class_names", "1")))
    folder, record = Path(options["output_dir"]), describe_run(options, settings)
    return ResumableTrainer(
        network, data, validation, objective, settings, folder, record, inferer, handlers
    )


def take_settings(options: Options, max_epochs: int, data: Data) -> TrainSettings:
    """Return how a network learns; of few images a batch holds all, as a smaller one is dropped."""
    settings = take_part(TrainSettings, options)
    return replace(settings, max_epochs=max_epochs, batch_size=min(settings.batch_size, len(data)))


def describe_run(options: Options, settings: TrainSettings) -> dict[str, Any]:
    """Return what must be the same when a run goes on: data, labels, how they are read, settings.

    Tables of labels count by their content.
    """
    record = {**options, **asdict(settings)}
    for name in ("bundle_root", "output_dir", "weights", "device", *_OFFERED):
        record.pop(name, None)
    if "dataset_dir" in record:
        record["dataset_dir"] = str(Path(record["dataset_dir"] or ".").resolve())
    for name, path in find_tables(options).items():
        record[name] = sha256(path.read_bytes()).hexdigest()
    return record


def make_objective(settings: TrainSettings, data: Data, classes: int = 1) -> Objective:
    """Return what a classifier is to learn of labelled images."""
    labels, negatives, prior = data.labels, settings.negatives, None
    weights = balance_classes(labels, classes, negatives)
    if settings.position_offset:
        prior = make_prior(data.positions, labels, classes, negatives)
    augmentation = Augmentation(channel_dropout=settings.channel_dropout)
    return Objective(
        PositionOffsetLoss(weights, negatives, settings.label_smoothing),
        PrepareSlices(prior, augmentation),
        PrepareSlices(prior),
        {f"val_{name}": SliceScore(name, negatives, get_prediction) for name in _SCORES},
    )


def export_run(
    options: Options,
    trainer: ResumableTrainer,
    network: nn.Module,
    data: Data,
    best: str | Path | None = None,
) -> None:
    """Ship a run's `best` checkpoint, by default the classifier's, and draw its curves.

    Of several processes the first one does.
    """
    if find_rank() != 0:
        return
    folder, settings = trainer.folder, trainer.settings
    offered = list_explainers(settings.calibrated_methods, settings.calibrated_layers)
    facts = {"seed": settings.seed, "max_epochs": settings.max_epochs}
    best = best or folder / "best.pt"
    export_best(best, options["weights"], network, data, offered, **facts)
    stages = [stage for stage in (folder, folder / "gate") if stage.is_dir()]
    draw_curves(stages, folder / "training.png")
