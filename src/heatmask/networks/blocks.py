"""Convolutions with norm and ReLU, as the GP networks stack them."""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers.factories import Conv, Norm
from torch import nn

NORMS = ("none", "batch", "instance")


def stack_convolutions(spatial_dims: int, channels: Sequence[int], norm: str) -> nn.Sequential:
    """Return 3x3 convolutions from each of `channels` to the next, with norm and ReLU."""
    conv = Conv[Conv.CONV, spatial_dims]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(conv(before, after, kernel_size=3, padding=1, bias=norm == "none"))
        layers += make_norm(spatial_dims, after, norm)
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def make_norm(spatial_dims: int, channels: int, norm: str) -> list[nn.Module]:
    """Return the norm's layer, with weight and bias; none for ``"none"``."""
    return [] if norm == "none" else [Norm[norm, spatial_dims](channels, affine=True)]
