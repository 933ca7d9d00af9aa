"""A classifier of kinds of a finding, and the gate that says whether there is one.

A classifier that was trained on images of a finding alone finds one in every image. So a second
classifier, trained on images with and without it, says which images the first is to be asked about.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from heatmask.networks.cnn import CNN


class GatedCNN(nn.Module):
    """A `heatmask.networks.cnn.CNN` for the kinds, and a `Gate` for the finding itself.

    The gate takes all channels, the classifier the first alone: images of the kinds may show one
    sequence where those with and without the finding show several. ``forward`` is the
    classifier's, so that every attribution method explains the kind. Target layers are
    ``classifier.stage1``, ...

    Parameters
    ----------
    spatial_dims, in_channels, num_classes, features, norm, top_fraction
        As of `CNN`.
    gate_features
        Channels of each stage of the gate's CNNs, as many as the classifier's first; None for no
        gate: the classifier then takes all channels.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 1,
        features: Sequence[int] = (16, 32, 64, 128, 256),
        norm: str = "batch",
        top_fraction: float = 1.0,
        gate_features: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.taken = in_channels if gate_features is None else 1
        self.classifier = CNN(spatial_dims, self.taken, num_classes, features, norm, top_fraction)
        if gate_features is not None:
            self.gate = Gate(spatial_dims, in_channels, gate_features, norm, top_fraction)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the kinds in an image batch (B, C, *spatial)."""
        return self.classifier(x[:, : self.taken])


class Gate(nn.Module):
    """Whether there is a finding: a CNN for all sequences, one for the first alone.

    No gradient reaches the second: its stages are those of a classifier that has seen many more
    images of that sequence, its last layer is fitted to them (see `heatmask.training.gate`).

    Parameters
    ----------
    spatial_dims, in_channels, features, norm, top_fraction
        As of `CNN`.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        features: Sequence[int],
        norm: str,
        top_fraction: float,
    ) -> None:
        super().__init__()
        self.every = CNN(spatial_dims, in_channels, 1, features, norm, top_fraction)
        self.alone = CNN(spatial_dims, 1, 1, features, norm, top_fraction)
        self.alone.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the CNN for the first sequence alone keeps its batch statistics."""
        super().train(mode)
        self.alone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, 1) of an image batch (B, C, *spatial)."""
        others = x[:, 1:].flatten(1).ne(0).any(dim=1)
        logits = torch.empty((len(x), 1), dtype=torch.float32, device=x.device)
        if others.any():
            logits[others] = self.every(x[others]).float()
        if not others.all():
            logits[~others] = self.alone(x[~others, :1]).float()
        return logits
