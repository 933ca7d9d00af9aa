"""Count the activations of a forward pass that are no ReLU."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

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
