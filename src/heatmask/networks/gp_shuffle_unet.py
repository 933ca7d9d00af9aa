"""GP-ShuffleUNet: a U-Net that shuffles pixels into channels and back, with a GP head.

Chatterjee et al., arXiv 2206.05148 (the head), and Chatterjee et al., "ShuffleUNet: Super
resolution of diffusion-weighted MRIs using deep learning", EUSIPCO 2021, arXiv 2102.12898
(the body).
"""

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from heatmask.errors import OptionError
from heatmask.networks.blocks import NORMS, stack_convolutions
from heatmask.networks.global_pooling import (
    GPNetwork,
    check_choice,
    crop_to,
    make_head,
    pad_to_multiple,
)

PARTS = 4
"""Convolutions that a level is decomposed into."""


class GPShuffleUNet(GPNetwork):
    """ShuffleUNet classifier that carries its own heatmap.

    At each level four convolutions side by side decompose the features; the last part is
    shuffled from pixels into channels and goes down. On the way up the features are decomposed
    again, each part is added to its counterpart from the way down, and the sums are joined
    with the features themselves.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, num_classes
        Input channels C and class logits K.
    features
        Channels of the finest level; they double from level to level. The paper's is 64.
    levels
        How many times the grid is halved. The paper's is 3.
    norm
        ``"none"`` as published, ``"batch"`` or ``"instance"``.
    pool_at, pooling, top_fraction
        The head's, see `heatmask.networks.global_pooling.GPNetwork`.

    Notes
    -----
    The image is padded with zeros to a multiple of ``2 ** levels`` and the features are cropped
    again, so that any size fits.

    Raises
    ------
    OptionError
        `features` is not a multiple of what one halving of the grid folds into a channel
        (4 in 2D, 8 in 3D), or another option is none of its choices.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 1,
        features: int = 64,
        levels: int = 3,
        norm: str = "none",
        pool_at: str = "features",
        pooling: str = "max",
        top_fraction: float = 0.01,
    ) -> None:
        super().__init__(pool_at, pooling, top_fraction)
        check_choice("norm", norm, NORMS)
        folded = 2**spatial_dims
        if features < 1 or features % folded:
            raise OptionError(f"features must be a multiple of {folded}, got {features}.")
        self.multiple = 2**levels
        widths = [features * 2**level for level in range(levels + 1)]
        self.entry = stack_convolutions(spatial_dims, (in_channels, features, features), norm)
        self.down = nn.ModuleList(_Down(spatial_dims, width, norm) for width in widths[:-1])
        self.up = nn.ModuleList(_Up(spatial_dims, width, norm) for width in widths[-2::-1])
        self.head = make_head(spatial_dims, features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, features, *spatial)."""
        y = self.entry(pad_to_multiple(x, [self.multiple] * (x.ndim - 2)))
        skips: list[tuple[Tensor, Tensor]] = []
        for down in self.down:
            parts, lower = down(y)
            skips.append((y, parts))
            y = lower
        for up in self.up:
            y = up(y, skips.pop())
        return crop_to(y, list(x.shape[2:]))


def shuffle_down(x: Tensor) -> Tensor:
    """Fold each 2 x 2 (x 2) block of positions into channels: the inverse of `shuffle_up`.

    As `torch.nn.functional.pixel_unshuffle`, in 2D and 3D; MONAI's cannot become TorchScript.
    """
    for axis in range(2, x.ndim):
        x = x.unflatten(axis, [-1, 2]).movedim(axis + 1, 2).flatten(1, 2)
    return x


def shuffle_up(x: Tensor) -> Tensor:
    """Unfold channels (B, 4 C, H, W) or (B, 8 C, X, Y, Z) to twice the size along each axis."""
    for axis in range(x.ndim - 1, 1, -1):
        x = x.unflatten(1, [-1, 2]).movedim(2, axis + 1).flatten(axis, axis + 1)
    return x


def _convolve(spatial_dims: int, before: int, after: int) -> nn.Module:
    return Conv[Conv.CONV, spatial_dims](before, after, kernel_size=3, padding=1)


def _decompose(spatial_dims: int, width: int, norm: str) -> nn.Sequential:
    """Return four convolutions side by side, as one: (B, width, ...) to (B, 4 width, ...)."""
    return stack_convolutions(spatial_dims, (width, PARTS * width), norm)


class _Down(nn.Module):
    def __init__(self, spatial_dims: int, width: int, norm: str) -> None:
        super().__init__()
        self.width = width
        self.decompose = _decompose(spatial_dims, width, norm)
        self.narrow = _convolve(spatial_dims, width, width // 2**spatial_dims)
        self.convolutions = stack_convolutions(spatial_dims, (width, 2 * width, 2 * width), norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.decompose(x)
        return parts, self.convolutions(shuffle_down(self.narrow(parts[:, -self.width :])))


class _Up(nn.Module):
    def __init__(self, spatial_dims: int, width: int, norm: str) -> None:
        super().__init__()
        self.widen = _convolve(spatial_dims, 2 * width, width * 2**spatial_dims)
        self.decompose = _decompose(spatial_dims, width, norm)
        channels = ((PARTS + 1) * width, width, width)
        self.convolutions = stack_convolutions(spatial_dims, channels, norm)

    def forward(self, x: Tensor, skip: tuple[Tensor, Tensor]) -> Tensor:
        whole, parts = skip
        sums = self.decompose(shuffle_up(self.widen(x))) + parts
        return self.convolutions(torch.cat([whole, sums], dim=1))
