"""Backward rules for every ReLU of a forward pass, however the network spells it.

Hooks on `nn.ReLU` modules, as Captum and MONAI set them, miss ``F.relu``, and go wrong where
a module is used twice, works in place, or shares its input with a skip. Here each call of a
ReLU function is caught as it happens, in this thread alone, and leaves nothing behind.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from heatmask.errors import MethodError

Rule = Literal["plain", "guided", "deconvolution"]

_THRESHOLD_BACKWARD = torch.ops.aten.threshold_backward


class _Relu(NamedTuple):
    """A call that is a ReLU: of what, cut off at which height, and whether in place."""

    input: Tensor
    top: float | None = None
    in_place: bool = False


class ReluRules(TorchFunctionMode):
    """Context in which the ReLUs of a forward pass get a rule for the backward pass.

    Attributes
    ----------
    rule : str
        Read during the backward pass, so that one forward serves several rules:
        ``"plain"``, the gradient; ``"guided"``, where input and gradient are positive
        (Springenberg et al. 2015); ``"deconvolution"``, where the gradient is positive
        (Zeiler and Fergus 2014).
    calls : int
        ReLU calls seen.

    Notes
    -----
    The forward pass must run in the context, the backward pass need not. Caught are
    ``nn.ReLU``, ``nn.ReLU6`` and their functions, a clamp from zero, a threshold at zero and
    the maximum with zeros, in place or not. What is spelt otherwise, compiled or scripted
    passes by; the checks refuse such a network (`heatmask.attribution.checks`).
    """

    def __init__(self, rule: Rule = "plain") -> None:
        super().__init__()
        self.rule: Rule = rule
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace a ReLU by one that asks for the rule when its gradient is due."""
        kwargs = kwargs or {}
        read = None if kwargs.get("out") is not None else _READERS.get(func)
        relu = read(*args, **kwargs) if read else None
        if relu is None or not relu.input.is_floating_point():  # a clamp may be of indices
            return func(*args, **kwargs)
        self.calls += 1
        in_place = relu.in_place or func.__name__.endswith("_")
        return _RuledRelu.apply(relu.input, self, relu.top, in_place)

    def require_calls(self, network: nn.Module) -> None:
        """Raise `MethodError` if a forward pass of the network called no ReLU."""
        if self.calls == 0:
            raise MethodError(
                "Guided backprop and deconvolution need ReLU activations, and "
                f"{type(network).__name__} calls none."
            )

    def backward(self, gradient: Tensor, output: Tensor) -> Tensor:
        """Return the gradient by the input of a ReLU, under the rule of the moment."""
        if self.rule == "deconvolution":
            return gradient.relu()
        passed = _THRESHOLD_BACKWARD(gradient, output, 0)
        return passed.relu_() if self.rule == "guided" else passed


class _RuledRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, rules: ReluRules, top: float | None, in_place: bool
    ) -> Tensor:
        if in_place:
            ctx.mark_dirty(input)
            output = torch.relu_(input) if top is None else input.clamp_(0, top)
        else:
            output = torch.relu(input) if top is None else input.clamp(0, top)
        ctx.save_for_backward(output)
        ctx.rules, ctx.top = rules, top
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (output,) = ctx.saved_tensors
        gradient = ctx.rules.backward(gradients[0], output)
        if ctx.top is not None and ctx.rules.rule != "deconvolution":
            gradient = gradient * (output < ctx.top)
        return gradient, None, None, None


# One reader for each signature: it returns the ReLU that a call is, or None.


def _read_relu(input: Tensor, inplace: bool = False) -> _Relu:
    return _Relu(input, in_place=inplace)


def _read_relu6(input: Tensor, inplace: bool = False) -> _Relu:
    return _Relu(input, 6.0, inplace)


def _read_hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> _Relu | None:
    return _Relu(input, max_val, inplace) if min_val == 0 else None


def _read_clamp(
    input: Tensor, min: object = None, max: object = None, out: None = None
) -> _Relu | None:
    if not _is_zero(min) or not (max is None or isinstance(max, int | float)):
        return None
    return _Relu(input, max)


def _read_threshold(
    input: Tensor, threshold: object, value: object, inplace: bool = False, out: None = None
) -> _Relu | None:
    return _Relu(input, in_place=inplace) if _is_zero(threshold) and _is_zero(value) else None


def _read_maximum(input: Tensor, other: object = None, *args: Any, **kwargs: Any) -> _Relu | None:
    for one, zeros in ((input, other), (other, input)):
        if not isinstance(one, Tensor) or not isinstance(zeros, Tensor):
            continue
        # What has a gradient only happens to be zero.
        if not zeros.requires_grad and _broadcasts(zeros, one) and not zeros.any():
            return _Relu(one)
    return None


def _is_zero(value: object) -> bool:
    return isinstance(value, int | float) and value == 0


def _broadcasts(small: Tensor, large: Tensor) -> bool:
    sizes = zip(reversed(small.shape), reversed(large.shape), strict=False)
    return small.ndim <= large.ndim and all(a in (1, b) for a, b in sizes)


_READERS: dict[Callable[..., Any], Callable[..., _Relu | None]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_), _read_relu),
    F.relu6: _read_relu6,
    F.hardtanh: _read_hardtanh,  # what nn.ReLU6 calls
    **{
        getattr(home, name): read
        for home in (torch, Tensor)
        for read, names in (
            (_read_clamp, "clamp clamp_ clip clip_ clamp_min clamp_min_"),
            (_read_maximum, "maximum max"),
        )
        for name in names.split()
    },
    **dict.fromkeys((F.threshold, torch.threshold, torch.threshold_), _read_threshold),
}
"""The functions that may be a ReLU."""
