"""The checks of the preflight: what each looks at, and how much it allows.

Each is called as ``check(subject, detail)``; `detail` names the layer, the method or the
package that it is about, or is empty. A check that fails returns so and raises nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import index_classes
from heatmask.attribution.explained import ExplainedClassifier
from heatmask.attribution.layers import LayerTap, find_layer
from heatmask.attribution.preflight.activation_counter import ActivationCounter
from heatmask.attribution.preflight.gates import CountedRules, GateWatch
from heatmask.attribution.preflight.probabilities import EndWatch, name_sum
from heatmask.attribution.preflight.probe import NETWORK_ERRORS, Subject
from heatmask.errors import MethodError

SAME = 1e-5
"""How far two results that should be one may differ, relatively."""

GRADIENT_ERROR = 0.01
"""How far a gradient may be from finite differences, relatively. Right ones stay below 1e-6."""

COARSE_GRADIENT_ERROR = 0.25
"""The same in single precision, where steps must be so long that they cross kinks."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    name : str
        What was checked.
    methods : tuple of str
        The methods that rest on it.
    passed : bool
        Whether it speaks for them.
    measured, limit : float
        The number looked at, and the largest that passes; NaN where none came out.
    finding : str
        What was found, in words.
    advice : str
        How to mend it, and what to use instead; empty if it passed.
    """

    name: str
    methods: tuple[str, ...]
    passed: bool
    measured: float
    limit: float
    finding: str
    advice: str = ""


def conclude(name: str, measured: float, limit: float, finding: str, advice: str) -> Check:
    """Return the check that a number passes or fails; NaN fails."""
    passed = measured <= limit
    return Check(name, (), passed, measured, limit, finding, "" if passed else advice)


def check_logits(subject: Subject, detail: str) -> Check:
    """Logits must be (B, K) and finite, no probabilities, and not the same for every image."""
    with EndWatch() as watch:
        logits = subject.run()
    finding, advice = _find_fault(subject, logits, watch)
    if finding:
        return Check("logits", (), False, math.nan, 0, finding, advice)
    wrong = int((~logits.isfinite()).sum())
    finding = f"{logits.shape[1]} logit(s) an image, {wrong} of {logits.numel()} not finite"
    return conclude("logits", wrong, 0, finding, "Look for NaN in the weights.")


def check_determinism(subject: Subject, detail: str) -> Check:
    """The same images must give the same logits again."""
    change = compare(subject.run(), subject.run())
    return conclude(
        "determinism", change, SAME,
        f"logits change by {show(change)} from call to call",
        "Something random stays on in eval mode, such as F.dropout(x): give it "
        "training=self.training, or take nn.Dropout.",
    )  # fmt: skip


def check_batch(subject: Subject, detail: str) -> Check:
    """An image must get the same logits alone as beside another."""
    alone = torch.cat([subject.run(image[None]) for image in subject.images])
    change = compare(subject.run(), alone)
    return conclude(
        "batch against single", change, SAME if subject.exact else 10 * SAME,
        f"logits of an image change by {show(change)} with its batch",
        "A normalisation takes the statistics of the batch in eval mode: give batch norm "
        "track_running_stats=True and train again, or take instance or group norm. Dynamic "
        "quantisation takes the range of the batch: give the network as it was before.",
    )  # fmt: skip


def check_input_gradient(subject: Subject, detail: str) -> Check:
    """The gradient by the images must agree with finite differences."""

    def run(delta: Tensor) -> Tensor:
        return subject.call(subject.network, subject.images + delta)

    error = measure_gradient_error(subject, subject.images, run)
    if error is None and subject.exact:  # logits that no image changes: zero is right
        error = 0.0
    return _judge_gradient(
        "input gradient", "the images", error, subject,
        "A detach() or .data in the network cuts the gradient, and so does no_grad(). MONAI's "
        "ResNet with shortcut_type='A' has one: train it with shortcut_type='B'.",
    )  # fmt: skip


def check_layer(subject: Subject, detail: str) -> Check:
    """The target layer must give a map of several positions on which the logits depend."""
    subject = subject.simplify()
    images, advice = subject.enlarge(), "Name another target_layer."
    try:
        activation = _hold_activation(subject, images, detail)
    except MethodError as error:
        return Check("target layer", (), False, math.nan, 0, str(error), advice)
    shape = tuple(activation.shape)
    finding, wrong = f"{detail!r} gives {shape}", int(math.prod(shape[2:]) < 2)
    if not wrong:
        spread = float(activation.square().mean().sqrt()) or 1.0  # a dead layer is all zeros
        nudge = spread * (1 + subject.draw()(activation))
        with torch.no_grad():
            changed = _run_nudged(subject, images, detail, nudge)
        if torch.equal(changed, subject.run(images)):
            finding, wrong = f"the logits do not depend on {detail!r}", 1
    return conclude("target layer", wrong, 0, finding, advice)


def check_layer_gradient(subject: Subject, detail: str) -> Check:
    """The gradient by the target layer's map must agree with finite differences."""
    try:
        activation = _hold_activation(subject, subject.images, detail)
    except MethodError as error:
        return Check("layer gradient", (), False, math.nan, GRADIENT_ERROR, str(error))
    # Away from the zeros of a ReLU: a pooling above may choose any of them.
    start = 0.01 * subject.draw()(activation) * activation.square().mean().sqrt()

    def run(delta: Tensor) -> Tensor:
        return _run_nudged(subject, subject.images, detail, start + delta)

    return _judge_gradient(
        "layer gradient", repr(detail), measure_gradient_error(subject, activation, run),
        subject,
        "A detach() or .data above this layer cuts the gradient: name a later target_layer; "
        "of MONAI's ResNet train one with shortcut_type='B'.",
    )  # fmt: skip


