"""Captum's methods beside ours, for one class and for three: time and difference, on one core.

python benchmarks/beside_captum.py
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from captum import attr
from monai.networks.nets import resnet18
from rich.console import Console
from rich.table import Table
from timing import measure_in_turn
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.attribution.perturbation.superpixels import find_superpixels

SIDE, IMAGES, CLASSES, REPEATS = 64, 4, (1, 3), 3


def list_peers(network: nn.Module, images: Tensor) -> dict[str, tuple[dict, Callable]]:
    """Return by method our options, and Captum's call for one class."""
    leaf = images.clone().requires_grad_()
    saliency, product = attr.Saliency(network), attr.InputXGradient(network)
    path, windows = attr.IntegratedGradients(network), attr.Occlusion(network)
    regions, layer = attr.FeatureAblation(network), attr.LayerGradCam(network, network.layer4)

    def ablate(k: int) -> Tensor:
        mask = find_superpixels(images, 16, 0.1)[:, None]
        return regions.attribute(images, target=k, feature_mask=mask, perturbations_per_eval=2)

    return {
        "saliency": ({}, lambda k: saliency.attribute(leaf, target=k)),
        "input_x_gradient": ({}, lambda k: product.attribute(leaf, target=k)),
        "integrated_gradients": (
            {"steps": 8},
            lambda k: path.attribute(images, target=k, n_steps=8, internal_batch_size=IMAGES),
        ),
        "grad_cam": ({"target_layer": "layer4"}, lambda k: layer.attribute(images, target=k)),
        "occlusion": (
            {"window": 32, "stride": 16},
            lambda k: windows.attribute(
                images, sliding_window_shapes=(1, 32, 32), strides=(1, 16, 16), target=k,
                perturbations_per_eval=2,
            ),
        ),
        "feature_ablation": ({"segments": 16}, ablate),
    }  # fmt: skip


def run_each_class(call: Callable, classes: int) -> Tensor:
    """Return Captum's attributions (B, K, *spatial), summed over the channels."""
    return torch.stack([call(k).detach().sum(1) for k in range(classes)], dim=1)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore", UserWarning)  # of its hooks
    torch.set_num_threads(1)
    table = Table("method", "classes", "ours", "Captum / ours", "largest difference")
    for classes in CLASSES:
        torch.manual_seed(0)
        network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=classes)
        network.eval().requires_grad_(False)
        images = torch.rand(IMAGES, 1, SIDE, SIDE)
        for method, (options, call) in list_peers(network, images).items():
            run_ours = partial(Explainer(method, **options), network, images)
            run_peer = partial(run_each_class, call, classes)
            ours, theirs = run_ours().attribution, run_peer()
            apart = "another grid"
            if ours.shape == theirs.shape:
                apart = f"{float((ours - theirs).abs().max() / ours.abs().max()):.0e}"
            times, peer = measure_in_turn(run_ours, run_peer, REPEATS)
            ratio = sorted(b / a for a, b in zip(times, peer, strict=True))[REPEATS // 2]
            table.add_row(method, str(classes), f"{min(times):.0f} ms", f"{ratio:.1f}", apart)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
