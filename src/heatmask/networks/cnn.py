"""A plain convolutional classifier, as simple as a classifier for CAMs can be."""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from heatmask.networks.blocks import NORMS, stack_convolutions
from heatmask.networks.global_pooling import check_choice, check_fraction, check_size, pool_top


class CNN(nn.Module):
    """Stages of two convolutions with max-pooling between them, global pooling, one linear layer.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, num_classes
        Input channels C and class logits K (K = 1: present or absent, with a sigmoid).
    features
        Channels of each stage. The stages are the target layers ``stage1``, ``stage2``, ...; each
        halves the grid of the one before.
    norm
        ``"batch"``, ``"instance"`` or ``"none"``.
    top_fraction
        Share of the positions of a map, the highest, that global pooling averages: 1 is global
        average pooling; less asks that a feature be strong somewhere, not weak everywhere, so
        that the maps point where it is.

    Raises
    ------
    InputError
        On call, if an image is too small for the stages.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 1,
        features: Sequence[int] = (16, 32, 64, 128),
        norm: str = "batch",
        top_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        self.top_fraction = check_fraction(top_fraction)
        self.least = 2 ** (len(features) - 1)
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        self.stages = [f"stage{number}" for number in range(1, len(features) + 1)]
        channels = pairwise([in_channels, *features])
        for name, (before, after) in zip(self.stages, channels, strict=True):
            self.add_module(name, stack_convolutions(spatial_dims, (before, after, after), norm))
        self.fc = nn.Linear(features[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of an image batch (B, C, *spatial)."""
        check_size(x, self.least)
        for name in self.stages:
            x = self.get_submodule(name)(x if name == self.stages[0] else self.pool(x))
        return self.fc(pool_top(x, self.top_fraction))
