"""Memory layout, half precision and torch.compile: what each saves, and what it changes.

``python benchmarks/precision.py`` measures the bundles' networks on random slices. With DATA
(the folder with patients.csv) it also compares heatmaps and pseudo-masks with and without half
precision on the scans of the validation patients; no reference mask is opened.
"""

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.data.labels import list_labelled_volumes
from heatmask.device import place_network

BUNDLES = ("brain_mri_gp_unet_segmentation", "brain_mri_resnet_attribution_segmentation")
METHODS = (
    "guided_backprop", "saliency", "input_x_gradient", "deconvolution", "grad_cam", "layer_cam",
)  # fmt: skip
console = Console(highlight=False)


def main(
    data: Annotated[Path | None, typer.Argument(help="Folder with patients.csv.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use.")] = 2,
    compiled: Annotated[bool, typer.Option(help="Measure torch.compile too.")] = True,
) -> None:
    """Print the time of each variant over the plain network's, and how far results agree."""
    torch.set_num_threads(threads)
    table = Table("Network", "Pass", "Variant", "ms", "over plain", title="16 slices of 128 x 128")
    for name in BUNDLES:
        parser = read_for_cpu(name)
        network = run_bundle(parser, "network").eval().requires_grad_(False)
        for row in measure_variants(network, len(parser["sequences"]), repeats, compiled):
            table.add_row(name.split("_segmentation")[0], *row)
    console.print(table)
    if data is not None:
        console.print(compare_precision(data))


def read_for_cpu(bundle: str, **options: Any) -> Any:
    """Return a bundle's config for the CPU, without scans of its own."""
    return read_bundle(
        find_bundle(bundle), options={"dataset": [], "writer": None, "device": "cpu", **options}
    )


def measure_variants(
    network: nn.Module, channels: int, repeats: int, compiled: bool
) -> Iterator[list[str]]:
    """Yield pass, variant, median time and median ratio to the plain network, round by round."""
    images = torch.rand(16, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    placed = place_network(copy.deepcopy(network), torch.device("cpu"))
    variants: dict[str, tuple[nn.Module, bool]] = {
        "plain": (network, False),
        "channels last": (placed, False),
        "half": (network, True),
        "channels last, half": (placed, True),
    }
    if compiled:
        variants["channels last, compiled"] = (torch.compile(placed), False)
    for what, run in (("forward", run_forward), ("gradient", run_gradient)):
        times: dict[str, list[float]] = {name: [] for name in variants}
        first = {name: measure(run, images, *variant) for name, variant in variants.items()}
        for _ in range(repeats):
            for name, variant in variants.items():
                times[name].append(measure(run, images, *variant))
        for name, found in times.items():
            ratio = median(a / b for a, b in zip(found, times["plain"], strict=True))
            note = f" (first call {first[name]:.0f} s)" if "compiled" in name else ""
            yield [what, name + note, f"{median(found) * 1e3:.0f}", f"{ratio:.2f}"]


def measure(run: Callable[..., Any], images: Tensor, network: nn.Module, half: bool) -> float:
    """Return the seconds that a pass takes."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        run(network, images)
    return time.perf_counter() - start


@torch.no_grad()
def run_forward(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def run_gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    return torch.autograd.grad(network(images)[:, 0].sum(), images)[0]


def compare_precision(data: Path) -> Table:
    """Return how far heatmaps and masks with half precision agree with those without."""
    table = Table("Network, method", "Least correlation", "Least mask Dice", "Mean", "Seconds")
    tables = data / "slice_labels.csv", data / "patients.csv"
    volumes = list_labelled_volumes(data, "*-t2f.nii.gz", *tables, "val")
    for bundle, method in [(BUNDLES[0], ""), *((BUNDLES[1], method) for method in METHODS)]:
        options = {"method": method} if method else {}
        pipelines = [
            run_bundle(read_for_cpu(bundle, amp=amp, **options), "evaluator")
            for amp in (False, True)
        ]
        correlations, overlaps, seconds = [], [], [0.0, 0.0]
        for volume in track(volumes, method or bundle):
            results = [pipeline(volume.image) for pipeline in pipelines]
            seconds = [s + r.seconds["explain"] for s, r in zip(seconds, results, strict=True)]
            exact, half = (np.asarray(result.heatmap).ravel() for result in results)
            if np.ptp(exact) > 0:  # no slice shown at all
                correlations.append(np.corrcoef(exact, half)[0, 1])
            exact, half = (np.asarray(result.mask) > 0 for result in results)
            if (exact | half).any():
                overlaps.append(2 * (exact & half).sum() / (exact.sum() + half.sum()))
        table.add_row(
            f"{bundle.split('_segmentation')[0]} {method}", f"{min(correlations):.4f}",
            f"{min(overlaps):.3f}", f"{np.mean(overlaps):.3f}",
            f"{seconds[0]:.1f} and {seconds[1]:.1f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    typer.run(main)
