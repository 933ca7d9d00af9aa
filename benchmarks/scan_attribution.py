"""Attribution of a scan beside the usual way: slice by slice, as the libraries' docs show."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import captum.attr
import torch
from attribution_inputs import Plan, Subject, make_subject
from lower_bound import SINGLE, compare
from monai.visualize import GradCAM
from timing import Row
from torch import Tensor
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from heatmask.attribution import Explainer
from heatmask.device import place_network
from heatmask.inferer import HeatmapInferer

BATCH_SIZE = 8
CAPTUM = {
    "saliency": captum.attr.Saliency,
    "input_x_gradient": captum.attr.InputXGradient,
    "guided_backprop": captum.attr.GuidedBackprop,
    "deconvolution": captum.attr.Deconvolution,
}
CAPTUM_LIMIT, MONAI_LIMIT = 1 / 1.5, 1 / 4
"""Ours may take this share of the peer's time: at least 1.5 and 4 times as fast."""


def measure_scans(plan: Plan) -> Iterator[Row]:
    """Yield the rows beside Captum, MONAI and zennit."""
    subject = make_subject(plan, plan.scan_slices, plan.side, dims=2, num_classes=1)
    subject.images[: plan.empty_slices] = 0
    for method in SINGLE:
        peer = CAPTUM[method](subject.network)
        run = peer_by_slice(subject, lambda one, peer=peer: peer.attribute(one, target=0))
        for amp in (False, True):
            yield compare_scan(plan, subject, method, "Captum", run, CAPTUM_LIMIT, amp)
    # On a copy: it leaves its hooks behind.
    cam = GradCAM(nn_module=copy.deepcopy(subject.network), target_layers="layer4")
    run = peer_by_slice(subject, lambda one: cam(x=one, class_idx=0))
    for amp in (False, True):
        yield compare_scan(plan, subject, "grad_cam", "MONAI", run, MONAI_LIMIT, amp)
    yield compare_scan(plan, subject, "lrp_epsilon_plus", "zennit", make_zennit(subject), None)


def compare_scan(
    plan: Plan,
    subject: Subject,
    method: str,
    library: str,
    run_peer: Callable[[], Any],
    limit: float | None,
    amp: bool = False,
) -> Row:
    """Measure our inferer, with the network as bundles place it, beside a library's loop."""
    volume = subject.images.movedim(0, -1)[None]
    inferer = HeatmapInferer(
        batch_size=BATCH_SIZE, gate=False, explainer=Explainer(method), check=False, amp=amp
    )
    network = place_network(copy.deepcopy(subject.network), subject.images.device)
    precision = "half precision: " if amp else ""
    what = f"{precision}{method} of a scan, {plan.empty_slices} of its slices empty"
    peer_name = f"{library}, slice by slice"
    return compare(
        plan, subject, what, lambda: inferer(volume, network), peer_name, run_peer, limit
    )


def peer_by_slice(subject: Subject, attribute: Callable[[Tensor], Any]) -> Callable[[], Any]:
    """Return a loop over all slices that keeps the results."""

    def run() -> list[Tensor]:
        slices = subject.images.split(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Captum tells of its hooks
            return [attribute(one.clone().requires_grad_()).detach() for one in slices]

    return run


def make_zennit(subject: Subject) -> Callable[[], Any]:
    """Return zennit's loop; its sum misses the logit on this network, see the decision record."""
    network = subject.network

    def run() -> list[Tensor]:
        with Gradient(model=network, composite=EpsilonPlusFlat()) as attributor:
            one = torch.ones(1, 1, device=subject.images.device)
            slices = [image.clone().requires_grad_() for image in subject.images.split(1)]
            return [attributor(image, one)[1].detach() for image in slices]

    return run
