"""The attribution methods by name, open to a user's own."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import Tensor

from heatmask.errors import OptionError
from heatmask.options import Option

FAMILIES = ("gradient", "cam", "relevance", "perturbation", "inherent")

NEEDS = {
    "gradients": "a network that autograd can differentiate",
    "relu": "ReLU activations and no other kind",
    "layer": "a convolutional target layer (default: the last map)",
    "baseline": "a baseline, the image that shows nothing (default: zeros)",
    "pooled head": "global average pooling followed by one linear layer",
    "heatmap": "a network with forward_heatmap",
    "zennit": "the package zennit",
}
"""What a method may need, by the word its entry uses."""

INVARIANTS = {
    "completeness": "the attribution sums to the logit minus the baseline's logit",
    "conservation": "the relevance sums to the logit, less what biases and damping keep",
}
"""What a method's result must satisfy, by the word its entry uses."""

Explained = tuple[Tensor, Tensor]
"""Logits (B, K) and attribution (B, M, *spatial of any resolution)."""

Passes = int | tuple[int, str] | None
"""Passes through the network, forward and back, for one class.

A number; or a number and the option that it is multiplied by, as in ``(2, "steps")``; or None
where it depends on the images or the network, or is not known.
"""

AttributionFunction = Callable[..., Explained]
"""``function(network, images, class_idx, **options) -> (logits, attribution)``; see `register`."""

SHARED_OPTIONS = ("target_layer", "baseline", "seed")
"""Options that several methods take; the others ignore them."""


@dataclass(frozen=True)
class Method:
    """An attribution method and what people should know of it.

    Attributes
    ----------
    name, family : str
        `family` is one of `FAMILIES`.
    function : callable
        See `register`.
    needs : frozenset of str
        Keys of `NEEDS`.
    invariants : frozenset of str
        Keys of `INVARIANTS`; `heatmask.attribution.checks` tests them.
    passes : int, tuple or None
        See `Passes`.
    cost : str
        The same in words, and what else there is to say of it.
    paper, source : str
        Where the method comes from; who computes it (Heatmask, Captum, zennit), and why.
    in_one_forward : bool
        It costs about what the logits alone cost.
    several_layers : bool
        It looks at several target layers, by default at the last map of each size.
    size_power : int
        p, if the method's values fall with the number of pixels N of an image as 1 / N^p. Of an
        image shown larger, each pixel's gradient and its share in a sum are smaller.
    """

    name: str
    family: str
    function: AttributionFunction
    needs: frozenset[str]
    invariants: frozenset[str]
    passes: Passes
    cost: str
    paper: str
    source: str
    in_one_forward: bool
    several_layers: bool
    size_power: int

    @property
    def summary(self) -> str:
        """First sentence of the function's docstring."""
        return (inspect.getdoc(self.function) or self.name).split("\n\n")[0].replace("\n", " ")

    @property
    def options(self) -> dict[str, Any]:
        """The method's options and their defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())[3:]
        return {p.name: p.default for p in parameters}

    def count_passes(self, **options: Any) -> int | None:
        """Return how many passes an explanation with these options takes; None if unknown."""
        if not isinstance(self.passes, tuple):
            return self.passes
        count, option = self.passes
        return count * int((self.options | options)[option])


_METHODS: dict[str, Method] = {}
_BUILT_IN = (
    "gradient",
    "deep_lift",
    "cam",
    "relevance",
    "perturbation",
    "captum_methods",
    "inherent",
)


def register(
    name: str,
    *,
    family: str,
    paper: str,
    passes: Passes = None,
    cost: str = "",
    needs: Collection[str] = ("gradients",),
    invariants: Collection[str] = (),
    source: str = "Heatmask",
    in_one_forward: bool = False,
    several_layers: bool = False,
    size_power: int | None = None,
) -> Callable[[AttributionFunction], AttributionFunction]:
    """Add a method under `name`, as a decorator of the function that computes it.

    The function is called as ``function(network, images, class_idx, **options)`` and returns
    the logits (B, K) and the attribution (B, M, *spatial of any resolution) of the M classes
    that ``class_idx`` names: signed, unnormalised, without graph. Its further parameters,
    with defaults, are the method's options. It gets

    - `network`: a private copy in eval mode with frozen parameters, to hook or change at will;
    - `images`: a plain detached tensor (B, C, *spatial), with gradients enabled;
    - `class_idx`: as in `heatmask.attribution.classes.select_logits`, which resolves it.

    An image's attribution must not depend on the other images of the batch. `size_power` is 1
    for gradients, relevance and CAMs with gradients, unless said otherwise, and 0 for others
    (see `Method`).

    Raises
    ------
    OptionError
        The name is taken, or an entry is not one of the words there are.
    """
    if family not in FAMILIES:
        raise OptionError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    for word, given, known in (("needs", needs, NEEDS), ("invariants", invariants, INVARIANTS)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise OptionError(f"{word} must be among {', '.join(known)}, got {', '.join(unknown)}.")

    by_gradient = family in ("gradient", "relevance") or (family == "cam" and "gradients" in needs)
    power = int(by_gradient) if size_power is None else size_power

    def add(function: AttributionFunction) -> AttributionFunction:
        if not function.__module__.startswith(__package__):
            _load_built_in()  # whose names are taken too
        if name in _METHODS:
            raise OptionError(f"A method's name must be new, and {name!r} is registered already.")
        _METHODS[name] = Method(
            name, family, function, frozenset(needs), frozenset(invariants),
            passes, cost or _describe(passes, in_one_forward), paper, source, in_one_forward,
            several_layers, power,
        )  # fmt: skip
        return function

    return add


def list_methods() -> list[Method]:
    """Return every method, family by family, in the order of registration."""
    _load_built_in()
    return sorted(_METHODS.values(), key=lambda method: FAMILIES.index(method.family))


def get_method(name: str) -> Method:
    """Return the method of this name.

    Raises
    ------
    OptionError
        There is none; the message gives the closest names.
    """
    _load_built_in()
    if name not in _METHODS:
        names = [method.name for method in list_methods()]
        close = get_close_matches(str(name), names, cutoff=0.4) or names
        raise OptionError(
            f"method must be one of those that `heatmask methods` lists, got {name!r}. "
            f"Closest: {', '.join(close)}."
        )
    return _METHODS[name]


def check_count(name: str, count: int) -> int:
    """Return an option that counts things, or refuse what is no whole number of at least 1.

    Raises
    ------
    OptionError
        It is none.
    """
    Option(name, 1, low=1).check(count)
    return count


def _describe(passes: Passes, in_one_forward: bool) -> str:
    if passes is None:
        return "not known"
    count, option = passes if isinstance(passes, tuple) else (passes, "")
    text = f"{count} {'pass' if count == 1 else 'passes'}"
    if option:
        return f"{text} × {option}"
    return f"{text} (about 1 forward)" if in_one_forward and count > 1 else text


def _load_built_in() -> None:
    for module in _BUILT_IN:  # in the order of the registry
        import_module(f"heatmask.attribution.{module}")
