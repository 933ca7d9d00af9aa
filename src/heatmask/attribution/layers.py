"""Find the layers that a method looks at, and hold their activations."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from heatmask.attribution.frozen import TorchScript
from heatmask.errors import MethodError, OptionError

NO_SCRIPT = "Layers of TorchScript cannot be seen: give the network as it was before torch.jit."


def find_layer(network: nn.Module, target_layer: str) -> nn.Module:
    """Return the submodule with this dotted path.

    Raises
    ------
    OptionError
        There is none; the message gives the closest names.
    MethodError
        It lies in TorchScript.
    """
    layers = dict(network.named_modules(remove_duplicate=False))
    layer = layers.get(target_layer) if target_layer else None
    if isinstance(network, TorchScript) or isinstance(layer, torch.jit.ScriptModule):
        raise MethodError(
            f"target_layer must not be TorchScript, got {target_layer!r}. {NO_SCRIPT}"
        )
    if layer is not None:
        return layer
    names = [name for name in layers if name]
    close = get_close_matches(str(target_layer), names, cutoff=0.3) or names[-3:]
    raise OptionError(
        f"target_layer must name a submodule of {type(network).__name__}, got {target_layer!r}. "
        f"Closest: {', '.join(map(repr, close))}."
    )


class LayerTap:
    """Hold the activations of layers during a forward pass, and their place in the graph.

    Parameters
    ----------
    network
        A frozen private copy (see `heatmask.attribution.frozen`): the hooks stay on it.
    target_layers
        Dotted module paths.

    Notes
    -----
    If the images need no gradient, the graph starts at the earliest layer tapped: below it a
    forward pass keeps no more than in inference. The network goes on with a clone, so that
    what works in place above the layer cannot change what is held. Of a layer that is called
    several times the last call counts.
    """

    def __init__(self, network: nn.Module, target_layers: Sequence[str]) -> None:
        self.target_layers = tuple(target_layers)
        self._held: dict[str, Tensor] = {}
        for name in self.target_layers:
            find_layer(network, name).register_forward_hook(self._make_hook(name))

    @property
    def activations(self) -> list[Tensor]:
        """Activations (B, channels, *spatial) of the layers, in their order.

        Raises
        ------
        MethodError
            A layer was not called, or has no spatial axes.
        """
        for name in self.target_layers:
            if name not in self._held:
                raise MethodError(
                    f"target_layer must be part of the forward pass, and {name!r} was not called."
                )
        return [self._held[name] for name in self.target_layers]

    def _make_hook(self, name: str):  # type: ignore[no-untyped-def]  # torch types hooks loosely
        def hold(module: nn.Module, inputs: object, output: object) -> Tensor:
            if not isinstance(output, Tensor) or output.ndim < 3:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise MethodError(
                    f"target_layer must give a map (batch, channels, *spatial), and {name!r} "
                    f"gives {shape}. Choose a convolutional layer."
                )
            if not output.is_floating_point():
                raise MethodError(
                    f"target_layer must give floating-point numbers, and {name!r} gives "
                    f"{output.dtype}. Give the network as it was before it was quantised."
                )
            if not output.requires_grad:
                output = output.detach().requires_grad_(torch.is_grad_enabled())
            self._held[name] = output
            return output.clone()

        return hold


def find_stages(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Return the layer with the last map of each spatial size, in the order of calls.

    Of a ResNet these are the stem and ``layer1`` to ``layer4``; the last is where Grad-CAM
    looks. A map has the axes of the images and at least 2 positions along each. Maps on which
    the logits do not depend, as those of a decoder beside the classifier, do not count. Only the
    first image is run.

    Raises
    ------
    MethodError
        No layer gives a map on which the logits depend.
    """
    maps: list[tuple[str, torch.Size]] = []  # in the order of calls
    marks: list[Tensor] = []

    def mark(output: object, name: str) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        if output.ndim != images.ndim or min(output.shape[2:]) < 2:
            return None
        maps.append((name, output.shape[2:]))
        marks.append(torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True))
        return output + marks[-1]

    # Scripted modules take no hooks, and parametrizations give weights.
    handles = [
        module.register_forward_hook(lambda _, inputs, output, name=name: mark(output, name))
        for name, module in network.named_modules()
        if name
        and "parametrizations" not in name
        and not isinstance(module, torch.jit.ScriptModule)
    ]
    # Which marks the logits depend on stands in the graph itself: nothing has to be saved for a
    # backward pass, so that this takes no more memory than a forward.
    nothing_saved = torch.autograd.graph.saved_tensors_hooks(
        lambda _: None, lambda _: torch.empty(0)
    )
    try:
        with torch.enable_grad(), nothing_saved:
            reached = _list_leaves(network(images[:1]))
    finally:
        for handle in handles:
            handle.remove()
    matter = [id(leaf) in reached for leaf in marks]
    if not any(matter):  # autograd cannot follow the network at all
        matter = [True] * len(maps)
    stages: dict[torch.Size, str] = {}
    seen: set[str] = set()
    for (name, size), matters in zip(reversed(maps), reversed(matter), strict=True):
        # A layer that is called again later is none: `LayerTap` holds its last call.
        if name not in seen and matters:
            stages.setdefault(size, name)
        seen.add(name)
    if not stages:
        scripted = any(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
        raise MethodError(
            f"{type(network).__name__} must have a layer with a map of at least 2 positions an "
            f"axis, on which the logits depend, for images of {tuple(images.shape[2:])}. "
            f"{NO_SCRIPT if scripted else 'Give target_layer, or larger images.'}"
        )
    return tuple(reversed(stages.values()))


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
