"""Which checks a method rests on, made one after the other, and what they conclude."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.checks.check import Check, conclude, fail, show
from heatmask.attribution.checks.gradients import check_gradient, check_layer
from heatmask.attribution.checks.methods import check_completeness, check_conservation
from heatmask.attribution.checks.network import (
    check_batch,
    check_determinism,
    check_heatmap,
    check_logits,
    check_relu,
)
from heatmask.attribution.checks.probe import (
    NETWORK_ERRORS,
    Subject,
    draw_probe,
    find_device,
    prepare_subject,
)
from heatmask.attribution.explainer import Explainer
from heatmask.attribution.frozen import find_bare, recall
from heatmask.attribution.registry import get_method, list_methods
from heatmask.errors import MethodError

Need = tuple[Callable[[Subject, str], Check], str]
"""A check, and what it is about: a layer or a method."""

PREFERRED = (
    "inherent", "grad_cam", "guided_backprop", "integrated_gradients", "saliency",
    "occlusion_coarse_to_fine", "occlusion",
)  # fmt: skip
"""What to advise, in this order, in place of a method that is refused."""

_POOLED = "the logits are a linear layer of a map's means"

_BASIC: tuple[Need, ...] = ((check_logits, ""), (check_determinism, ""), (check_batch, ""))
"""Without these no other number means anything."""

_INVARIANTS = {"completeness": check_completeness, "conservation": check_conservation}


def inspect_network(
    network: nn.Module,
    image_shape: Sequence[int],
    methods: Iterable[str] | None = None,
    target_layer: str | Sequence[str] | None = None,
) -> list[Check]:
    """Return what the checks find that these methods rest on.

    Parameters
    ----------
    network
        The classifier: images (B, C, *spatial) to logits (B, K). It is left as it was.
    image_shape
        (C, *spatial) of its images.
    methods
        Names; None for all.
    target_layer
        As of `Explainer`, for the methods that look at a layer.

    Returns
    -------
    list of Check
        Each check once, with the methods that rest on it. If the logits themselves cannot be
        relied on, the list ends with the check that says so.

    Raises
    ------
    InputError
        The network does not run on images of this shape.
    OptionError
        There is no such method or layer.
    """
    asked = list_methods() if methods is None else [get_method(name) for name in methods]
    inspection = _Inspection(network, image_shape, {})
    resting: dict[Need, list[str]] = {}
    with inspection.in_full_precision():
        for method in asked:
            for need in inspection.list_needs(Explainer(method.name, target_layer=target_layer)):
                resting.setdefault(need, []).append(method.name)
                if need in _BASIC and not inspection.look(need).passed:
                    break
        checks = [replace(inspection.look(n), methods=tuple(names)) for n, names in resting.items()]
        refused = {name for check in checks if not check.passed for name in check.methods}
        instead = inspection.suggest(refused) if refused else []
    return [c if c.passed else replace(c, advice=_join(c, instead)) for c in checks]


def require_sound(explainer: Explainer, network: nn.Module, image_shape: Sequence[int]) -> None:
    """Raise if an explainer's method would be wrong on a network, or cannot work on it.

    Only the checks that the method rests on are run, and each only once for a network (see
    `heatmask.attribution.frozen.recall`). `image_shape` is (C, *spatial).

    Raises
    ------
    MethodError
        What failed, by how much, and what to use instead.
    InputError
        The network does not run on images of this shape.
    """
    inspection = _Inspection(network, image_shape, recall(network))
    with inspection.in_full_precision():
        failed = inspection.find_failure(explainer)
        instead = inspection.suggest({explainer.method.name}) if failed else []
    if failed:
        measured = failed.limit and not math.isnan(failed.measured)
        limit = f" (at most {show(failed.limit)})" if measured else ""
        raise MethodError(
            f"{explainer.method.name} cannot be relied on with "
            f"{type(inspection.network).__name__}: "
            f"{failed.finding.rstrip('.')}{limit}. {_join(failed, instead)}"
        )


def judge_methods(checks: Sequence[Check], methods: Iterable[str]) -> dict[str, Check | None]:
    """Return for each method the first check that refuses it, or None."""
    return {
        name: next((c for c in checks if not c.passed and name in c.methods), None)
        for name in methods
    }


def _join(check: Check, instead: Collection[str]) -> str:
    use = f"Use {' or '.join(instead)} instead." if instead else "As it is no method is sound."
    return f"{check.advice} {use}".lstrip()


class _Inspection:
    """The checks of one network, each made when it is asked for first.

    `known` keeps them: those that passed for all sizes of the image. A failure is of one size
    alone, because a map that is too small is no fault of the network.
    """

    def __init__(
        self, network: nn.Module, image_shape: Sequence[int], known: MutableMapping[Any, Any]
    ) -> None:
        self.network, self.image_shape = find_bare(network), tuple(image_shape)
        self.known = known

    @cached_property
    def subject(self) -> Subject:
        return prepare_subject(self.network, self.image_shape)

    @cached_property
    def image(self) -> Tensor:
        """A synthetic image (1, C, *spatial) of the size and the type that the network gets."""
        kind = next((p.dtype for p in self.network.parameters()), torch.float32)
        return draw_probe(self.image_shape)[1:].to(find_device(self.network), kind)

    @contextmanager
    def in_full_precision(self) -> Iterator[None]:
        device = find_device(self.network).type
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
        ):
            yield

    def list_needs(self, explainer: Explainer) -> Iterator[Need]:
        """Yield the checks that a method rests on; a default layer is looked for on the way."""
        method, wanted = explainer.method, explainer.method.needs
        yield from _BASIC
        if "heatmap" in wanted:
            yield check_heatmap, ""
        if "gradients" in wanted and ("relu" in wanted or "layer" not in wanted):
            yield check_gradient, ""
        if "layer" in wanted:
            for layer in self.list_layers(explainer):
                by_gradient = layer and "gradients" in wanted
                yield check_gradient if by_gradient else check_layer, layer
        if "relu" in wanted:
            yield check_relu, ""
        if "pooled head" in wanted:
            yield self.check_pooled_head, method.name
        yield from ((_INVARIANTS[name], method.name) for name in sorted(method.invariants))

    def list_layers(self, explainer: Explainer) -> tuple[str, ...]:
        """Return the layers to check; where there is none, an empty name, whose check failed."""
        try:
            found = explainer.find_layers(self.network, self.image)
        except torch.cuda.OutOfMemoryError:
            raise
        except NETWORK_ERRORS as failure:
            self.known[self.image_shape, check_layer.__name__, ""] = fail(
                "target layer", str(failure)
            )
            return ("",)
        # Of those found, the earliest: from there the gradient passes the others.
        return found if explainer.options["target_layer"] else found[:1]

    def look(self, need: Need) -> Check:
        make, detail = need
        kind, what = (self.image_shape[0], len(self.image_shape)), (make.__name__, detail)
        for key in ((kind, *what), (self.image_shape, *what)):
            if key in self.known:
                return self.known[key]
        name = make.__name__.removeprefix("check_").replace("_", " ")
        try:
            check = make(self.subject, detail)
        except MethodError as failure:
            check = fail(name, str(failure))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as failure:  # torch cannot differentiate it, and says why
            check = fail(name, f"{name} stops: {failure}")
        self.known[(kind if check.passed else self.image_shape, *what)] = check
        return check

    def check_pooled_head(self, subject: Subject, detail: str) -> Check:
        """The logits must be a linear layer of the last map's means, or the method says no."""
        failure = self.try_method(detail)
        return conclude("pooled head", int(bool(failure)), 0, failure or _POOLED)

    def find_failure(self, explainer: Explainer) -> Check | None:
        checks = map(self.look, self.list_needs(explainer))
        return next((check for check in checks if not check.passed), None)

    def suggest(self, refused: Collection[str]) -> list[str]:
        """At most two methods that are sound, and that give a map of the network as it is."""
        if not all(self.look(need).passed for need in _BASIC):
            return []
        registered = {method.name for method in list_methods()}
        others = [name for name in PREFERRED if name in registered and name not in refused]
        sound = (
            name
            for name in others
            if not self.find_failure(Explainer(name)) and not self.try_method(name)
        )
        return list(islice(sound, 2))

    def try_method(self, name: str) -> str:
        """Return why a method does not explain an image; empty if it does."""
        try:
            Explainer(name)(self.network, self.image, [0])
        except NETWORK_ERRORS as failure:
            return str(failure) or type(failure).__name__
        return ""
