"""Backward rules for every ReLU of a forward pass, however the network spells it.

Hooks on `nn.ReLU` modules, as Captum and MONAI set them, miss ``F.relu``, and go wrong where
a module is used twice, works in place, or shares its input with a skip. Here each call of a
ReLU function is caught as it happens, in this thread alone, and leaves nothing behind.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Rule = Literal["plain", "guided", "deconvolution"]

_THRESHOLD_BACKWARD = torch.ops.aten.threshold_backward


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
    ``nn.ReLU``, ``nn.ReLU6`` and their functions, in place or not. A compiled network
    passes them by.
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
        if func in _RELUS:
            return self._apply(*args, top=None, in_place=_RELUS[func], **kwargs)
        if func is F.relu6:
            return self._apply(*args, top=6.0, in_place=False, **kwargs)
        if func is F.hardtanh:  # what nn.ReLU6 calls
            return self._clip(*args, **kwargs)
        return func(*args, **kwargs)

    def _clip(
        self, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        if min_val != 0:
            return F.hardtanh(input, min_val, max_val, inplace)
        return self._apply(input, inplace, top=max_val, in_place=False)

    def _apply(
        self, input: Tensor, inplace: bool = False, *, top: float | None, in_place: bool
    ) -> Tensor:
        self.calls += 1
        return _RuledRelu.apply(input, self, top, inplace or in_place)

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


_RELUS: dict[Callable[..., Any], bool] = {
    F.relu: False,
    torch.relu: False,
    Tensor.relu: False,
    torch.relu_: True,
    Tensor.relu_: True,
}
"""The functions that are a ReLU, and whether they always work in place."""
