"""How corrected masks are learnt: the options of `heatmask learn` and of the plugin's panel."""

from collections.abc import Sequence
from dataclasses import dataclass

from heatmask.options import check_options, option

WAYS = ("auto", "joint", "segmentation")


@dataclass(frozen=True)
class LearnSettings:
    """How a network learns corrected masks together with image-level labels.

    Two ways. ``"joint"``: the bundle's own network goes on with the image-level labels, and its
    heatmap learns the corrected masks. ``"segmentation"``: a U-Net begins with the bundle's
    pseudo-masks and goes on with the corrected masks among them. ``"auto"`` is joint where the
    network carries its heatmap, as its masks are better then (docs/results/learning.md).
    """

    way: str = option(
        "auto",
        "joint (the bundle's network), segmentation (a U-Net), auto (joint where it can be).",
        choices=WAYS,
        in_panel=True,
    )
    attribution_augmentation: bool = option(
        False, "Brighten some training images where Grad-CAM points.", in_panel=True
    )
    max_epochs: int = option(
        6, "Epochs with corrected masks, for each network.", low=1, in_panel=True
    )
    start_epochs: int = option(
        12, "Epochs with pseudo-masks before that; segmentation only.", low=0, in_panel=True
    )
    corrected_share: float = option(
        0.5, "Share of corrected slices in what is shown.", low=0.0, high=1.0, in_panel=True
    )
    max_scans: int = option(
        100, "How many scans without a correction are learnt from.", low=0, in_panel=True
    )
    slices_per_epoch: int = option(512, "Slices shown in an epoch.", low=1, in_panel=True)
    batch_size: int = option(16, "Slices a step.", low=2)
    learning_rate: float = option(0.002, "The highest of the one-cycle schedule.", low=0.0)
    weight_decay: float = option(0.01, "Of AdamW.", low=0.0)
    averaging: float = option(0.02, "Share of the newest in averaged weights.", low=0.0, high=1.0)
    label_weight: float = option(0.3, "Of the label's loss beside that of the mask.", low=0.0)
    folds: int = option(3, "Groups of corrected patients that are held out in turn.", low=2)
    seed: int = option(0, "Seed of weights, order and augmentation.")
    image_size: Sequence[int] = (128, 128)
    features: Sequence[int] = (16, 32, 64, 128)

    def __post_init__(self) -> None:
        check_options(self)
