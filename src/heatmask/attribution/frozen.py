"""The private copy of a network that every attribution works on."""

import copy

from torch import nn

from heatmask.errors import MethodError


def copy_frozen(network: nn.Module) -> nn.Module:
    """Return a copy of `network` in eval mode whose parameters share its memory, frozen.

    Buffers are copied, for a forward pass may write to them.

    A method may hook, patch or switch the copy as it likes and throw it away: the network
    itself, its hooks, flags, buffers and ``.grad`` cannot be left changed, an exception
    cannot leave anything behind, and calls from several threads do not meet. Frozen
    parameters keep autograd from storing what only weight gradients need.

    What was compiled, the network or a part of it, comes back as it was before
    `torch.compile`, which would keep rules and hooks from being seen.

    Raises
    ------
    MethodError
        The network holds something that Python cannot copy.
    """
    shared: dict[int, object] = {}
    for parameter in network.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in network.buffers():
        shared[id(buffer)] = buffer.detach().clone()
    try:
        return _uncompile(copy.deepcopy(network, shared).eval())
    except Exception as error:
        raise MethodError(
            "A network must be one that copy.deepcopy can copy, because methods work on a "
            f"copy of it, and {type(network).__name__} is not: {error}. "
            "Give the bare network, without what its training left in it."
        ) from error


def _uncompile(network: nn.Module) -> nn.Module:
    network = getattr(network, "_orig_mod", network)
    for name, child in network.named_children():
        setattr(network, name, _uncompile(child))
    return network
