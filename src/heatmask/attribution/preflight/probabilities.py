"""Tell probabilities from logits: by what a forward pass ends in, and by their sum.

Methods explain logits. A probability saturates: where a classifier is sure its gradient is
zero, and so is the heatmap, as if there were nothing to see.
"""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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

_ROUNDING = 1e-5


class EndWatch(TorchDispatchMode):
    """Context that follows what a sigmoid or a softmax gives through a forward pass.

    Seen is every operation, in a module or a function, in TorchScript and without gradients.
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


def name_sum(outputs: Tensor) -> str:
    """Return what outputs (B, K) must come from, if their sum tells; empty if it does not."""
    if outputs.shape[1] < 2:
        return ""
    for values, name in ((outputs, "a softmax"), (outputs.exp(), "a log-softmax")):
        if (values >= 0).all() and ((values.sum(1) - 1).abs() < _ROUNDING).all():
            return name
    return ""
