"""The heatmap of networks that explain themselves."""

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.explained import ExplainedClassifier
from heatmask.attribution.registry import register
from heatmask.errors import MethodError


@register(
    "inherent",
    family="inherent",
    needs=("heatmap",),
    cost="1 forward",
    passes=1,
    paper="Chatterjee et al. 2026, Neurocomputing 682:133460",
    in_one_forward=True,
)
def explain_inherently(
    network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> tuple[Tensor, Tensor]:
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
