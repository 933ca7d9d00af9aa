"""CAMs put together with guided backprop, or over several layers."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from heatmask.attribution.cam.channel import GRADIENT_CAMS, weigh_grad_cam
from heatmask.attribution.cam.layers import TargetLayer, view_layers, weigh_classes
from heatmask.attribution.classes import ClassIdx, differentiate, select_logits
from heatmask.attribution.images import resize_to
from heatmask.attribution.registry import Explained, register
from heatmask.attribution.relu_rules import ReluRules
from heatmask.options import Option

_FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "max": lambda maps: maps.amax(0),
    "product": lambda maps: maps.relu().pow(1 / len(maps)).prod(0),
}
"""From maps (stages, B, M, *spatial) to (B, M, *spatial)."""


@register(
    "guided_grad_cam",
    family="cam",
    needs=("gradients", "relu", "layer"),
    passes=2,
    paper="Selvaraju et al. 2017, arXiv 1610.02391",
    source="Heatmask: Captum's takes two forwards and gates only nn.ReLU modules",
    size_power=2,  # two gradients, multiplied
)
def explain_by_guided_grad_cam(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, target_layer: TargetLayer = None
) -> Explained:
    """Guided backprop where Grad-CAM is positive, times it.

    Both come from one forward pass: its graph is followed to the layer with the plain
    gradient and to the image with the guided one.
    """
    images = images.detach().requires_grad_()
    with ReluRules() as rules:
        logits, activations = view_layers(network, images, target_layer)
    rules.require_calls(network)
    (cam,) = weigh_classes(logits, activations, class_idx, weigh_grad_cam, keep_graph=True)
    rules.rule = "guided"
    (guided,) = differentiate(select_logits(logits, class_idx), [images])
    return logits.detach(), guided.sum(2) * resize_to(cam.relu(), images.shape[2:])


@register(
    "multi_stage_cam",
    family="cam",
    needs=("gradients", "layer"),
    several_layers=True,
    passes=2,
    paper="Dugaesescu et al. 2024; Jiang et al. 2021, IEEE TIP 30:5875",
    source="Heatmask: stages on one fixed scale, found by themselves",
    size_power=0,  # maps are times their number of positions
)
def explain_by_multi_stage_cam(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    base: str = "layer_cam",
    fuse: str = "mean",
    target_layer: TargetLayer = None,
) -> Explained:
    """CAMs of several layers, brought to the finest of their grids and fused.

    Layers are the last map of each spatial size, unless `target_layer` names them. Each map is
    that of the method `base` times its number of positions, so that its mean over the image
    is the layer's share in the logit: no stage is divided by an image's own maximum, as the
    papers do, which would make every healthy image hot. `fuse` is ``"mean"``, the stages
    concatenated and weighed alike, or ``"max"``: the finest stages lead in both, because they
    are the most concentrated. ``"product"`` is the geometric mean, which keeps what all stages
    agree on, but makes much of rounding where a stage is near zero. Each map ends in a ReLU
    before fusing, except with the signed base hires_cam; ``"product"`` always has one.
    """
    Option("base", base, choices=tuple(GRADIENT_CAMS)).check(base)
    Option("fuse", fuse, choices=tuple(_FUSIONS)).check(fuse)
    logits, activations = view_layers(network, images, target_layer, all_stages=True)
    maps = weigh_classes(logits, activations, class_idx, GRADIENT_CAMS[base])
    if base != "hires_cam":
        maps = [one.relu() for one in maps]
    finest = max((one.shape[2:] for one in maps), key=lambda size: size.numel())
    stages = [resize_to(one * one.shape[2:].numel(), finest) for one in maps]
    return logits.detach(), _FUSIONS[fuse](torch.stack(stages))
