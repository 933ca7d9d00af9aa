"""Put a network into the form that relevance propagation (LRP) is made for.

LRP hands relevance back through sums of products. Batch norms become part of the layers they
follow, as in Pahde et al. 2023 (arXiv 2211.17174), and additions and averages outside of
modules get the rule that zennit's `Sum` and pooling modules would give them. Both by what a
forward pass does, not by what a network is called: skips, activations used twice and
functional calls of any architecture are seen.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion
from torch.overrides import TorchFunctionMode

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

_SHARED: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(home, name): getattr(home if home is F else torch, base)
    for base, names in {
        "add": "add add_ __add__ __iadd__ __radd__",
        "sub": "sub sub_ __sub__ __isub__",
        "mul": "mul mul_ __mul__ __imul__ __rmul__",
        "div": "div div_ __truediv__ __itruediv__",
        "sum": "sum",
        "mean": "mean",
        **{f"avg_pool{n}d": f"avg_pool{n}d" for n in (1, 2, 3)},
        **{f"adaptive_avg_pool{n}d": f"adaptive_avg_pool{n}d" for n in (1, 2, 3)},
    }.items()
    for name in names.split()
    for home in ((F,) if "pool" in name else (torch, Tensor))
    if hasattr(home, name)
}
"""Sums, averages and scalings, and the function that computes them out of place."""
_PRODUCTS = (torch.mul, torch.div)


def fold_batch_norms(network: nn.Module, images: Tensor) -> Tensor:
    """Make each batch norm part of the layer whose output it gets; return the logits before.

    Parameters
    ----------
    network
        A frozen private copy in eval mode; it is changed.
    images
        A batch (B, C, *spatial); only the first image is run.

    Notes
    -----
    A batch norm that gets anything else is left alone: of a concatenation, as in DenseNet, or
    after an activation.
    """
    outputs: dict[int, tuple[Tensor, int, nn.Module]] = {}  # tensors are held: ids stay unique
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def note_output(layer: nn.Module, inputs: object, output: Tensor) -> None:
        outputs[id(output)] = output, output._version, layer

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        _, version, layer = outputs.get(id(inputs[0]), (None, None, None))
        # Another version: something has worked on the output in place.
        if layer and version == inputs[0]._version and norm.running_mean is not None:
            pairs.append((layer, norm))

    handles = [
        module.register_forward_hook(note_output)
        if isinstance(module, Layer)
        else module.register_forward_pre_hook(note_input)
        for module in network.modules()
        if isinstance(module, Layer | BatchNorm)
    ]
    with torch.no_grad():
        logits = network(images[:1])
    for handle in handles:
        handle.remove()
    for layer, norm in pairs:
        linear = isinstance(layer, nn.Linear)
        fuse: Any = fusion.fuse_linear_bn_eval if linear else fusion.fuse_conv_bn_eval
        _replace(network, layer, fuse(layer, norm))
        _replace(network, norm, nn.Identity())
    return logits


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def stabilize(output: Tensor, epsilon: float = 1e-9) -> Tensor:
    """Return a layer's output (B, *shape), moved away from zero for a division.

    By `epsilon` times its root mean square over each image, so that a network and its
    rescaled copy are explained alike. The default only keeps from dividing by zero: more
    would make a soft gate of every skip's sum, which rounding moves.
    """
    scale = output.square().mean(dim=tuple(range(1, output.ndim)), keepdim=True).sqrt()
    return output + torch.where(output < 0, -1.0, 1.0) * (epsilon * scale + 1e-12)


class Shares(TorchFunctionMode):
    """Context in which sums, averages and scalings hand relevance back by each operand's share.

    The epsilon rule for what has no weights: ``R_i = x_i / sum(x) * R``. Without it autograd
    would hand the whole to each operand of a sum, twice as much as there was.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace a sum, an average or a scaling of maps."""
        kwargs = kwargs or {}
        operands = [a for a in args[:2] if isinstance(a, Tensor)]
        if func not in _SHARED or not _can_share(_SHARED[func], operands):
            return func(*args, **kwargs)
        weighed = [_Weigh.apply(a, a.detach()) if isinstance(a, Tensor) else a for a in args]
        output = _SHARED[func](*weighed, **kwargs)
        return _Weigh.apply(output, stabilize(output.detach()).reciprocal())


def _can_share(func: Callable[..., Any], operands: list[Tensor]) -> bool:
    """Whether the rule is for this: not for a product of two maps, nor for adding a bias."""
    dependent = sum(a.requires_grad for a in operands)
    if func in _PRODUCTS:
        return dependent == 1
    return dependent > 0 and len({a.shape for a in operands}) == 1


class _Weigh(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor, None
