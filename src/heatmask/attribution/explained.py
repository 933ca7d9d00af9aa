"""The explained-classifier protocol: images in, logits and attribution out.

An explained classifier is any network with

``forward_heatmap(images) -> (logits, attribution)``

where `images` is (B, C, *spatial), `logits` (B, K) and `attribution` (B, K, *spatial of
any resolution), signed and unnormalised. Networks that explain themselves (the GP family)
bring it along; every other classifier gets the pair from `heatmask.attribution.Explainer`.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class ExplainedClassifier(Protocol):
    """A classifier that gives an attribution beside its logits."""

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K) and attribution (B, K, *spatial)."""
