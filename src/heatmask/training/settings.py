"""How a bundle is trained: the options of its ``train.json``."""

from collections.abc import Sequence
from dataclasses import dataclass

from heatmask.options import check_options, option


@dataclass(frozen=True)
class LabelSettings:
    """Which images are learnt from, and where their labels are.

    Slices of volumes have theirs in two tables (`heatmask.data.labels`), by default those beside
    the images. With `labels` it is one table of images and classes (`heatmask.data.label_table`).
    """

    slice_labels: str | None = None
    patients: str | None = None
    labels: str | None = None
    patient_column: str = option("patient", "Column of `labels` that names the patient.")
    split_seed: int = option(0, "Seed of the split by patient, where `labels` has none.")
    train_splits: Sequence[str] = ("train",)
    pictures: bool = option(False, "Whether the images are 2D without a pixel size.")
    image_size: Sequence[int] = (128, 128)
    block_slices: int = option(1, "Neighbouring slices that a network in 3D sees at once.", low=1)
    block_step: int = option(1, "Slices from the beginning of a block to that of the next.", low=1)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainSettings:
    """How the network learns.

    `start_from` is a checkpoint whose weights are taken over as far as they fit. The methods and
    layers in `calibrated_methods` and `calibrated_layers` are what the bundle is to offer.
    """

    start_from: str | None = None
    seed: int = option(0, "Seed of weights, order and augmentation.")
    max_epochs: int = option(24, "Passes over the images.", low=1)
    batch_size: int = option(32, "Images a step.", low=1)
    learning_rate: float = option(0.002, "The highest of the one-cycle schedule.", low=0.0)
    weight_decay: float = option(0.01, "Of AdamW.", low=0.0)
    averaging: float = option(0.02, "Share of the newest in averaged weights.", low=0.0, high=1.0)
    channel_dropout: float = option(0.0, "How often a sequence is shown alone.", low=0.0, high=1.0)
    position_offset: bool = option(True, "Learn nothing from where in the stack a slice lies.")
    negatives: bool = option(True, "Whether an image may show none of several classes.")
    label_smoothing: float = option(0.0, "Share of a label for all classes.", low=0.0, high=1.0)
    calibrated_methods: Sequence[str] = ("inherent",)
    calibrated_layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self)
