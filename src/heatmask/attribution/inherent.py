"""Networks that explain themselves, and the heatmap that they bring along."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.registry import Explained, register
from heatmask.errors import MethodError


@runtime_checkable
class ExplainedClassifier(Protocol):
    """A classifier that gives an attribution beside its logits, as the GP networks do.

    Every other classifier gets the pair from `heatmask.attribution.Explainer`.
    """

    def forward_heatmap(self, images: Tensor) -> Explained:
        """Return logits (B, K) and attribution of images (B, C, *spatial).

        The attribution is (B, K, *spatial of any resolution), signed and unnormalised.
        """


@register(
    "inherent", family="inherent", needs=("heatmap",), passes=1,
    paper="Chatterjee et al. 2026, Neurocomputing 682:133460", in_one_forward=True,
)  # fmt: skip
def explain_inherently(network: nn.Module, images: Tensor, class_idx: ClassIdx) -> Explained:
    """The heatmap that a GP network pools into its logits, in logit units."""
    if not isinstance(network, ExplainedClassifier):
        raise MethodError(
            "The method 'inherent' needs a network that offers "
            "forward_heatmap(images) -> (logits, attribution), "
            f"and {type(network).__name__} does not."
        )
    with torch.no_grad():
        logits, heatmap = network.forward_heatmap(images)
    chosen = index_classes(logits, class_idx)
    chosen = chosen.reshape(*chosen.shape, *[1] * (heatmap.ndim - 2))
    return logits, heatmap.gather(1, chosen.expand(*chosen.shape[:2], *heatmap.shape[2:]))
