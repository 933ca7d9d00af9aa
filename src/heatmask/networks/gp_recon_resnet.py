"""GP-ReconResNet: a residual encoder-decoder without skips across, with a GP head.

Chatterjee et al., arXiv 2206.05148 (the head), and Chatterjee et al., "ReconResNet:
Regularised residual learning for MR image reconstruction of undersampled Cartesian and radial
data", Computers in Biology and Medicine 143:105321, 2022 (the body).
"""

from itertools import pairwise

import torch
from monai.networks.layers.factories import Act, Conv, Dropout
from torch import Tensor, nn

from heatmask.networks.blocks import NORMS, make_norm
from heatmask.networks.global_pooling import (
    GPNetwork,
    check_choice,
    check_size,
    crop_to,
    make_head,
    pad_to_multiple,
)


class GPReconResNet(GPNetwork):
    """ReconResNet classifier that carries its own heatmap.

    A 7x7 convolution, strided convolutions that halve the grid and double the channels,
    residual blocks, and transposed convolutions back to the image's grid.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, num_classes
        Input channels C and class logits K.
    features
        Channels on the image's grid. The paper's is 64.
    blocks
        Residual blocks on the coarsest grid. The paper's is 14.
    halvings
        How many times the grid is halved. The paper's is 2.
    norm
        ``"instance"`` as published, ``"batch"`` or ``"none"``.
    dropout
        Share of a block's channels that training drops. The paper's is 0.2.
    pool_at, pooling, top_fraction
        The head's, see `heatmask.networks.global_pooling.GPNetwork`.

    Notes
    -----
    Convolutions mirror the image at its border, so it must have at least 8 pixels along each
    axis. It is padded with zeros to a multiple of ``2 ** halvings`` and the features are
    cropped again, so that any larger size fits.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 1,
        features: int = 64,
        blocks: int = 14,
        halvings: int = 2,
        norm: str = "instance",
        dropout: float = 0.2,
        pool_at: str = "features",
        pooling: str = "max",
        top_fraction: float = 0.01,
    ) -> None:
        super().__init__(pool_at, pooling, top_fraction)
        check_choice("norm", norm, NORMS)
        self.multiple = 2**halvings
        conv, widen = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        widths = [features * 2**step for step in range(halvings + 1)]
        entry = conv(in_channels, features, 7, padding=3, padding_mode="reflect")
        layers = [entry, *make_norm(spatial_dims, features, norm), Act["prelu"]()]
        for fine, coarse in pairwise(widths):
            down = conv(fine, coarse, 3, stride=2, padding=1)
            layers += [down, *make_norm(spatial_dims, coarse, norm), Act["prelu"]()]
        layers += [_Residual(spatial_dims, widths[-1], norm, dropout) for _ in range(blocks)]
        for coarse, fine in pairwise(widths[::-1]):
            up = widen(coarse, fine, 3, stride=2, padding=1, output_padding=1)
            layers += [up, *make_norm(spatial_dims, fine, norm), Act["prelu"]()]
        self.body = nn.Sequential(*layers)
        self.head = make_head(spatial_dims, features, num_classes)
        self.least = max(8, 2 * self.multiple)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, features, *spatial)."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            check_size(x, [self.least] * (x.ndim - 2))
        return crop_to(
            self.body(pad_to_multiple(x, [self.multiple] * (x.ndim - 2))), list(x.shape[2:])
        )


class _Residual(nn.Module):
    def __init__(self, spatial_dims: int, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.body = nn.Sequential(
            conv(width, width, 3, padding=1, padding_mode="reflect"),
            *make_norm(spatial_dims, width, norm),
            Act["prelu"](),
            Dropout[Dropout.DROPOUT, spatial_dims](dropout),
            conv(width, width, 3, padding=1, padding_mode="reflect"),
            *make_norm(spatial_dims, width, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
