"""Find the layer that a CAM looks at, and hold its activation and gradient."""

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
