"""Find ReLUs that `ReluRules` does not reach, by what they do and not by how they are spelt."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from heatmask.attribution.relu_rules import ReluRules


class CountedRules(ReluRules):
    """Rules that count where they were asked for on the way back.

    A ReLU inside of an autograd function of the network's own, or of a checkpoint, is seen on
    the way forward, but its gradient is made elsewhere.

    Attributes
    ----------
    asked : int
        ReLU calls whose gradient was made under a rule.
    """

    def __init__(self) -> None:
        super().__init__("guided")
        self.asked = 0

    def backward(self, gradient: Tensor, output: Tensor) -> Tensor:
        """Count, and return the gradient by the input of a ReLU."""
        self.asked += 1
        return super().backward(gradient, output)


class GateWatch(TorchDispatchMode):
    """Context that notes the operations which gate a tensor by its sign outside of rules.

    Such a one gives zero just where a floating input of the same shape is negative, or just
    where it is positive, and the input has both: ``torch.where(x > 0, x, 0)``,
    ``x * (x > 0)``, ``x[x < 0] = 0``, a ReLU that is called past Python.

    Parameters
    ----------
    rules
        Active around the same forward pass.

    Attributes
    ----------
    calls : int
        How many.
    names : set of str
        Which operations.
    """

    def __init__(self, rules: ReluRules) -> None:
        super().__init__()
        self.rules, self.ruled = rules, 0
        self.calls = 0
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and see whether it gates."""
        kwargs = kwargs or {}
        ruled = self.rules.calls > self.ruled  # the first operation after a call is its ReLU
        self.ruled = self.rules.calls
        inputs = () if ruled else (*args, *kwargs.values())
        signs = [  # before the call, which may work in place
            (value < 0, value > 0)
            for value in inputs
            if isinstance(value, Tensor) and value.is_floating_point()
        ]
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and any(_gates(result, *sign) for sign in signs):
            self.calls += 1
            self.names.add(str(func).removeprefix("aten.").split(".")[0].strip("_"))
        return result


def _gates(result: Tensor, negative: Tensor, positive: Tensor) -> bool:
    if result.shape != negative.shape or not result.is_floating_point():
        return False
    if not (negative.any() and positive.any()):
        return False
    zero = result == 0
    return any(
        bool(zero[off].all()) and not bool(zero[on].any())
        for off, on in ((negative, positive), (positive, negative))
    )
