"""Run a network with the layers in view that a CAM looks at, and weigh their maps.

The default layers are found by watching which modules give maps. What was found is tried
first the next time and checked in the same forward pass, so that it costs nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, differentiate, select_logits
from heatmask.attribution.layers import NO_SCRIPT, LayerTap
from heatmask.errors import MethodError, OptionError

TargetLayer = str | Sequence[str] | None
"""A dotted module path, several where a method takes several, or None to have them found."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""``weigh(activation, gradient) -> map``, of (B, C, *spatial) and the same to (B, *spatial)."""

Stages = tuple[str, ...]

Maps = list[tuple[str, torch.Size]]
"""Name and spatial size of the maps that modules give, in the order of calls."""


class _Found(NamedTuple):
    maps: Maps
    stages: Stages


_FOUND: dict[tuple[object, ...], _Found] = {}
"""Stages by kind of network and images; a first guess only, which `view_layers` checks."""


@contextmanager
def watch_maps(
    network: nn.Module, images: Tensor, hold: Callable[[Tensor], Tensor | None] | None = None
) -> Iterator[Maps]:
    """Note the name and spatial size of every map that a module gives, in the order of calls.

    A map has the axes of the images and at least 2 positions along each. Passed by are scripted
    modules, which take no hooks, and parametrizations, which give weights.

    Parameters
    ----------
    hold
        Called with each map; what it returns, if anything, takes the map's place.
    """
    maps: Maps = []

    def note(name: str):  # type: ignore[no-untyped-def]  # torch types hooks loosely
        def hook(module: nn.Module, inputs: object, output: object) -> Tensor | None:
            if _is_floating(output) and output.ndim == images.ndim:
                size = output.shape[2:]
                if min(size) > 1:
                    maps.append((name, size))
                    return hold(output) if hold else None
            return None

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if name and _takes_hooks(name, module)
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _is_floating(output: object) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.is_floating_point()


def _takes_hooks(name: str, module: nn.Module) -> bool:
    return not isinstance(module, torch.jit.ScriptModule) and "parametrizations" not in name


def find_stages(network: nn.Module, images: Tensor) -> Stages:
    """Return the layer with the last map of each spatial size, in the order of calls.

    Of a ResNet these are the stem and ``layer1`` to ``layer4``; the last is where Grad-CAM
    looks. Maps on which the logits do not depend, as those of a decoder beside the classifier,
    do not count. Only the first image is run.

    Raises
    ------
    MethodError
        No layer gives a map on which the logits depend.
    """
    return _find(network, images).stages


def _find(network: nn.Module, images: Tensor) -> _Found:
    marks: list[Tensor] = []

    def mark(output: Tensor) -> Tensor:
        marks.append(torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True))
        return output + marks[-1]

    # Which marks the logits depend on stands in the graph itself: nothing has to be saved for a
    # backward pass, so that this takes no more memory than a forward.
    nothing_saved = torch.autograd.graph.saved_tensors_hooks(
        lambda _: None, lambda _: torch.empty(0)
    )
    with torch.enable_grad(), nothing_saved, watch_maps(network, images, mark) as maps:
        reached = _list_leaves(network(images[:1]))
    matter = [id(leaf) in reached for leaf in marks]
    if not any(matter):  # autograd cannot follow the network at all
        matter = [True] * len(maps)
    stages = _list_stages(maps, matter)
    if not stages:
        scripted = any(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
        raise MethodError(
            f"{type(network).__name__} must have a layer with a map of at least 2 positions an "
            f"axis, on which the logits depend, for images of {tuple(images.shape[2:])}. "
            f"{NO_SCRIPT if scripted else 'Give target_layer, or larger images.'}"
        )
    return _Found(maps, stages)


def _list_leaves(result: Tensor) -> set[int]:
    """Return the ids of the tensors that a result depends on and that take gradients."""
    nodes, leaves = [result.grad_fn], set()
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        new = {following for following, _ in node.next_functions} - seen
        seen |= new
        nodes += new
    return leaves


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
    if target_layer is not None:
        names = read_layers(target_layer, several=all_stages)
        tap = LayerTap(network, names)
        logits = network(images)
    else:
        modules = tuple((name, type(module)) for name, module in network.named_modules())
        kind = (modules, images.shape[1:])
        found = _FOUND.get(kind) or _find(network, images)
        tap = LayerTap(network, found.stages if all_stages else found.stages[-1:])
        with watch_maps(network, images) as maps:
            logits = network(images)
        if maps != found.maps:
            found = _find(network, images)
            tap = LayerTap(network, found.stages if all_stages else found.stages[-1:])
            logits = network(images)
        _FOUND[kind] = found
    for name, activation in zip(tap.target_layers, tap.activations, strict=True):
        check_map(name, activation, images)
    return logits, tap.activations


def read_layers(target_layer: str | Sequence[str], several: bool = False) -> Stages:
    """Return the names given as `target_layer`.

    Raises
    ------
    OptionError
        There is none, or several where one is wanted.
    """
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
    for at in range(scores.shape[1]):
        more = keep_graph or at < scores.shape[1] - 1
        gradients = differentiate(scores[:, at : at + 1], activations, keep_graph=more)
        with torch.autocast(logits.device.type, enabled=False):
            by_class.append(
                [
                    weigh(widen(activation.detach()), widen(gradient[:, 0]))
                    for activation, gradient in zip(activations, gradients, strict=True)
                ]
            )
    return [torch.stack(maps, dim=1) for maps in zip(*by_class, strict=True)]


def widen(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision as float32, any other as it is."""
    return tensor.float() if tensor.element_size() < 4 else tensor


def _list_stages(maps: Maps, matter: Sequence[bool]) -> Stages:
    """Of each size the layer called last whose map matters, in the order of calls.

    A layer that is called again later is none: `LayerTap` holds its last call.
    """
    stages: dict[torch.Size, str] = {}
    seen: set[str] = set()
    for (name, size), matters in zip(reversed(maps), reversed(matter), strict=True):
        if name not in seen and matters:
            stages.setdefault(size, name)
        seen.add(name)
    return tuple(reversed(stages.values()))
