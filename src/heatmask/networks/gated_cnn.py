"""A classifier of kinds of a finding, and the gate that says whether there is one.

A classifier that was trained on images of a finding alone finds one in every image. So a second
classifier, trained on images with and without it, says which images the first is to be asked about.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatmask.networks.cnn import CNN


class GatedCNN(nn.Module):
    """A `heatmask.networks.cnn.CNN` for the kinds, and two for the finding itself.

    The gate takes all channels, the classifier the first alone: images of the kinds may show one
    sequence where those with and without the finding show several. The two share nothing, and
    ``forward`` is the classifier's, so that every attribution method explains the kind. Target
    layers are ``classifier.stage1``, ...

    Parameters
    ----------
    spatial_dims, in_channels, num_classes, features, norm, top_fraction
        As of `CNN`.
    gate_features
        Channels of each stage of the gate's CNNs; None for no gate: the classifier then takes all
        channels.
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
            self.gate = CNN(spatial_dims, in_channels, 1, gate_features, norm, top_fraction)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the kinds in an image batch (B, C, *spatial)."""
        return self.classifier(x[:, : self.taken])
