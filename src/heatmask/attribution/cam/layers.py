"""Run a network with the layers in view that a CAM looks at, and weigh their channels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, iterate_gradients, select_logits
from heatmask.attribution.layers import LayerTap, find_stages
from heatmask.errors import MethodError, OptionError

TargetLayer = str | Sequence[str] | None
"""A dotted module path, several where a method takes several, or None to have them found."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""``weigh(activation, gradient) -> map``: of a layer and of a class's logit by it, both
(B, C, *spatial), to (B, *spatial)."""


def view_layers(
    network: nn.Module, images: Tensor, target_layer: TargetLayer, all_stages: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Return the logits and the activations of the target layers, from one forward pass.

    If the images need no gradient, the graph starts at the earliest of the layers.

    Parameters
    ----------
    target_layer
        None for the last map, or with `all_stages` for the last of each size.

    Raises
    ------
    OptionError
        A layer is not there, or several are given where one is wanted.
    MethodError
        A layer is not called, or gives no map of several positions.
    """
    tap = LayerTap(network, read_layers(network, images, target_layer, several=all_stages))
    logits = network(images)
    for name, activation in zip(tap.target_layers, tap.activations, strict=True):
        check_map(name, activation, images)
    return logits, tap.activations


def read_layers(
    network: nn.Module, images: Tensor, target_layer: TargetLayer, several: bool = False
) -> tuple[str, ...]:
    """Return the names given as `target_layer`, or else the layers that are looked at by default.

    Raises
    ------
    OptionError
        There is none, or several where one is wanted.
    MethodError
        See `heatmask.attribution.layers.find_stages`.
    """
    if target_layer is None:
        stages = find_stages(network, images)
        return stages if several else stages[-1:]
    names = (target_layer,) if isinstance(target_layer, str) else tuple(target_layer)
    if not names or (len(names) > 1 and not several):
        raise OptionError(
            f"target_layer must name {'at least ' if several else ''}one layer, got {len(names)}: "
            f"{list(names)}. For several layers take the method 'multi_stage_cam'."
        )
    return names


def check_map(name: str, activation: Tensor, images: Tensor) -> None:
    """Raise a `MethodError` unless a layer's activation is a map of the images."""
    if (
        activation.ndim != images.ndim
        or len(activation) != len(images)
        or activation.shape[2:].numel() < 2
    ):
        raise MethodError(
            f"target_layer must give a map (batch, channels, *spatial) of at least 2 positions "
            f"for images of shape {tuple(images.shape)}, and {name!r} gives "
            f"{tuple(activation.shape)}. Choose a convolutional layer."
        )


def weigh_classes(
    logits: Tensor,
    activations: Sequence[Tensor],
    class_idx: ClassIdx,
    weigh: Weigh,
    keep_graph: bool = False,
) -> list[Tensor]:
    """Return the map (B, M, *spatial) of each layer, weighed class by class.

    One class at a time, so that memory holds one gradient of the layers whatever M; the
    backward pass ends at the earliest layer.

    Raises
    ------
    MethodError
        The logits do not depend on the layers.
    """
    scores = select_logits(logits, class_idx)
    if not scores.requires_grad:
        raise MethodError(
            "The logits must depend on target_layer in a way that autograd can follow, and they "
            "do not. Choose a layer on the way to the logits."
        )
    by_class = []
    for gradients in iterate_gradients(scores, activations, keep_graph):
        with torch.autocast(logits.device.type, enabled=False):
            pairs = zip(activations, gradients, strict=True)
            by_class.append([weigh(widen(a.detach()), widen(gradient)) for a, gradient in pairs])
    return [torch.stack(maps, dim=1) for maps in zip(*by_class, strict=True)]


def widen(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision as float32, any other as it is."""
    return tensor.float() if tensor.element_size() < 4 else tensor


def mix_channels(weights: Tensor, activation: Tensor) -> Tensor:
    """Return the sum of a layer's channels, each times its weight.

    Weights are (B, C) for a map (B, *spatial), or (B, M, C) for maps (B, M, *spatial).
    """
    if weights.ndim == 2:
        return torch.einsum("bc,bc...->b...", weights, activation)
    return torch.einsum("bmc,bc...->bm...", weights, activation)