def measure_gradient_error(
    subject: Subject, place: Tensor, run: Callable[[Tensor], Tensor]
) -> float | None:
    """Return the relative error of autograd against central differences.

    Along one random direction an image, of a random mix of all logits. The best of several
    steps counts: a short one may drown in rounding, a long one crosses the kinks of ReLUs,
    and a gradient that is wrong is so at each of them. In single precision a step does not
    count whose change may be rounding for a tenth.

    Parameters
    ----------
    place
        Where the gradient is taken, (B, ...): its shape and scale.
    run
        Logits (B, K) when this is added there.

    Returns
    -------
    float or None
        None where there is nothing to measure: the logits do not change, or by less than
        rounding.
    """
    draw_like = subject.draw()
    direction = draw_like(place) * place.detach().square().mean().sqrt()
    delta = torch.zeros_like(place, requires_grad=True)
    logits = run(delta)
    mix = draw_like(logits[0])
    expected = torch.zeros_like(logits[:, 0])
    if logits.requires_grad:
        scores = (logits @ mix).sum()
        (gradient,) = torch.autograd.grad(scores, delta, materialize_grads=True)
        expected = (gradient * direction).flatten(1).sum(1)
    errors = []
    for step in (1e-7, 1e-8, 1e-9) if subject.exact else (1e-4, 3e-4, 1e-3, 1e-2):
        with torch.no_grad():
            ahead, behind = (run(sign * step * direction) @ mix for sign in (1, -1))
        measured = (ahead - behind) / (2 * step)
        change, scale = float(measured.norm()), float(torch.stack([measured, expected]).norm())
        rounding = 10 * torch.finfo(ahead.dtype).eps * float(ahead.norm()) / step
        if scale == 0 or (not subject.exact and rounding > change / 10):
            continue
        distance = max(float((measured - expected).norm()) - rounding, 0.0)
        errors.append(divide(distance, max(change, float(expected.norm()))))
        if errors[-1] <= GRADIENT_ERROR / 100:
            break
    return min(errors, default=None)


