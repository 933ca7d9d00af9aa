"""What the check of a method on a new network costs beside the attribution itself.

    python benchmarks/checks.py [--repeats 3]

Each pair is measured in turn in one process: `explain` of one image on a network that was never
seen before, without the check and with it. The bar is a check of three attributions at most.
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from monai.networks.nets import DenseNet121, resnet18
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from heatmask.attribution import explain
from heatmask.networks.gp_unet import GPUNet

METHODS = ("saliency", "guided_backprop", "deep_lift", "grad_cam", "eigen_cam")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18, 128 x 128": (
        lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=2),
        (1, 128, 128),
    ),
    "DenseNet-121, 128 x 128": (lambda: DenseNet121(2, 1, 2), (1, 128, 128)),
    "DenseNet-121, 64 x 64 x 64": (lambda: DenseNet121(3, 1, 2), (1, 64, 64, 64)),
}
OWN = {"GP-UNet, 128 x 128": (lambda: GPUNet(2, 1, 2), (1, 128, 128))}
LIMIT = 3.0


def measure_ratio(network: nn.Module, image: Tensor, method: str, repeats: int) -> list[float]:
    """Return the seconds of an attribution, and how many attributions its check takes."""
    plain, checked = [], []
    for _ in range(repeats):
        for check, times in ((False, plain), (True, checked)):
            new = copy.deepcopy(network)
            start = time.perf_counter()
            explain(new, image, method, 0, check=check)
            times.append(time.perf_counter() - start)
    ratios = [with_check / alone - 1 for alone, with_check in zip(plain, checked, strict=True)]
    return [median(plain), median(ratios)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("network", "method", "attribution", "check / attribution", f"at most {LIMIT:g}")
    for networks, methods in ((NETWORKS, METHODS), (OWN, ("inherent", *METHODS[:1]))):
        for name, (make, shape) in networks.items():
            network, image = make().eval(), torch.rand(1, *shape)
            explain(network, image, methods[0], check=False)  # the libraries wake up
            for method in methods:
                seconds, ratio = measure_ratio(network, image, method, arguments.repeats)
                met = "yes" if ratio <= LIMIT else "no"
                table.add_row(name, method, f"{seconds:.2f} s", f"{ratio:.1f}", met)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
