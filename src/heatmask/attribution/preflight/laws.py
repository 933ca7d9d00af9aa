"""The checks of the preflight that run a method itself, on one small image."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heatmask.attribution.preflight.checks import Check, conclude, divide, show
from heatmask.attribution.preflight.probe import NETWORK_ERRORS, Subject
from heatmask.attribution.registry import Method, get_method
from heatmask.errors import MethodError

LAW_ERROR = 0.25
"""How far an attribution's sum may be from what its law says, relatively.

Wide, because a path integral in few steps is rightly off by a tenth on a network with many
kinks, and what is wrong in kind is off by all of it.
"""

RELEVANCE_ERROR = 10.0
"""How far relevance may be from the logit, relatively: biases may outweigh a small logit."""

_CLASS = 0  # a second class would cost as much again and say no more
_PATH_POINTS = 9
_MORE_STEPS = 4


def check_completeness(subject: Subject, detail: str) -> Check:
    """The attribution must sum to the change of the logit from the baseline.

    Relative to the range of the logit on the way there: a logit that comes back to where it
    started would make any error look large. If a method with steps fails, more of them get
    a chance, since few steps are no reason to refuse it.
    """
    subject, method = subject.simplify(), get_method(detail)
    shares = torch.linspace(0, 1, _PATH_POINTS).to(subject.images)
    path = torch.cat([subject.run(share * subject.images) for share in shares])[:, _CLASS]
    change, span = path[-1] - path[0], path.amax() - path.amin()
    error = math.nan
    for options in _list_options(method):
        try:
            error = divide(float((_sum(subject, method, options) - change).abs()), float(span))
        except NETWORK_ERRORS as failure:
            return _stop("completeness", method, failure)
        if error <= LAW_ERROR:
            break
    return conclude(
        "completeness", error, LAW_ERROR,
        f"the sum of {detail} misses the change of the logit by {show(error)} of its range",
        "The gradient is wrong, or vanishes on the way from a baseline of zeros.",
    )  # fmt: skip


def check_conservation(subject: Subject, detail: str) -> Check:
    """The relevance must sum to the logit, but for what biases and damping keep.

    The methods here keep books of that and raise if they do not balance; what is measured
    shows relevance that grows from layer to layer, to 10 or 1e13 times the logit.
    """
    subject, method = subject.simplify(), get_method(detail)
    logit, start = (float(subject.run(share * subject.images)[0, _CLASS]) for share in (1, 0))
    try:
        off = abs(float(_sum(subject, method, {})) - logit)
    except NETWORK_ERRORS as failure:
        return _stop("conservation", method, failure)
    share = divide(off, max(abs(logit), abs(logit - start)))
    return conclude(
        "conservation", share, RELEVANCE_ERROR,
        f"the sum of {detail} is off the logit by {show(share)}: what biases and damping keep",
        "A part of the network has no rule that passes relevance on.",
    )  # fmt: skip


def check_pooled_head(subject: Subject, detail: str) -> Check:
    """The logits must be a linear layer of the last map's means, or the method says no."""
    subject, method = subject.simplify(), get_method(detail)
    images = subject.enlarge()
    try:
        method.function(subject.copy(), images, [_CLASS])
    except MethodError as failure:
        return Check("pooled head", (), False, math.nan, 0, str(failure))
    return Check("pooled head", (), True, 0, 0, "the logits are a linear layer of a map's means")


def _sum(subject: Subject, method: Method, options: Mapping[str, Any]) -> Tensor:
    if "baseline" in method.options:
        options = {**options, "baseline": 0.0}
    _, attribution = method.function(subject.copy(), subject.images, [_CLASS], **options)
    return attribution.detach().double().sum()


def _list_options(method: Method) -> list[dict[str, Any]]:
    steps = method.options.get("steps")
    return [{}] if steps is None else [{}, {"steps": _MORE_STEPS * steps}]


def _stop(name: str, method: Method, failure: BaseException) -> Check:
    limit = LAW_ERROR if name == "completeness" else RELEVANCE_ERROR
    return Check(name, (), False, math.nan, limit, f"{method.name} stops: {failure}")
