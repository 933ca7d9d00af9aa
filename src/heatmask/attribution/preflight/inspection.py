"""Which checks a method rests on, made one after the other, and what they conclude."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice

import torch
from torch import nn

from heatmask.attribution.cam.layers import find_stages
from heatmask.attribution.explainer import Explainer
from heatmask.attribution.frozen import find_bare
from heatmask.attribution.preflight.cache import Known, recall
from heatmask.attribution.preflight.checks import (
    Check,
    check_batch,
    check_determinism,
    check_heatmap,
    check_input_gradient,
    check_layer,
    check_layer_gradient,
    check_logits,
    check_package,
    check_relu,
    show,
)
from heatmask.attribution.preflight.laws import (
    check_completeness,
    check_conservation,
    check_pooled_head,
)
from heatmask.attribution.preflight.probe import NETWORK_ERRORS, Subject, prepare_subject
from heatmask.attribution.registry import Method, get_method, list_methods
from heatmask.errors import MethodError

Need = tuple[str, str]
"""A check by its name, and what it is about: a layer, a method or a package."""

Layers = str | Sequence[str] | None

PREFERRED = (
    "inherent", "grad_cam", "guided_backprop", "integrated_gradients", "saliency",
    "occlusion_coarse_to_fine", "occlusion",
)  # fmt: skip
"""What to advise, in this order, in place of a method that is refused."""

_CHECKS: dict[str, Callable[[Subject, str], Check]] = {
    "logits": check_logits,
    "determinism": check_determinism,
    "batch": check_batch,
    "input gradient": check_input_gradient,
    "layer": check_layer,
    "layer gradient": check_layer_gradient,
    "relu": check_relu,
    "heatmap": check_heatmap,
    "pooled head": check_pooled_head,
    "package": check_package,
    "completeness": check_completeness,
    "conservation": check_conservation,
}
_BASIC: tuple[Need, ...] = (("logits", ""), ("determinism", ""), ("batch", ""))
"""Without these no other number means anything."""

_LAST_MAP, _FIRST_MAP = "<the last map>", "<the first map>"


def inspect_network(
    network: nn.Module,
    image_shape: Sequence[int],
    methods: Iterable[str] | None = None,
    seed: int = 0,
    target_layer: Layers = None,
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
    seed
        Of the synthetic image and of the directions looked along.
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
    network = find_bare(network)
    asked = list_methods() if methods is None else [get_method(name) for name in methods]
    inspection = _Inspection(network, image_shape, {}, seed)
    needed: dict[Need, list[str]] = {}
    for method in asked:
        for need in list_needs(method, target_layer):
            needed.setdefault(need, []).append(method.name)
    checks = []
    with _in_full_precision(network):
        for need, names in needed.items():
            checks.append(replace(inspection.look(need), methods=tuple(names)))
            if need in _BASIC and not checks[-1].passed:
                break
        if not all(check.passed for check in checks):
            refused = {name for check in checks if not check.passed for name in check.methods}
            instead = inspection.suggest(refused)
            checks = [c if c.passed else replace(c, advice=_join(c, instead)) for c in checks]
    return checks


def require_sound(explainer: Explainer, network: nn.Module, image_shape: Sequence[int]) -> None:
    """Raise if an explainer's method would be wrong on a network, or cannot work on it.

    Only the checks that the method rests on are run, and each only once for a network (see
    `heatmask.attribution.preflight.cache`). `image_shape` is (C, *spatial).

    Raises
    ------
    MethodError
        What failed, by how much, and what to use instead.
    InputError
        The network does not run on images of this shape.
    """
    network = find_bare(network)
    with recall(network, image_shape) as known:
        inspection = _Inspection(network, image_shape, known)
        needs = list_needs(explainer.method, explainer.options.get("target_layer"))
        with _in_full_precision(network):
            failed = inspection.find_failure(needs)
            instead = inspection.suggest({explainer.method.name}) if failed else ()
    if failed:
        limit = (
            ""
            if math.isnan(failed.measured) or not failed.limit
            else f" (at most {show(failed.limit)})"
        )
        raise MethodError(
            f"{explainer.method.name} cannot be relied on with {type(network).__name__}: "
            f"{failed.finding.rstrip('.')}{limit}. {_join(failed, instead)}"
        )


def list_needs(method: Method, target_layer: Layers = None) -> list[Need]:
    """Return the checks that a method rests on."""
    needs, wanted = list(_BASIC), method.needs
    if "zennit" in wanted:
        needs.append(("package", "zennit"))
    if "heatmap" in wanted:
        needs.append(("heatmap", ""))
    if "gradients" in wanted and ("layer" not in wanted or "relu" in wanted):
        needs.append(("input gradient", ""))
    if "layer" in wanted:
        for layer in _name_layers(method, target_layer):
            needs.append(("layer", layer))
            needs += [("layer gradient", layer)] if "gradients" in wanted else []
    if "relu" in wanted:
        needs.append(("relu", ""))
    needs += [(need, method.name) for need in ("pooled head",) if need in wanted]
    return needs + [(law, method.name) for law in sorted(method.laws)]


def judge_methods(checks: Sequence[Check], methods: Iterable[str]) -> dict[str, Check | None]:
    """Return for each method the first check that refuses it, or None."""
    return {
        name: next((c for c in checks if not c.passed and name in c.methods), None)
        for name in methods
    }


def _name_layers(method: Method, target_layer: Layers) -> tuple[str, ...]:
    if target_layer is None:
        return (_FIRST_MAP if method.name == "multi_stage_cam" else _LAST_MAP,)
    return (target_layer,) if isinstance(target_layer, str) else tuple(target_layer)


@contextmanager
def _in_full_precision(network: nn.Module) -> Iterator[None]:
    device = next((p.device.type for p in network.parameters()), "cpu")
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
    ):
        yield


def _join(check: Check, instead: Collection[str]) -> str:
    use = f"Use {' or '.join(instead)} instead." if instead else "As it is no method is sound."
    return f"{check.advice} {use}".lstrip()


class _Inspection:
    """The checks of one network, each made when it is asked for first."""

    def __init__(
        self, network: nn.Module, image_shape: Sequence[int], known: Known, seed: int = 0
    ) -> None:
        self.network, self.image_shape, self.seed = network, image_shape, seed
        self.known = known

    @cached_property
    def subject(self) -> Subject:
        return prepare_subject(self.network, self.image_shape, self.seed)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        subject = self.subject.simplify()
        return find_stages(subject.network, subject.enlarge())

    def look(self, need: Need) -> Check:
        name, detail = need
        key = " ".join(need)
        # A map that is too small is no fault of the network: a failure is of one size alone.
        key_of_failure = f"{key} at {tuple(self.image_shape)}"
        for known in (key, key_of_failure):
            if known in self.known:
                return self.known[known]
        check = self.make(name, detail)
        self.known[key if check.passed else key_of_failure] = check
        return check

    def make(self, name: str, detail: str) -> Check:
        try:
            if detail in (_LAST_MAP, _FIRST_MAP):
                detail = self.stages[-1 if detail == _LAST_MAP else 0]
            return _CHECKS[name](self.subject, detail)
        except MethodError as failure:  # there is no map at all
            return Check(name, (), False, math.nan, 0, str(failure))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as failure:  # torch cannot differentiate it, and says why
            return Check(name, (), False, math.nan, 0, f"{name} stops: {failure}")

    def find_failure(self, needs: Iterable[Need]) -> Check | None:
        return next((check for need in needs if not (check := self.look(need)).passed), None)

    def suggest(self, refused: Collection[str]) -> list[str]:
        """At most two methods that are sound, and that give a map of the network as it is."""
        if self.find_failure(_BASIC):
            return []
        registered = {method.name: method for method in list_methods()}
        others = [registered[n] for n in PREFERRED if n in registered and n not in refused]
        sound = (
            method.name
            for method in others
            if not self.find_failure(list_needs(method)) and self.runs(method)
        )
        return list(islice(sound, 2))

    def runs(self, method: Method) -> bool:
        """Whether a method explains an image, in the network's own precision."""
        images = self.subject.enlarge() if "layer" in method.needs else self.subject.images[1:]
        kind = next((p.dtype for p in self.network.parameters()), torch.float32)
        try:
            Explainer(method.name)(self.network, images.to(kind), [0])
        except NETWORK_ERRORS:
            return False
        return True
