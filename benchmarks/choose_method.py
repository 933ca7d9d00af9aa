"""Which method and smoothing rest on what the classifier needs? Asked without any mask.

The default method of a bundle with plain classifier is chosen by this table: the deletion
contrast (`heatmask.experiments.faithfulness`) over the slices of the validation patients that
the classifier calls positive. `--random` gives the control: the same method on random weights,
judged by the trained classifier.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from monai.data import MetaTensor
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from heatmask.attribution import Explainer, list_methods
from heatmask.attribution.batches import explain_present_channels
from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.experiments.faithfulness import measure_deletion_contrast
from heatmask.networks.weights import load_weights
from heatmask.training.engine import seed_network
from heatmask.transforms import SmoothHeatmapd

console = Console()


def main(
    data: Annotated[
        Path, typer.Argument(help="What the bundle is trained on: its validation part.")
    ],
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = (
        "brain_mri_resnet_attribution_segmentation"
    ),
    method: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: all methods.")
    ] = None,
    target_layer: Annotated[str | None, typer.Option(help="For the CAM family.")] = None,
    blur_mm: Annotated[list[float] | None, typer.Option(help="Repeatable.")] = None,
    stride: Annotated[int, typer.Option(help="Take every nth volume or picture alone.")] = 1,
    random: Annotated[bool, typer.Option(help="Explain a network of random weights.")] = False,
) -> None:
    """Print the deletion contrast of methods on a bundle's weights, the best first."""
    folder = find_bundle(bundle)
    parser = read_bundle(folder, ("train",), {"dataset_dir": str(data)})
    network = run_bundle(parser, "network_def")
    load_weights(network, folder / "models/model.pt")
    explained = seed_network(copy.deepcopy(network), 0).eval() if random else network
    volumes = load_positive_slices(parser, network, stride)
    widths, spacing = blur_mm or [0.0, 4.0, 8.0], parser["pixel_spacing_mm"]
    names = method or [m.name for m in list_methods() if m.family != "inherent"]
    rows = []
    for name in names:
        explainer = Explainer(name, target_layer)
        rows += measure_method(explainer, explained, network, volumes, widths, spacing)
    count = sum(len(images) for images in volumes)
    show_rows(rows, f"{count} slices of {len(volumes)} validation volumes or pictures")


def load_positive_slices(parser: Any, network: nn.Module, stride: int) -> list[Tensor]:
    """Return, for each validation volume, the slices (N, C, H, W) predicted to show a finding."""
    slices = parser.get_parsed_content("validate#dataset")
    volumes = []
    for number in slices.places[:, 0].unique()[::stride]:
        images = slices.images[slices.places[:, 0] == number].float()
        volumes.append(images[predict(network, images)[0] >= 0.5])
    return volumes


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of the likeliest class, and which that is, both (N,)."""
    if not len(images):
        return images.new_zeros(0), torch.zeros(0, dtype=torch.long)
    logits = torch.cat([network(batch) for batch in images.split(32)])
    probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    found = probabilities.max(dim=1)
    return found.values, found.indices


@torch.no_grad()
def classify(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (N,) of the class of each image."""
    logits = torch.cat([network(batch) for batch in images.split(32)])
    probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return probabilities.gather(1, classes[:, None])[:, 0]


def measure_method(
    explainer: Explainer,
    explained: nn.Module,
    network: nn.Module,
    volumes: Sequence[Tensor],
    widths: Sequence[float],
    pixel_spacing_mm: float,
) -> list[tuple[float, str, float]]:
    """Return deletion contrast of the class predicted, method and blur for each width."""
    maps, classes = [], [predict(network, images)[1] for images in volumes]
    for images, chosen in zip(track(volumes, explainer.method.name), classes, strict=True):
        if len(images):
            attribution = explain_present_channels(explainer, explained, images).attribution
            maps.append(attribution[torch.arange(len(images)), chosen])
        else:
            maps.append(None)
    rows = []
    for width in widths:
        contrasts = [
            0.0
            if heatmap is None
            else measure_deletion_contrast(
                partial(classify, network, classes=chosen),
                images,
                smooth(heatmap, width, pixel_spacing_mm),
            )
            for images, heatmap, chosen in zip(volumes, maps, classes, strict=True)
        ]
        rows.append((sum(contrasts) / len(contrasts), explainer.method.name, width))
    return rows


def smooth(heatmap: Tensor, blur_mm: float, pixel_spacing_mm: float) -> Tensor:
    """Return maps (N, H, W), smoothed as the bundle does it."""
    affine = torch.diag(torch.tensor([1.0, pixel_spacing_mm, pixel_spacing_mm, 1.0]))
    volume = MetaTensor(heatmap[None], affine)
    return SmoothHeatmapd("heatmap", blur_mm, slice_axis=0)({"heatmap": volume})["heatmap"][0]


def show_rows(rows: list[tuple[float, str, float]], title: str) -> None:
    """Print the rows, the highest contrast first."""
    table = Table("method", "blur, mm", "deletion contrast", title=title)
    for contrast, name, width in sorted(rows, reverse=True):
        table.add_row(name, f"{width:g}", f"{contrast:.3f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
