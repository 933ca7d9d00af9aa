"""GP-UNet: a U-Net whose dense output is pooled to class logits.

Chatterjee et al., "Weakly-supervised segmentation using inherently-explainable
classification models and their application to brain tumour classification",
Neurocomputing 682:133460, 2026 (arXiv 2206.05148). GP stands for global pooling.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.errors import InputError, OptionError

POOL_AT = ("features", "map")
POOLING = ("max", "top")
NORMS = ("none", "batch", "instance")


class GPUNet(nn.Module):
    """U-Net classifier that carries its own heatmap.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, num_classes
        Input channels C and class logits K (K = 1: present or absent, with a sigmoid).
    features
        Channels of each level, from the finest to the coarsest; its length is the depth.
        The paper's network is ``(64, 128, 256)``.
    norm
        ``"none"`` as published, ``"batch"`` or ``"instance"``.
    pool_at
        ``"features"`` as published: the last feature map is pooled, then the 1x1
        convolution gives the logits. ``"map"``: the 1x1 convolution comes first and the
        heatmap itself is pooled, so that a logit is the mean of heatmap values.
    pooling
        ``"max"`` as published; ``"top"``: the mean of the highest `top_fraction` of the
        positions, smoother to train because more than one pixel receives a gradient.
    top_fraction
        Share of the positions that ``"top"`` averages, in (0, 1]; at least one position.

    Notes
    -----
    The shipped weights use ``pool_at="map"``, ``pooling="top"`` and batch norm, where the
    paper has ``"features"``, ``"max"`` and none. Up-sampling is nearest-neighbour to the
    skip's size, so that any input of at least ``2 ** (depth - 1)`` positions an axis fits.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 1,
        features: Sequence[int] = (64, 128, 256),
        norm: str = "none",
        pool_at: str = "features",
        pooling: str = "max",
        top_fraction: float = 0.01,
    ) -> None:
        super().__init__()
        _check_choice("norm", norm, NORMS)
        _check_choice("pool_at", pool_at, POOL_AT)
        _check_choice("pooling", pooling, POOLING)
        if not 0 < top_fraction <= 1:
            raise OptionError(f"top_fraction must lie in (0, 1], got {top_fraction}.")
        self.pool_at, self.pooling, self.top_fraction = pool_at, pooling, top_fraction
        self.down = Pool[Pool.AVG, spatial_dims](2)
        channels = [in_channels, *features]
        self.encoder = nn.ModuleList(
            _double_conv(spatial_dims, a, b, norm) for a, b in pairwise(channels)
        )
        self.decoder = nn.ModuleList(
            _double_conv(spatial_dims, coarse + fine, fine, norm)
            for coarse, fine in zip(features[:0:-1], features[-2::-1], strict=True)
        )
        self.head = Conv[Conv.CONV, spatial_dims](features[0], num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of an image batch (B, C, *spatial)."""
        return self.forward_heatmap(x)[0]

    def forward_heatmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the signed heatmap (B, K, *spatial), in logit units."""
        features = self._forward_features(x)
        heatmap = self.head(features)
        if self.pool_at == "map":
            return self._pool(heatmap), heatmap
        pooled = self._pool(features).reshape(*features.shape[:2], *[1] * (features.ndim - 2))
        return self.head(pooled).flatten(1), heatmap

    def _forward_features(self, x: Tensor) -> Tensor:
        least = 2 ** (len(self.encoder) - 1)
        if min(x.shape[2:]) < least:
            raise InputError(
                f"An image must have at least {least} pixels along each axis after resampling, "
                f"got {tuple(x.shape[2:])}. Choose another slice axis, or finer pixels."
            )
        skips = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            skips.append(block(self.down(skips[-1])))
        y = skips.pop()
        for block in self.decoder:
            skip = skips.pop()
            y = block(torch.cat([F.interpolate(y, size=skip.shape[2:]), skip], dim=1))
        return y

    def _pool(self, x: Tensor) -> Tensor:
        values = x.flatten(2)
        if self.pooling == "max":
            return values.amax(-1)
        count = max(1, round(self.top_fraction * values.shape[-1]))
        return values.float().topk(count, dim=-1).values.mean(-1).to(x.dtype)


def _double_conv(spatial_dims: int, in_channels: int, out_channels: int, norm: str) -> nn.Module:
    conv = Conv[Conv.CONV, spatial_dims]
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(conv(channels, out_channels, kernel_size=3, padding=1, bias=norm == "none"))
        if norm != "none":
            layers.append(Norm[norm, spatial_dims](out_channels, affine=True))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
