"""The explained-classifier call: images in, logits and attribution out.

An explained classifier is any network with

``forward_heatmap(images) -> (logits, attribution)``

where `images` is (B, C, *spatial), `logits` (B, K) and `attribution` (B, K, *spatial of
any resolution), signed and unnormalised. Networks that explain themselves (the GP family)
bring it along; every other classifier gets it from an explainer around it.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from heatmask.errors import OptionError

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@runtime_checkable
class ExplainedClassifier(Protocol):
    """A classifier that gives an attribution beside its logits."""

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K) and attribution (B, K, *spatial)."""


def explain_batch(network: object, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 logits (B, K) and the attribution on the images' grid (B, K, *spatial).

    Raises
    ------
    OptionError
        `network` is not an explained classifier.
    """
    if not isinstance(network, ExplainedClassifier):
        raise OptionError(
            "The network must offer forward_heatmap(images) -> (logits, attribution), "
            f"and {type(network).__name__} does not. Use a GP network or wrap it in an explainer."
        )
    logits, attribution = network.forward_heatmap(images)
    spatial = images.shape[2:]
    if attribution.shape[2:] != spatial:
        mode = _LINEAR[len(spatial)]
        attribution = F.interpolate(attribution.float(), size=tuple(spatial), mode=mode)
    return logits.float(), attribution.float()
