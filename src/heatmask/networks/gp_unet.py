"""GP-UNet: a U-Net whose dense output is pooled to class logits.

Chatterjee et al., "Weakly-supervised segmentation using inherently-explainable
classification models and their application to brain tumour classification",
Neurocomputing 682:133460, 2026 (arXiv 2206.05148). GP stands for global pooling.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Pool
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.networks.blocks import NORMS, stack_convolutions
from heatmask.networks.global_pooling import GPNetwork, check_choice, check_size, make_head


class GPUNet(GPNetwork):
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
    pool_at, pooling, top_fraction
        The head's, see `heatmask.networks.global_pooling.GPNetwork`.

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
        super().__init__(pool_at, pooling, top_fraction)
        check_choice("norm", norm, NORMS)
        self.down = Pool[Pool.AVG, spatial_dims](2)
        channels = [in_channels, *features]
        self.encoder = nn.ModuleList(
            stack_convolutions(spatial_dims, (a, b, b), norm) for a, b in pairwise(channels)
        )
        self.decoder = nn.ModuleList(
            stack_convolutions(spatial_dims, (coarse + fine, fine, fine), norm)
            for coarse, fine in zip(features[:0:-1], features[-2::-1], strict=True)
        )
        self.head = make_head(spatial_dims, features[0], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, features[0], *spatial)."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            check_size(x, [2 ** (len(self.encoder) - 1)] * (x.ndim - 2))
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.down(x) if level > 0 else x)
            skips.append(x)
        y = skips.pop()
        for block in self.decoder:
            skip = skips.pop()
            y = block(torch.cat([F.interpolate(y, size=skip.shape[2:]), skip], dim=1))
        return y
