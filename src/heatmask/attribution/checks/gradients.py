"""The checks of gradients: autograd against finite differences, at the images and at a layer."""

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn

from heatmask.attribution.checks.check import Check, conclude, divide, fail, show
from heatmask.attribution.checks.probe import Subject
from heatmask.attribution.layers import LayerTap, find_layer
from heatmask.errors import MethodError

GRADIENT_ERROR = 0.01
"""How far a gradient may be from finite differences, relatively. Right ones stay below 1e-6."""

COARSE_GRADIENT_ERROR = 0.25
"""The same in single precision, where steps must be so long that they cross kinks."""

_DIRECTIONS = 2
_NAME_ANOTHER = "Name another target_layer."

_CUT = (
    "A detach() or .data in the network cuts the gradient, and so does no_grad(). MONAI's "
    "ResNet with shortcut_type='A' has one: train it with shortcut_type='B'."
)
_CUT_ABOVE = (
    "A detach() or .data above this layer cuts the gradient: name a later target_layer; "
    "of MONAI's ResNet train one with shortcut_type='B'."
)

Nudge = Callable[[int, Tensor], Tensor]
"""``nudge(call, output)``: what is added to what a layer gives when it is called so many times;
the images count as the first call's."""


def check_layer(subject: Subject, detail: str) -> Check:
    """The target layer must give a map on which the logits depend."""
    draw = subject.draw()

    def nudge(call: int, output: Tensor) -> Tensor:
        spread = float(output.square().mean().sqrt()) or 1.0  # a dead layer is all zeros
        return spread * (1 + draw(output))

    try:
        with torch.no_grad():
            nudged = _run_nudged(subject, subject.images[1:], detail, nudge)
    except MethodError as error:
        return fail("target layer", str(error), _NAME_ANOTHER)
    wrong = torch.equal(nudged, subject.alone[1:])
    finding = f"the logits {'do not ' if wrong else ''}depend on {detail!r}"
    return conclude("target layer", int(wrong), 0, finding, _NAME_ANOTHER)


def check_gradient(subject: Subject, detail: str) -> Check:
    """The gradient by the images, or by the layer named, must agree with finite differences."""
    image, draw, draw_start = (
        subject.images[1:],
        subject.draw_directions(_DIRECTIONS),
        subject.draw(),
    )
    starts: list[Tensor] = []
    deltas: list[Tensor] = []
    directions: list[Tensor] = []

    def start(call: int, output: Tensor) -> Tensor:
        # Away from the zeros of a ReLU: a pooling above may choose any of them.
        starts.append(0.01 * draw_start(output) * output.square().mean().sqrt())
        deltas.append(torch.zeros_like(output, requires_grad=True))
        directions.append(draw(output))
        return starts[-1] + deltas[-1]

    def step(size: float) -> Tensor:
        def nudge(call: int, output: Tensor) -> Tensor:
            return starts[call] + size * directions[call]

        with torch.no_grad():
            return _run_nudged(subject, image.expand(_DIRECTIONS, *image.shape[1:]), detail, nudge)

    try:
        logits = _run_nudged(subject, image, detail, start)
    except MethodError as failure:
        return fail("target layer", str(failure), _NAME_ANOTHER)
    error = measure_gradient_error(subject, logits, deltas, directions, step)
    if detail:
        return _judge("layer gradient", repr(detail), error, subject, _CUT_ABOVE)
    if error is None and subject.exact:  # logits that no image changes: zero is right
        error = 0.0
    return _judge("input gradient", "the images", error, subject, _CUT)


def measure_gradient_error(
    subject: Subject,
    logits: Tensor,
    deltas: list[Tensor],
    directions: list[Tensor],
    step: Callable[[float], Tensor],
) -> float | None:
    """Return the relative error of autograd against finite differences.

    Along random directions, of a random mix of all logits. The best of several
    steps counts: a short one may drown in rounding, a long one crosses the kinks of ReLUs,
    and a gradient that is wrong is so at each of them. In single precision a step does not
    count whose change may be rounding for a tenth.

    Parameters
    ----------
    logits
        (1, K), with the graph of the deltas.
    deltas, directions
        What was added in one place or several, zeros (1, ...), and where to step from there,
        (D, ...).
    step
        Logits (D, K) after a step of this size along each direction.

    Returns
    -------
    float or None
        None where there is nothing to measure: the logits do not change, or by less than
        rounding.
    """
    mix = subject.draw()(logits[0].detach())
    before = logits.detach() @ mix
    expected = torch.zeros_like(before).expand(_DIRECTIONS)
    if logits.requires_grad:
        gradients = torch.autograd.grad((logits @ mix).sum(), deltas, materialize_grads=True)
        products = [(g * d).flatten(1).sum(1) for g, d in zip(gradients, directions, strict=True)]
        expected = torch.stack(products).sum(0)
    errors = []
    for size in (1e-7, 1e-8, 1e-9) if subject.exact else (1e-4, 3e-4, 1e-3, 1e-2):
        ahead = step(size) @ mix
        # Exact enough in double precision; a long step is taken in both ways.
        behind, length = (before, size) if subject.exact else (step(-size) @ mix, 2 * size)
        measured = (ahead - behind) / length
        change, scale = float(measured.norm()), float(torch.stack([measured, expected]).norm())
        rounding = 10 * torch.finfo(ahead.dtype).eps * float(ahead.norm()) / size
        if scale == 0 or (not subject.exact and rounding > change / 10):
            continue
        distance = max(float((measured - expected).norm()) - rounding, 0.0)
        errors.append(divide(distance, max(change, float(expected.norm()))))
        if errors[-1] <= GRADIENT_ERROR / 100:
            break
    return min(errors, default=None)


def _judge(name: str, what: str, error: float | None, subject: Subject, advice: str) -> Check:
    limit = GRADIENT_ERROR if subject.exact else COARSE_GRADIENT_ERROR
    if error is None:
        return fail(
            name,
            f"the gradient by {what} cannot be measured: the logits do not depend on it, or by "
            "less than their rounding",
            "Give the network so that it runs in float64 or with smaller logits, and as it was "
            "before it was quantised.",
            limit,
        )
    finding = f"the gradient by {what} is off finite differences by {show(error)}"
    return conclude(name, error, limit, finding, advice)


def _run_nudged(subject: Subject, images: Tensor, layer: str, nudge: Nudge) -> Tensor:
    """Return the logits when something is added to what the layer gives, or to the images."""
    if not layer:
        return subject.call(subject.network, images + nudge(0, images))
    network, calls = subject.hooked, count()
    tap = LayerTap(network, [layer])

    def add(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output + nudge(next(calls), output.detach())

    handle = find_layer(network, layer).register_forward_hook(add)
    try:
        logits = subject.call(network, images)
    finally:
        handle.remove()
    _ = tap.activations  # refuses a layer that was not called
    return logits
