"""DeepLift: how far each pixel's change from a baseline moved the logit.

Captum's DeepLift hooks modules: it raises where one is used twice, passes functional calls
by, and writes over what overlapping pooling windows share. Here the nonlinear calls of a
forward pass are caught as they happen, as in `heatmask.attribution.relu_rules`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from heatmask.attribution.classes import ClassIdx, differentiate, select_logits
from heatmask.attribution.images import fit_baseline
from heatmask.attribution.registry import Explained, register
from heatmask.errors import MethodError

TOLERANCE = 0.01
"""Largest error of the attribution's sum, as a share of the logit's change."""

_ELEMENTWISE = frozenset(
    getattr(home, name + end)
    for name in (
        "celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6 "
        "rrelu selu sigmoid silu softplus softsign tanh tanhshrink threshold abs clamp clamp_max "
        "clamp_min"
    ).split()
    for end in ("", "_")
    for home in (F, torch, Tensor)
    if hasattr(home, name + end)
)
_POOLS: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(home, name): getattr(F, f"{name}_with_indices")
    for name in (f"{kind}_pool{n}d" for kind in ("max", "adaptive_max") for n in (1, 2, 3))
    for home in (F, torch)
    if hasattr(home, name)
}
"""Max pooling, and the function that gives the indices too."""


@register(
    "deep_lift", family="gradient", needs=("gradients", "baseline"), invariants=("completeness",),
    cost="2 forwards (one of the baseline alone), 1 backward", passes=3,
    paper="Shrikumar et al. 2017, arXiv 1704.02685 (rescale rule)",
    source="Heatmask: Captum raises on reused modules, and misses functional calls",
)  # fmt: skip
def explain_by_deep_lift(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    baseline: Tensor | float | None = None,
) -> Explained:
    """The change of the logit from a baseline to the image, split over the pixels.

    The backward pass multiplies by the slope from baseline to image at every nonlinear call,
    in place of the derivative. A maximum (pooling) that rises is credited to where the image
    has it, one that falls to where the baseline had it.

    Raises
    ------
    MethodError
        The attribution misses the change of the logit by more than 1 % of it: the network
        holds something nonlinear without a rule, such as normalisation by the image's own
        statistics, attention, or one map times another.
    """
    start = torch.broadcast_to(fit_baseline(baseline, images), images.shape)
    if start.stride(0) == 0:  # one baseline for all images
        start = start[:1].contiguous()
    rules = RescaleRules()
    with rules, torch.no_grad():
        reference = network(start)
    images = images.detach().requires_grad_()
    with rules.follow():
        logits = network(images)
    scores = select_logits(logits, class_idx)
    (slopes,) = differentiate(scores, [images])
    attribution = (slopes * (images - start).detach()[:, None]).sum(2)
    before = select_logits(reference.expand_as(logits), class_idx)
    _check_complete(network, attribution, scores.detach(), before)
    return logits.detach(), attribution


def _check_complete(
    network: nn.Module, attribution: Tensor, scores: Tensor, before: Tensor
) -> None:
    change, found = scores - before, attribution.flatten(2)
    rounding = 100 * torch.finfo(found.dtype).eps * (found.abs().sum(2) + scores.abs())
    errors = ((found.sum(2) - change).abs() - rounding) / change.abs()
    wrong = float(errors.nan_to_num(0.0).max())
    if wrong > TOLERANCE:
        raise MethodError(
            "DeepLift's attribution must sum to the change of the logit, and on "
            f"{type(network).__name__} it is off by {wrong:.2g} of it: the network holds "
            "something nonlinear without a rule (instance or group normalisation, attention, a "
            "product of maps), or cuts its gradient."
        )


class RescaleRules(TorchFunctionMode):
    """Context in which nonlinear calls get the rescale rule for the backward pass.

    First a forward pass of the baseline records what each call gets, then one of the images,
    in the context `follow` returns, meets the records in the same order. So the baseline
    needs no graph, and is run once if all images share it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[tuple[Callable[..., Any], Tensor]] = deque()
        self._recording = True

    def follow(self) -> "RescaleRules":
        """Use the records from now on."""
        self._recording = False
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Record a nonlinear call, or replace it."""
        kwargs = dict(kwargs or {})
        if func not in _ELEMENTWISE and func not in _POOLS:
            return func(*args, **kwargs)
        images, *others = args if args else (kwargs.pop("input"),)
        if images.ndim == 0:  # a parameter, the same for baseline and images
            return func(images, *others, **kwargs)
        if self._recording:
            self._records.append((func, images.clone()))
            return func(images, *others, **kwargs)
        reference = self._fetch_record(func, images)

        def call(values: Tensor) -> Any:
            return _POOLS.get(func, func)(values, *others, **kwargs)

        return (_lift_pool if func in _POOLS else _Lifted.apply)(images, reference, call)

    def _fetch_record(self, func: Callable[..., Any], images: Tensor) -> Tensor:
        recorded, reference = self._records.popleft() if self._records else (None, images[:0])
        if recorded is not func or reference.shape[1:] != images.shape[1:]:
            raise MethodError(
                "DeepLift needs a network that makes the same calls for every image, and this "
                "one makes others for the images than for the baseline."
            )
        if len(reference) in (1, len(images)):
            return reference
        # Slices or windows folded into the batch: those of one baseline for each image.
        return reference.repeat(len(images) // len(reference), *[1] * (images.ndim - 1))


class _Lifted(torch.autograd.Function):
    """An elementwise function whose derivative is the slope from the reference.

    Two values are equal if rounding would spoil the slope: if they differ by less than the
    square root of the precision. There it is the derivative.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, reference: Tensor, call: Callable[..., Any]) -> Tensor:
        change = images - reference
        output = call(images)
        if output is images:
            ctx.mark_dirty(images)
        with torch.enable_grad():
            start = reference.detach().requires_grad_()
            lowest = call(start.clone())  # a clone for what works in place
            (derivative,) = torch.autograd.grad(lowest.sum(), start)
        equal = change.abs() <= torch.finfo(change.dtype).eps ** 0.5 * reference.abs()
        slope = (output - lowest.detach()).div_(change)
        ctx.save_for_backward(torch.where(equal, derivative, slope))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def _lift_pool(images: Tensor, reference: Tensor, pool: Callable[..., Any]) -> Tensor:
    """Return the maxima of `images`, with the slope from `reference` as their derivative."""
    with torch.no_grad():
        output, places = pool(images)
        lowest, others = pool(reference)
        places = torch.where(output >= lowest, places, others).flatten(2)
    maxima = images.flatten(2).gather(2, places)
    with torch.no_grad():
        change = maxima - reference.flatten(2).expand(len(images), -1, -1).gather(2, places)
        slope = ((output - lowest).flatten(2) / change).nan_to_num_(1.0, 1.0, 1.0)
    return output + (slope * (maxima - maxima.detach())).view_as(output)
