"""Blocks of neighbouring slices for a classifier in 3D."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError, OptionError
from heatmask.training.slices import SliceDataset


class BlockDataset(Dataset[dict[str, Tensor]]):
    """The blocks of neighbouring labelled slices of a volume, each with the mean of their labels.

    Volumes of a training set may show a finding one and all, blocks do not. The mean is the share
    of slices with the finding.

    Parameters
    ----------
    volumes, preprocessing, image_size
        As of `heatmask.training.slices.SliceDataset`, with one class.
    block_slices
        Slices a block.
    step
        Slices from the beginning of a block to that of the next.

    Raises
    ------
    OptionError
        A number is less than 1.
    InputError
        There are several classes, or no volume has as many neighbouring slices with a label.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume | LabelledImage],
        preprocessing: Callable[[Mapping[str, Any]], Any],
        image_size: Sequence[int] = (128, 128),
        block_slices: int = 4,
        step: int = 1,
    ) -> None:
        if min(block_slices, step) < 1:
            raise OptionError(
                f"block_slices and step must be at least 1, got {block_slices} and {step}."
            )
        slices = SliceDataset(volumes, preprocessing, image_size)
        if slices.labels.max() > 1:
            raise InputError(
                "The label of a block is a share of slices, which one class has; there are "
                f"{int(slices.labels.max())}. Train a bundle for each class, or one on slices."
            )
        first = torch.arange(max(0, len(slices) - block_slices + 1))
        apart = slices.places[first + block_slices - 1] - slices.places[first]
        whole = (apart == torch.tensor([0, block_slices - 1])).all(dim=1)
        starts = first[whole & (slices.places[first, 1] % step == 0)]
        if len(starts) == 0:
            raise InputError(
                f"No volume has {block_slices} neighbouring slices with a label. Take smaller "
                "blocks (block_slices), or label more slices."
            )
        self.slices = slices
        self.members = starts[:, None] + torch.arange(block_slices)
        self.labels = slices.labels[self.members].mean(dim=1)
        self.positions = slices.positions[self.members].mean(dim=1)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (C, H, W, D) float32, ``label`` and ``position``, both scalars."""
        return {
            "image": self.slices.images[self.members[index]].movedim(0, -1).float(),
            "label": self.labels[index],
            "position": self.positions[index],
        }
