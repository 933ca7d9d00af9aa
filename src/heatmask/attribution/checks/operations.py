"""Watch the operations of a forward pass: activations, gates and what it ends in.

By what they do, not by how they are spelt: in a module or a function, in TorchScript or not.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heatmask.attribution.relu_rules import ReluRules

_ANYWHERE = frozenset(
    "silu gelu elu selu celu leaky_relu prelu rrelu mish hardswish hardsigmoid hardtanh softplus "
    "softsign logsigmoid tanhshrink softshrink hardshrink threshold glu".split()
)
_ON_MAPS = frozenset(("sigmoid", "tanh"))


class ActivationCounter(TorchFunctionMode):
    """Context that counts the activations of a forward pass which are no ReLU.

    A sigmoid or tanh counts on maps only: on pooled values it is a gate, or the output.

    Attributes
    ----------
    calls : int
        How many.
    names : set of str
        Of which kinds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count the call, and make it."""
        name = getattr(func, "__name__", "").rstrip("_")
        on_map = bool(args) and isinstance(args[0], Tensor) and args[0].shape[2:].numel() > 1
        if name in _ANYWHERE or (name in _ON_MAPS and on_map):
            self.calls += 1
            self.names.add(name)
        return func(*args, **(kwargs or {}))


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


_ENDS = {
    "sigmoid": "a sigmoid",
    "hardsigmoid": "a hard sigmoid",
    "log_sigmoid_forward": "a log-sigmoid",
    "_softmax": "a softmax",
    "_log_softmax": "a log-softmax",
    **dict.fromkeys(("gt", "ge", "lt", "le"), "a threshold"),
}
"""The operations that leave no logits, and what they are called."""

_PASSING = frozenset(
    "clone _to_copy _unsafe_view flip dequantize cat stack index index_select gather mean max min "
    "amax amin rsub exp log clamp clamp_min clamp_max".split()
)
"""What makes no logits of probabilities either; so does every view."""

_SCALING = frozenset("add sub mul div".split())
"""Nor does this, where the other operand is a number."""


class EndWatch(TorchDispatchMode):
    """Context that follows what a sigmoid or a softmax gives through a forward pass.

    Methods explain logits. A probability saturates: where a classifier is sure its gradient is
    zero, and so is the heatmap, as if there were nothing to see.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[int, tuple[Tensor, str]] = {}  # tensors are held: ids stay unique

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note whether what it gives are probabilities."""
        name = func.overloadpacket.__name__.rstrip("_")
        end = _ENDS.get(name, "")
        if func.is_view or name in _PASSING or (name in _SCALING and _are_numbers(args[1:])):
            end = next(filter(None, map(self.name_end, tree_leaves(args[:1]))), "")
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if end:
                self._ends[id(result)] = result, end
            else:  # changed in place
                self._ends.pop(id(result), None)
        return results

    def name_end(self, output: object) -> str:
        """Return what made probabilities of this output; empty if nothing did."""
        return self._ends.get(id(output), (None, ""))[1]


def _are_numbers(operands: tuple[Any, ...]) -> bool:
    return all(not isinstance(value, Tensor) or value.ndim == 0 for value in operands)
