"""Attribution beside its lower bound: forwards and backwards that any code would have to run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from attribution_inputs import Plan, Subject, make_subject
from timing import Row, measure_in_turn, settle
from torch.nn import functional as F

from heatmask.attribution import explain
from heatmask.attribution.frozen import copy_frozen
from heatmask.attribution.gradient import backpropagate
from heatmask.attribution.memory import measure_peak

SINGLE = ("saliency", "input_x_gradient", "guided_backprop", "deconvolution")
CAMS = ("cam", "grad_cam", "grad_cam_plus_plus", "hires_cam", "xgrad_cam", "layer_cam")
MANY = {"integrated_gradients": "steps", "smoothgrad": "samples"}
SINGLE_LIMIT, RULES_LIMIT, CAM_LIMIT, MANY_LIMIT, OCCLUSION_LIMIT = 1.15, 2.6, 1.1, 1.1, 1.2
CAM_LAYER = "layer4"


def measure_lower_bounds(plan: Plan) -> Iterator[Row]:
    """Yield the rows of 2D and then 3D."""
    for dims in (2, 3):
        count, side = (plan.slices, plan.side) if dims == 2 else (1, plan.volume_side)
        subject = make_subject(plan, count, side, dims)
        yield from measure_single(subject, plan)
        yield measure_rules(subject, plan)
        yield from measure_cams(subject, plan)
        if dims == 3 and plan.many_side != plan.volume_side:
            subject = make_subject(plan, 1, plan.many_side, dims)
        yield from measure_many(subject, plan)
        yield measure_occlusion(subject, plan)


def measure_single(subject: Subject, plan: Plan) -> Iterator[Row]:
    """Methods of one backward pass, one class, beside F."""
    for method in SINGLE:
        ours = make_call(subject, method, class_idx=0)
        yield compare(plan, subject, method, ours, "F", lambda: run_bound(subject), SINGLE_LIMIT)


def measure_rules(subject: Subject, plan: Plan) -> Row:
    """The gradient under three ReLU rules from one forward, beside F."""

    def run_rules() -> Any:
        network = copy_frozen(subject.network)
        return backpropagate(network, subject.images, 0, ("plain", "guided", "deconvolution"))

    what = "plain, guided and deconvolution together"
    return compare(plan, subject, what, run_rules, "F", lambda: run_bound(subject), RULES_LIMIT)


def measure_cams(subject: Subject, plan: Plan) -> Iterator[Row]:
    """CAMs of all classes beside a forward, and a backward above the layer for each class."""
    classes = subject.network.fc.out_features
    for method in CAMS:
        name = f"{method}, all {classes} classes"
        peer, run_peer = "fwd + backward above the layer", lambda: run_above(subject)
        yield compare(plan, subject, name, make_call(subject, method), peer, run_peer, CAM_LIMIT)


def measure_many(subject: Subject, plan: Plan) -> Iterator[Row]:
    """Methods of n forwards and backwards beside n F; the peer's time is n times that of one."""
    for method, option in MANY.items():
        ours = make_call(subject, method, class_idx=0, **{option: plan.steps})
        name = f"{method}, {plan.steps} {option}"
        row = compare(plan, subject, name, ours, "n F", lambda: run_bound(subject), MANY_LIMIT)
        yield replace(row, peer=[plan.steps * time for time in row.peer])


def measure_occlusion(subject: Subject, plan: Plan) -> Row:
    """Occlusion of one image beside the forwards it must do, in batches of the same size."""
    image, network = subject.images[:1], subject.frozen
    window = image.shape[2] // (4 if image.ndim == 4 else 2)
    pool = {4: F.max_pool2d, 5: F.max_pool3d}[image.ndim]
    touched = int(pool(image.ne(0).float(), window, window // 2).sum())
    copies = image.repeat(touched + 1, *[1] * (image.ndim - 1))

    @torch.no_grad()
    def run_forwards() -> None:
        for batch in copies.split(plan.windows_per_batch):
            network(batch)

    one = Subject(subject.network, image)
    options = {"window": window, "windows_per_batch": plan.windows_per_batch}
    ours = make_call(one, "occlusion", **options)
    row = compare(plan, subject, "occlusion", ours, "", run_forwards, OCCLUSION_LIMIT)
    return replace(row, what="occlusion of one", peer_name=f"the {touched + 1} forwards it needs")


def make_call(
    subject: Subject, method: str, class_idx: int | None = None, **options: Any
) -> Callable[[], Any]:
    """Return a function that explains the images in one batch."""

    def call() -> Any:
        return explain(
            subject.network, subject.images, method, class_idx,
            batch_size=len(subject.images), **options,
        )  # fmt: skip

    return call


def run_bound(subject: Subject) -> None:
    """F: one forward and the gradient by the input, with frozen parameters."""
    images = subject.images.detach().requires_grad_()
    torch.autograd.grad(subject.frozen(images)[:, 0].sum(), images)


def run_above(subject: Subject) -> None:
    """A forward that keeps a graph above the layer, and a backward to it for each class."""
    held = []

    def hold(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        held.append(output.detach().requires_grad_())
        return held[0]

    handle = subject.frozen.get_submodule(CAM_LAYER).register_forward_hook(hold)
    try:
        logits = subject.frozen(subject.images)
    finally:
        handle.remove()
    for scores in logits.sum(0):
        torch.autograd.grad(scores, held[0], retain_graph=True)


def compare(
    plan: Plan,
    subject: Subject,
    what: str,
    ours: Callable[[], Any],
    peer_name: str,
    peer: Callable[[], Any],
    limit: float | None,
) -> Row:
    """Measure ours and a peer in turn, each until the device is done."""
    times = measure_in_turn(settle(ours, plan.device), settle(peer, plan.device), plan.repeats)
    peak_mb = measure_peak_mb(ours, plan.device)
    return Row(
        what, "ms", times[0], peer_name, times[1], limit, group=subject.name, peak_mb=peak_mb
    )


def measure_peak_mb(call: Callable[[], Any], device: str) -> float | None:
    """Return what one call takes of a GPU's memory, beside what is held before."""
    if device != "cuda":
        return None
    with measure_peak(torch.device(device)) as read_peak:
        call()
    return read_peak() / 1e6
