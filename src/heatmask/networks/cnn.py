"""A plain convolutional classifier, as simple as a classifier for CAMs can be."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Pool
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from heatmask.networks.blocks import NORMS, stack_convolutions
from heatmask.networks.global_pooling import check_choice, check_fraction, check_size, pool_top


class CNN(nn.Sequential):
    """Stages of two convolutions with max-pooling between them, global pooling, one linear layer.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, num_classes
        Input channels C and class logits K (K = 1: present or absent, with a sigmoid).
    features
        Channels of each stage. The stages are the target layers ``stage1``, ``stage2``, ...
    pool_size
        By how much each stage shrinks the grid of the one before, one number or one an axis:
        blocks of few thick slices keep theirs with ``(2, 2, 1)``.
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
        pool_size: int | Sequence[int] = 2,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        sizes = ensure_tuple_rep(pool_size, spatial_dims)
        self.least = [size ** (len(features) - 1) for size in sizes]
        channels = enumerate(pairwise([in_channels, *features]), 1)
        for number, (before, after) in channels:
            if number > 1:
                self.add_module(f"pool{number - 1}", Pool[Pool.MAX, spatial_dims](sizes))
            convolutions = stack_convolutions(spatial_dims, (before, after, after), norm)
            self.add_module(f"stage{number}", convolutions)
        self.add_module("pooling", TopPooling(top_fraction))
        self.add_module("fc", nn.Linear(features[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of an image batch (B, C, *spatial)."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            check_size(x, self.least)
        for module in self:
            x = module(x)
        return x


class TopPooling(nn.Module):
    """`heatmask.networks.global_pooling.pool_top` as a layer: (B, C, *spatial) to (B, C)."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = check_fraction(fraction)

    def extra_repr(self) -> str:
        """Return the share that is pooled."""
        return f"fraction={self.fraction}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps."""
        return pool_top(x, self.fraction)
