"""The network that was given, and the private copy of it that every attribution works on."""

import copy
import threading
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from heatmask.errors import MethodError

_KNOWN: "WeakKeyDictionary[nn.Module, tuple[list[Any], dict[Any, Any]]]" = WeakKeyDictionary()
_KNOWN_LOCK = threading.Lock()
_SWITCHES = (bool, int, float, str)


def recall(network: nn.Module) -> dict[Any, Any]:
    """Return what was found out about a network as it is now, to be added to.

    It is empty once a tensor was replaced or changed in place (by more than its ``.data``), or
    a module, a hook or a switch of a module changed.
    """
    network = find_bare(network)
    state: list[Any] = [
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype)
        for tensor in chain(network.parameters(), network.buffers())
    ]
    for module in network.modules():
        switches = [v for k, v in vars(module).items() if type(v) in _SWITCHES and k != "training"]
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        state.append((id(module), hooks, switches))
    with _KNOWN_LOCK:
        if network not in _KNOWN or _KNOWN[network][0] != state:
            _KNOWN[network] = state, {}
        return _KNOWN[network][1]


class TorchScript(nn.Module):
    """A TorchScript network inside of a module that takes hooks, as TorchScript does not."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits."""
        return self.network(images)


def find_bare(network: nn.Module) -> nn.Module:
    """Return a network as it was before `torch.compile` or data parallelism wrapped it.

    Raises
    ------
    MethodError
        It is no module, or has no weights yet.
    """
    if not isinstance(network, nn.Module):
        is_class = isinstance(network, type)
        got = f"the class {network.__name__}" if is_class else type(network).__name__
        raise MethodError(
            f"A network must be a torch.nn.Module, got {got}. Build the network, load its "
            "weights with load_state_dict, and give that."
        )
    network = _unwrap(network)
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if is_lazy(tensor):
            raise MethodError(
                f"A network must have weights, and {name!r} of this {type(network).__name__} has "
                "no size yet. Run it once on an image, then load its weights."
            )
        if tensor.is_meta:
            raise MethodError(
                f"A network must have weights, and {name!r} of this {type(network).__name__} is on "
                "the device 'meta', which holds none. Build it on the CPU or the GPU, or load its "
                "weights with load_state_dict(..., assign=True)."
            )
    return network


def copy_frozen(network: nn.Module) -> nn.Module:
    """Return a copy of `network` in eval mode whose parameters share its memory, frozen.

    Buffers are copied, for a forward pass may write to them; so is all of a TorchScript network.

    A method may hook, patch or switch the copy as it likes and throw it away: the network
    itself, its hooks, flags, buffers and ``.grad`` cannot be left changed, an exception
    cannot leave anything behind, and calls from several threads do not meet. Frozen
    parameters keep autograd from storing what only weight gradients need.

    What was compiled or made parallel, the network or a part of it, comes back as it was
    before, or rules and hooks would not be seen.

    Raises
    ------
    MethodError
        See `find_bare`; or the network holds something that Python cannot copy.
    """
    network = find_bare(network)
    shared: dict[int, object] = {}
    for module in network.modules():
        for value in vars(module).values():  # left from a forward, or remade by each
            if isinstance(value, Tensor) and not value.is_leaf:
                shared[id(value)] = value.detach()
    for parameter in network.parameters():
        values = parameter.clone() if parameter.is_inference() else parameter
        shared[id(parameter)] = nn.Parameter(values.detach(), requires_grad=False)
    for buffer in network.buffers():
        shared[id(buffer)] = buffer.detach().clone()
    try:
        with torch.no_grad():  # or TorchScript's copy would depend on the graph of its original
            private = copy.deepcopy(network, shared).eval()
    except Exception as error:
        raise MethodError(
            "A network must be one that copy.deepcopy can copy, because methods work on a "
            f"copy of it, and {type(network).__name__} is not: {error}. "
            "Give the bare network, without what its training left in it."
        ) from error
    if isinstance(private, torch.jit.ScriptModule):
        private = TorchScript(private)
    _unwrap_parts(private)
    return private.requires_grad_(False)


def _unwrap(network: nn.Module) -> nn.Module:
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrap(network.module)
    compiled = getattr(network, "_orig_mod", None)
    return network if compiled is None else _unwrap(compiled)


def _unwrap_parts(network: nn.Module) -> None:
    for name, child in network.named_children():
        bare = _unwrap(child)
        if bare is not child:
            setattr(network, name, bare)
        _unwrap_parts(bare)
