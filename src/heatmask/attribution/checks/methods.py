"""The checks that run a method itself, on one small image."""

import math
from typing import Any

import torch
from torch import Tensor

from heatmask.attribution.checks.check import Check, conclude, divide, fail, show
from heatmask.attribution.checks.probe import NETWORK_ERRORS, Subject
from heatmask.attribution.frozen import copy_frozen
from heatmask.attribution.registry import Method, get_method

INVARIANT_ERROR = 0.25
"""How far an attribution's sum may be from what it should be, relatively.

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
    method = get_method(detail)
    path = _run_path(subject, _PATH_POINTS)
    change, span = path[-1] - path[0], path.amax() - path.amin()
    steps = method.options.get("steps")
    error = math.nan
    for options in [{}] if steps is None else [{}, {"steps": _MORE_STEPS * steps}]:
        try:
            error = divide(float((_sum(subject, method, **options) - change).abs()), float(span))
        except NETWORK_ERRORS as failure:
            return fail("completeness", f"{detail} stops: {failure}", limit=INVARIANT_ERROR)
        if error <= INVARIANT_ERROR:
            break
    return conclude(
        "completeness", error, INVARIANT_ERROR,
        f"the sum of {detail} misses the change of the logit by {show(error)} of its range",
        "The gradient is wrong, or vanishes on the way from a baseline of zeros.",
    )  # fmt: skip


def check_conservation(subject: Subject, detail: str) -> Check:
    """The relevance must sum to the logit, but for what biases and damping keep.

    The methods here keep books of that and raise if they do not balance; what is measured
    shows relevance that grows from layer to layer, to 10 or 1e13 times the logit.
    """
    start, logit = _run_path(subject, 2).tolist()
    try:
        off = abs(float(_sum(subject, get_method(detail))) - logit)
    except NETWORK_ERRORS as failure:
        return fail("conservation", f"{detail} stops: {failure}", limit=RELEVANCE_ERROR)
    share = divide(off, max(abs(logit), abs(logit - start)))
    return conclude(
        "conservation", share, RELEVANCE_ERROR,
        f"the sum of {detail} is off the logit by {show(share)}: what biases and damping keep",
        "A part of the network has no rule that passes relevance on.",
    )  # fmt: skip


@torch.no_grad()
def _run_path(subject: Subject, points: int) -> Tensor:
    """Return the logit (points,) on the way from an image of zeros to the probe."""
    network, image = subject.single
    shares = torch.linspace(0, 1, points).to(image).reshape(-1, *[1] * (image.ndim - 1))
    return network(shares * image)[:, _CLASS]


def _sum(subject: Subject, method: Method, **options: Any) -> Tensor:
    network, image = subject.single
    if "baseline" in method.options:
        options["baseline"] = 0.0
    _, attribution = method.function(copy_frozen(network), image, [_CLASS], **options)
    return attribution.detach().double().sum()
