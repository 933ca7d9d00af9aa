"""The head that makes a dense network a classifier with a heatmap of its own.

Chatterjee et al., "Weakly-supervised segmentation using inherently-explainable
classification models and their application to brain tumour classification",
Neurocomputing 682:133460, 2026 (arXiv 2206.05148). GP stands for global pooling.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.errors import InputError, OptionError

POOL_AT = ("features", "map")
POOLING = ("max", "top")


class GPNetwork(nn.Module):
    """Base of the GP networks: features on the image's grid, pooled to class logits.

    A subclass computes the features in `forward_features` and ends with a 1x1 convolution from
    them to the classes, `head`.

    Parameters
    ----------
    pool_at
        ``"features"`` as published: the last feature map is pooled, then the 1x1
        convolution gives the logits. ``"map"``: the 1x1 convolution comes first and the
        heatmap itself is pooled, so that a logit is the mean of heatmap values.
    pooling
        ``"max"`` as published; ``"top"``: the mean of the highest `top_fraction` of the
        positions, smoother to train because more than one pixel receives a gradient.
    top_fraction
        Share of the positions that ``"top"`` averages, in (0, 1]; at least one position.
    """

    if TYPE_CHECKING:  # TorchScript cannot read it
        head: nn.Module

    def __init__(self, pool_at: str, pooling: str, top_fraction: float) -> None:
        super().__init__()
        check_choice("pool_at", pool_at, POOL_AT)
        check_choice("pooling", pooling, POOLING)
        self.pool_at, self.pooling = pool_at, pooling
        self.top_fraction = check_fraction(top_fraction)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, features, *spatial) of images (B, C, *spatial)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of an image batch (B, C, *spatial)."""
        return self.forward_heatmap(x)[0]

    def forward_heatmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the signed heatmap (B, K, *spatial), in logit units."""
        features = self.forward_features(x)
        heatmap = self.head(features)
        if self.pool_at == "map":
            return self._pool(heatmap), heatmap
        pooled = self._pool(features)
        for _ in range(features.ndim - 2):
            pooled = pooled.unsqueeze(-1)
        return self.head(pooled).flatten(1), heatmap

    def extra_repr(self) -> str:
        """Return what the parts do not show: a run that was stopped goes on with the same only."""
        return f"pool_at={self.pool_at}, pooling={self.pooling}, top_fraction={self.top_fraction}"

    def _pool(self, x: Tensor) -> Tensor:
        return x.flatten(2).amax(-1) if self.pooling == "max" else pool_top(x, self.top_fraction)


def pool_top(x: Tensor, fraction: float) -> Tensor:
    """Return the mean (B, C) of the highest share of the positions of maps (B, C, *spatial).

    At least one position counts; a share of 1 is the mean of all.
    """
    values = x.flatten(2).float()
    count = max(1, int(round(fraction * values.shape[-1])))  # noqa: RUF046 - a float in TorchScript
    if count < values.shape[-1]:
        values = values.topk(count, dim=-1).values
    return values.mean(-1).to(x.dtype)


def check_fraction(top_fraction: float) -> float:
    """Refuse a share of the positions that is none."""
    if not 0 < top_fraction <= 1:
        raise OptionError(f"top_fraction must lie in (0, 1], got {top_fraction}.")
    return top_fraction


def make_head(spatial_dims: int, features: int, num_classes: int) -> nn.Module:
    """Return the 1x1 convolution from features to classes."""
    return Conv[Conv.CONV, spatial_dims](features, num_classes, kernel_size=1)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an option that is none of the choices."""
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


@torch.jit.unused  # TorchScript knows no errors of our own: call it where not is_scripting()
def check_size(x: Tensor, least: list[int]) -> None:
    """Refuse images (B, C, *spatial) with an axis shorter than its number in `least`."""
    if any(size < wanted for size, wanted in zip(x.shape[2:], least, strict=True)):
        raise InputError(
            f"An image must have at least {' x '.join(map(str, least))} pixels after resampling, "
            f"got {' x '.join(map(str, x.shape[2:]))}. Choose another slice axis, or finer pixels."
        )


def pad_to_multiple(x: Tensor, factors: list[int]) -> Tensor:
    """Return images (B, C, *spatial), zeros added to axes that their factor does not divide."""
    padding: list[int] = []
    for axis in range(x.ndim - 1, 1, -1):  # torch pads the last axis first
        padding += [0, -x.shape[axis] % factors[axis - 2]]
    return F.pad(x, padding) if max(padding) > 0 else x


def crop_to(x: Tensor, spatial: list[int]) -> Tensor:
    """Return what `pad_to_multiple` began with."""
    for axis, size in enumerate(spatial, 2):
        x = x.narrow(axis, 0, size)
    return x
