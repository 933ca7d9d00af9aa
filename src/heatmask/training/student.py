"""Train a `heatmask.networks.self_trained.SelfTrainedNet` on labels and pseudo-masks at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, WeightedRandomSampler

from heatmask.device import to_channels_last
from heatmask.networks.self_trained import SelfTrainedNet, pool_hottest, show_upright
from heatmask.training.engine import PrepareSlices
from heatmask.training.metrics import SliceScore
from heatmask.training.picture_augment import PictureAugmentation
from heatmask.training.position import PositionOffsetLoss, PositionPrior, make_prior
from heatmask.training.settings import TrainSettings
from heatmask.training.slices import SliceDataset
from heatmask.training.trainer import Objective, ResumableTrainer, get_prediction

_ENCODER_SHARE = 0.1
"""Of the learning rate, for the encoder."""
_SMALL = 20.0
"""Pixels that keep the Dice loss of small masks calm."""


class PseudoMaskDataset(Dataset[dict[str, Any]]):
    """Upright images with labels and pseudo-masks.

    Parameters
    ----------
    slices
        The images.
    masks
        (N, K, n, n), bool, upright.
    unsure
        Likewise: where the masks teach nothing.
    side
        Pixels of the square that an image is shown in.
    """

    def __init__(
        self,
        slices: SliceDataset,
        masks: NDArray[np.bool_],
        unsure: NDArray[np.bool_],
        side: int,
    ) -> None:
        self.slices, self.masks, self.unsure, self.side = slices, masks, unsure, side

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``image`` (3, side, side), ``mask`` (2, K, n, n), label and position.

        The second half of the mask says where the first is unsure.
        """
        item = self.slices[index]
        square = show_upright(item["image"][None], self.side)[0]
        mask = np.stack([self.masks[index], self.unsure[index]])
        return {**item, "image": square, "mask": torch.from_numpy(mask).float()}

    def draw_evenly(self, count: int) -> WeightedRandomSampler:
        """Return what draws so many images, every label equally often."""
        labels = self.slices.labels.round().long()
        weights = 1.0 / torch.bincount(labels)[labels]
        return WeightedRandomSampler(weights.tolist(), count)


class PrepareStudent:
    """MONAI's `prepare_batch`: augmented images; as targets the labels' and masks."""

    def __init__(self, prior: PositionPrior | None, augmentation: PictureAugmentation) -> None:
        self.slices, self.augmentation = PrepareSlices(prior), augmentation

    def __call__(
        self, batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **how: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return images (B, 3, n, n) and targets (B, 1 + K) and (B, 2, K, n / 2, n / 2)."""
        images, masks = self.augmentation(batch["image"], batch["mask"].flatten(1, 2))
        images, targets = self.slices({**batch, "image": images}, device, non_blocking, **how)
        return images, (targets, masks.unflatten(1, (2, -1)).to(device))


class StudentLoss(nn.Module):
    """Cross-entropy of the labels, by either logit, and of the maps, and half their Dice loss.

    Parameters
    ----------
    of_labels
        The labels' part.
    maps_tell
        Whether the hottest values of the maps are to tell the labels. Where every image has a
        finding they would light up the healthy tissue that tells the classes apart.
    """

    def __init__(self, of_labels: PositionOffsetLoss, maps_tell: bool) -> None:
        super().__init__()
        self.of_labels, self.maps_tell = of_labels, maps_tell

    def forward(self, output: tuple[Tensor, Tensor], target: tuple[Tensor, ...]) -> Tensor:
        """Return the mean loss of logits and maps, targets as of `PrepareStudent`.

        An empty mask has no Dice loss.
        """
        (linear, maps), (labels, masks) = output, target
        drawn, sure = masks[:, 0], 1 - masks[:, 1]
        pixels = F.binary_cross_entropy_with_logits(maps, drawn, reduction="none") * sure
        shares, drawn, axes = maps.sigmoid() * sure, drawn * sure, (2, 3)
        overlap, total = (shares * drawn).sum(axes), (shares + drawn).sum(axes)
        dice = 1 - (2 * overlap + _SMALL) / (total + _SMALL)
        classes = self.of_labels(linear, labels)
        if self.maps_tell:
            classes = classes + self.of_labels(pool_hottest(maps), labels)
        return classes + (pixels.mean(axes) + 0.5 * dice * drawn.flatten(2).any(2)).mean()


class UprightInferer(Inferer):
    """Logits and maps of upright images.

    In float32, channels last: on a CPU the encoder with its depthwise convolutions is slower in
    bfloat16, and a quarter faster with its channels last in memory.
    """

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `SelfTrainedNet.forward_upright` does."""
        return network.forward_upright(to_channels_last(inputs))


class ClipGradients:
    """Holds the norm of the gradients to a maximum."""

    def __init__(self, network: nn.Module, maximum: float = 5.0) -> None:
        self.network, self.maximum = network, maximum

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.maximum)


def train_student(
    network: SelfTrainedNet,
    data: PseudoMaskDataset,
    validation: SliceDataset,
    settings: TrainSettings,
    epoch_steps: int,
    side: int,
    folder: Path,
    record: Mapping[str, Any],
    inferer: Inferer,
    maps_tell: bool,
) -> None:
    """Train a network that has its first weights; ``best.pt`` in `folder` is its last checkpoint.

    Images are augmented to squares of `side` pixels. Every label is drawn equally often. The images
    of validation have no masks: they say how well the labels are learnt, and choose nothing.
    `maps_tell` as of `StudentLoss`.
    """
    classes, negatives, slices = data.masks.shape[1], settings.negatives, data.slices
    prior = None
    if settings.position_offset:
        prior = make_prior(slices.positions, slices.labels, classes, negatives)
    of_labels = PositionOffsetLoss(None, negatives, settings.label_smoothing)
    augmentation = PictureAugmentation(side)
    scores = {
        f"val_{name}": SliceScore(name, negatives, get_prediction) for name in ("auroc", "macro_f1")
    }
    objective = Objective(
        StudentLoss(of_labels, maps_tell),
        PrepareStudent(prior, augmentation),
        PrepareSlices(prior),
        scores,
        of_labels,
    )
    ResumableTrainer(
        network.to(memory_format=torch.channels_last),
        data,
        validation,
        objective,
        settings,
        folder,
        record,
        inferer,
        [ClipGradients(network)],
        data.draw_evenly(epoch_steps * settings.batch_size),
        {_ENCODER_SHARE: network.encoder},
        keep_last=True,
    ).run()