def check_relu(subject: Subject, detail: str) -> Check:
    """Rules for ReLUs need ReLUs, and no activation that they would pass by."""
    network, others, rules = subject.copy(), ActivationCounter(), CountedRules()
    leaf = subject.images.clone().requires_grad_()
    with GateWatch(rules) as gates, others, rules:
        logits = network(leaf.clone())  # which it may change in place
    if logits.requires_grad:
        torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    scripted = sum(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
    lost = rules.calls - rules.asked
    passed_by = others.calls + gates.calls + scripted + lost
    names = others.names | gates.names
    names |= {word for word, n in (("scripted", scripted), ("no gradient", lost)) if n}
    kinds = f" ({', '.join(sorted(names))})" if names else ""
    finding = f"{rules.calls} ReLUs gated, {passed_by} other activations{kinds}"
    advice = (
        "Where an activation is no ReLU, or is one that is not seen, the rules are silently the "
        "plain gradient. Spell ReLUs as nn.ReLU or F.relu, in Python code."
    )
    if rules.calls == 0:
        return Check("ReLU activations", (), False, passed_by, 0, finding, advice)
    return conclude("ReLU activations", passed_by, 0, finding, advice)


def check_heatmap(subject: Subject, detail: str) -> Check:
    """The network must offer a heatmap, and classify with it as without."""
    name, network = "heatmap", subject.network
    if not isinstance(network, ExplainedClassifier):
        finding = f"{type(network).__name__} offers no forward_heatmap"
        return Check(name, (), False, math.nan, SAME, finding)
    advice = "Let forward(x) return forward_heatmap(x)[0], and the heatmap be (B, K, *spatial)."
    try:
        with torch.no_grad():
            logits, heatmap = network.forward_heatmap(subject.images)
            change = compare(subject.network(subject.images), logits)
    except NETWORK_ERRORS as error:
        finding = f"forward_heatmap stops: {error}"
        return Check(name, (), False, math.nan, SAME, finding, advice)
    if heatmap.shape[:2] != logits.shape or heatmap.ndim != subject.images.ndim:
        finding = f"logits {tuple(logits.shape)}, but a heatmap {tuple(heatmap.shape)}"
        return Check(name, (), False, math.nan, SAME, finding, advice)
    finding = f"logits of forward and of forward_heatmap differ by {show(change)}"
    return conclude(name, change, SAME, finding, advice)


def check_package(subject: Subject, detail: str) -> Check:
    """A package that the method computes with must be installed."""
    missing = find_spec(detail) is None
    finding = f"the package {detail} is {'not ' if missing else ''}installed"
    return conclude("package", int(missing), 0, finding, f"Install it: pip install {detail}.")


def compare(first: Tensor, second: Tensor) -> float:
    """Return the norm of a difference, relative to the larger norm."""
    scale = max(float(first.norm()), float(second.norm()))
    return divide(float((first - second).norm()), scale)


def show(share: float) -> str:
    """Return a share for people: in percent, but for one that is far below a thousandth."""
    if 0 < share < 0.001:
        return f"{share:.0e}"
    return f"{share:.1%}" if share < 100 else f"{share:.0e} times"


def divide(error: float, scale: float) -> float:
    """Return error / scale, and the error alone where there is no scale."""
    return error / scale if scale else error


def _find_fault(subject: Subject, outputs: Any, watch: EndWatch) -> tuple[str, str]:
    """Return why outputs are no logits, and how to mend it; two empty texts if they are."""
    try:
        index_classes(outputs, None)
    except MethodError as error:
        return str(error), ""
    given, rows = len(subject.images), len(outputs)
    if rows != given:
        return f"{given} images give {rows} rows of logits", "Let the network return one an image."
    if end := watch.name_end(outputs) or name_sum(outputs):
        return (
            f"the network ends in {end}, so it returns no logits",
            "A probability that is sure has no gradient, and its heatmap is empty. Give the "
            "network without its last step: put nn.Identity() in place of the module, or let "
            "forward return what goes into the function.",
        )
    if _is_constant(subject, outputs):
        return (
            "the logits are the same for every image",
            "Look for weights that were not loaded, or are all zero.",
        )
    return "", ""


def _is_constant(subject: Subject, logits: Tensor) -> bool:
    """Whether not even images a thousand times as bright, or negative, change the logits."""
    alike = torch.equal(logits[:1], logits[1:])
    others = (subject.images * scale for scale in (0, 1000, -1000))
    return alike and all(torch.equal(subject.run(images), logits) for images in others)


def _judge_gradient(
    name: str, what: str, error: float | None, subject: Subject, advice: str
) -> Check:
    limit = GRADIENT_ERROR if subject.exact else COARSE_GRADIENT_ERROR
    if error is None:
        return Check(
            name, (), False, math.nan, limit,
            f"the gradient by {what} cannot be measured: the logits do not depend on it, or by "
            "less than their rounding",
            "Give the network so that it runs in float64 or with smaller logits, and as it was "
            "before it was quantised.",
        )  # fmt: skip
    finding = f"the gradient by {what} is off finite differences by {show(error)}"
    return conclude(name, error, limit, finding, advice)


def _hold_activation(subject: Subject, images: Tensor, layer: str) -> Tensor:
    network = subject.copy()
    tap = LayerTap(network, [layer])
    with torch.no_grad():
        subject.call(network, images)
    return tap.activations[0]


def _run_nudged(subject: Subject, images: Tensor, layer: str, nudge: Tensor) -> Tensor:
    """Return the logits when this is added to what the layer gives."""

    def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + nudge if output.shape == nudge.shape else output

    network = subject.copy()
    find_layer(network, layer).register_forward_hook(add)
    return subject.call(network, images)
