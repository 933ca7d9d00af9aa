"""Draw every attribution method on one slice, and beside it the same on random weights.

``python benchmarks/draw_gallery.py --scan SCAN --slice 12`` does it with a FLAIR scan of your own.
Without a scan it takes a synthetic head; ``--output docs/images/gallery.png`` makes the figure
of the documentation.
"""

import copy
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from monai.data import MetaTensor
from phantom import make_phantom
from rich.progress import track
from torch import Tensor

from heatmask.attribution import Explainer, list_methods
from heatmask.attribution.batches import explain_present_channels
from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.networks.weights import load_weights
from heatmask.training.engine import seed_network

COLUMNS = 4
PHANTOM_SEED, PHANTOM_SLICE = 21, 20


def main(
    scan: Annotated[Path | None, typer.Option(help="A FLAIR scan.")] = None,
    index: Annotated[
        int, typer.Option("--slice", help="Axial slice, counted from below.")
    ] = PHANTOM_SLICE,
    output: Annotated[Path, typer.Option(help="PNG file.")] = Path("gallery.png"),
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = (
        "brain_mri_resnet_attribution_segmentation"
    ),
) -> None:
    """Draw the gallery."""
    folder = find_bundle(bundle)
    parser = read_bundle(folder)
    image = load_phantom() if scan is None else str(scan)
    volume = run_bundle(parser, "preprocessing")({"image": image})["image"]
    image = volume.as_tensor()[None, ..., index]
    network = load_weights(run_bundle(parser, "network_def"), folder / "models/model.pt")
    random = seed_network(copy.deepcopy(network), 0).eval()
    names = [method.name for method in list_methods() if method.family != "inherent"]
    maps = [
        [
            explain_present_channels(Explainer(name), net, image).attribution[0, 0]
            for net in (network, random)
        ]
        for name in track(names, "Explaining")
    ]
    draw_maps(image[0, 0], names, maps, output)


def load_phantom() -> MetaTensor:
    """Return a synthetic head with a lesion, as a loaded scan."""
    phantom = make_phantom(PHANTOM_SEED)
    return MetaTensor(torch.from_numpy(phantom.image)[None], torch.from_numpy(phantom.affine))


def draw_maps(image: Tensor, names: list[str], maps: list[list[Tensor]], output: Path) -> None:
    """Draw the slice and, for each method, its map by trained and by random weights."""
    rows = -(-(len(names) + 1) // COLUMNS)
    figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(2 * COLUMNS * 1.5, rows * 1.85))
    panels = axes.reshape(-1, 2)
    for axis in axes.flat:
        axis.axis("off")
    show_map(panels[0][0], image, None)
    panels[0][0].set_title("FLAIR slice", fontsize=8)
    for panel, name, pair in zip(panels[1:], names, maps, strict=False):
        for axis, attribution, what in zip(panel, pair, ("", " (random weights)"), strict=True):
            show_map(axis, image, attribution)
            axis.set_title(name + what if not what else what.strip(), fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(output, dpi=110)
    print(f"Written: {output}")


def show_map(axis: Axes, image: Tensor, attribution: Tensor | None) -> None:
    """Show a slice with the patient's front up and left at the right, and a map over it."""
    axis.imshow(image.T.flip(0).numpy()[:, ::-1], cmap="gray", vmax=float(image.max()))
    if attribution is not None:
        shown = attribution.T.flip(0).numpy()[:, ::-1]
        top = float(attribution.abs().flatten().quantile(0.995)) or 1.0
        axis.imshow(shown, cmap="coolwarm", vmin=-top, vmax=top, alpha=0.7)


if __name__ == "__main__":
    typer.run(main)
