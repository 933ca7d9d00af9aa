"""The checks of what a network gives: logits, ReLUs, a heatmap of its own.

Each check of this package is called as ``check(subject, detail)``; `detail` names the layer or
the method that it is about, or is empty. One that fails returns so and raises nothing.
"""

import torch

from heatmask.attribution.checks.check import SAME, Check, compare, conclude, fail, show
from heatmask.attribution.checks.operations import ActivationCounter, CountedRules, GateWatch
from heatmask.attribution.checks.probe import NETWORK_ERRORS, Subject
from heatmask.attribution.classes import index_classes
from heatmask.attribution.inherent import ExplainedClassifier
from heatmask.errors import MethodError

_ROUNDING = 1e-5


def check_logits(subject: Subject, detail: str) -> Check:
    """Logits must be (B, K) and finite, no probabilities, and not the same for every image."""
    finding, advice = _find_fault(subject)
    if finding:
        return fail("logits", finding, advice)
    logits = subject.logits
    wrong = int((~logits.isfinite()).sum())
    finding = f"{logits.shape[1]} logit(s) an image, {wrong} of {logits.numel()} not finite"
    return conclude("logits", wrong, 0, finding, "Look for NaN in the weights.")


def _find_fault(subject: Subject) -> tuple[str, str]:
    """Return why outputs are no logits, and how to mend it; two empty texts if they are."""
    logits = subject.logits
    try:
        index_classes(logits, None)
    except MethodError as error:
        return str(error), ""
    given, rows = len(subject.images), len(logits)
    if rows != given:
        return f"{given} images give {rows} rows of logits", "Let the network return one an image."
    if end := subject.end or _name_sum(logits):
        return (
            f"the network ends in {end}, so it returns no logits",
            "A probability that is sure has no gradient, and its heatmap is empty. Give the "
            "network without its last step: put nn.Identity() in place of the module, or let "
            "forward return what goes into the function.",
        )
    # Not even images a thousand times as bright, or negative, change the logits.
    others = (subject.images * scale for scale in (0, 1000, -1000))
    if torch.equal(logits[:1], logits[1:]) and all(
        torch.equal(subject.run(images), logits) for images in others
    ):
        return (
            "the logits are the same for every image",
            "Look for weights that were not loaded, or are all zero.",
        )
    return "", ""


def _name_sum(outputs: torch.Tensor) -> str:
    """Return what outputs (B, K) must come from, if their sum tells; empty if it does not."""
    if outputs.shape[1] < 2:
        return ""
    for values, name in ((outputs, "a softmax"), (outputs.exp(), "a log-softmax")):
        if (values >= 0).all() and ((values.sum(1) - 1).abs() < _ROUNDING).all():
            return name
    return ""


def check_determinism(subject: Subject, detail: str) -> Check:
    """The same image must give the same logits again."""
    change = compare(subject.logits, subject.alone)
    if change > SAME:  # which may be the batch's doing
        change = compare(subject.logits, subject.run())
    return conclude(
        "determinism", change, SAME,
        f"logits change by {show(change)} from call to call",
        "Something random stays on in eval mode, such as F.dropout(x): give it "
        "training=self.training, or take nn.Dropout.",
    )  # fmt: skip


def check_batch(subject: Subject, detail: str) -> Check:
    """An image must get the same logits alone as beside another."""
    change = compare(subject.logits, subject.alone)
    return conclude(
        "batch against single", change, SAME if subject.exact else 10 * SAME,
        f"logits of an image change by {show(change)} with its batch",
        "A normalisation takes the statistics of the batch in eval mode: give batch norm "
        "track_running_stats=True and train again, or take instance or group norm. Dynamic "
        "quantisation takes the range of the batch: give the network as it was before.",
    )  # fmt: skip


def check_relu(subject: Subject, detail: str) -> Check:
    """Rules for ReLUs need ReLUs, and no activation that they would pass by."""
    network, others, rules = subject.copy(), ActivationCounter(), CountedRules()
    leaf = subject.images[1:].clone().requires_grad_()
    with GateWatch(rules) as gates, others, rules:
        logits = network(leaf.clone())  # which it may change in place
    if logits.requires_grad:
        torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    scripted = sum(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
    lost = rules.calls - rules.asked
    missed = others.calls + gates.calls + scripted + lost
    names = others.names | gates.names
    names |= {word for word, n in (("scripted", scripted), ("no gradient", lost)) if n}
    kinds = f" ({', '.join(sorted(names))})" if names else ""
    return conclude(
        "ReLU activations", missed if rules.calls else float("nan"), 0,
        f"{rules.calls} ReLUs gated, {missed} other activations{kinds}",
        "Where an activation is no ReLU, or is one that is not seen, the rules are silently the "
        "plain gradient. Spell ReLUs as nn.ReLU or F.relu, in Python code.",
    )  # fmt: skip


def check_heatmap(subject: Subject, detail: str) -> Check:
    """The network must offer a heatmap, and classify with it as without."""
    name, network = "heatmap", subject.network
    if not isinstance(network, ExplainedClassifier):
        return fail(name, f"{type(network).__name__} offers no forward_heatmap", limit=SAME)
    advice = "Let forward(x) return forward_heatmap(x)[0], and the heatmap be (B, K, *spatial)."
    try:
        with torch.no_grad():
            logits, heatmap = network.forward_heatmap(subject.images[1:])
            change = compare(network(subject.images[1:]), logits)
    except NETWORK_ERRORS as error:
        return fail(name, f"forward_heatmap stops: {error}", advice, SAME)
    if heatmap.shape[:2] != logits.shape or heatmap.ndim != subject.images.ndim:
        finding = f"logits {tuple(logits.shape)}, but a heatmap {tuple(heatmap.shape)}"
        return fail(name, finding, advice, SAME)
    finding = f"logits of forward and of forward_heatmap differ by {show(change)}"
    return conclude(name, change, SAME, finding, advice)
