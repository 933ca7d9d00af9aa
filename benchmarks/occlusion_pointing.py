"""Occlusion coarse to fine beside occlusion: forwards, seconds, and where the maximum lies.

``python benchmarks/occlusion_pointing.py DATA [--split test] [--patients 16] [--slices 4]``

On the test split the pointing game (Zhang et al. 2016, arXiv 1608.00507): the maximum of the
map of a slice with tumour lies in the reference mask or not. On the validation split no mask
is opened: there the two maxima are only compared with each other, which is what the options'
defaults were chosen by.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from monai.transforms import LoadImage, ResampleToMatch, ResizeWithPadOrCrop
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.attribution.batches import explain_in_batches
from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.data.labels import LabelledVolume, list_labelled_volumes
from heatmask.experiments.bootstrap import Interval, bootstrap_mean
from heatmask.training.slices import SliceDataset

RESNET = "brain_mri_resnet_attribution_segmentation"
FULL, FAST = METHODS = ("occlusion", "occlusion_coarse_to_fine")
console = Console(highlight=False)


@dataclass
class Record:
    """What one method did, patient by patient.

    Attributes
    ----------
    forwards, seconds, slices : int, float, int
        Over all patients.
    hits : list of float
        Share of a patient's slices whose maximum lies in the reference mask.
    maxima : list of Tensor
        (slices, 2), row and column, one a patient.
    """

    forwards: int = 0
    seconds: float = 0.0
    slices: int = 0
    hits: list[float] = field(default_factory=list)
    maxima: list[Tensor] = field(default_factory=list)


def main(
    data: Annotated[Path, typer.Argument(help="Folder with patients.csv and slice_labels.csv.")],
    split: Annotated[str, typer.Option(help="test is scored with masks, val without.")] = "test",
    patients: Annotated[int, typer.Option(min=1, help="At most so many, the first ones.")] = 99,
    slices: Annotated[int, typer.Option(min=1, help="Slices with tumour a patient.")] = 4,
    window: Annotated[int, typer.Option(min=2, help="The finest, in pixels.")] = 8,
    halvings: Annotated[int | None, typer.Option(help="Default: the method's.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Default: the method's.")] = None,
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = RESNET,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use.")] = 2,
) -> None:
    """Print forwards a slice, pointing accuracy and seconds of both methods."""
    torch.set_num_threads(threads)
    parser = read_bundle(find_bundle(bundle), options={"device": "cpu"})
    network, preprocessing = run_bundle(parser, "network"), run_bundle(parser, "preprocessing")
    tables = data / "slice_labels.csv", data / "patients.csv"
    volumes = list_labelled_volumes(data, "*-t2f.nii.gz", *tables, split)[:patients]
    search = {"halvings": halvings, "fraction": fraction}
    options = {FULL: {}, FAST: {k: v for k, v in search.items() if v is not None}}
    records = {name: Record() for name in METHODS}
    for volume in track(volumes, f"Patients of {split}"):
        images, masks = load_slices(volume, preprocessing, slices, split == "test")
        for name, record in records.items():
            add_patient(record, network, images, masks, name, window=window, **options[name])
    console.print(make_table(records, split == "test"))
    console.print(
        f"{records[FULL].slices} slices with tumour of {len(volumes)} patients of {split}, at most "
        f"{slices} each, evenly spaced; window {window}, stride {window // 2} pixels; {threads} "
        f"threads, torch {torch.__version__}. Intervals: 95 %, bootstrap over patients."
    )
    console.print(compare(records, window, split == "test"))


def load_slices(
    volume: LabelledVolume, preprocessing: Any, count: int, with_masks: bool
) -> tuple[Tensor, Tensor | None]:
    """Return evenly spaced slices with tumour (N, 1, H, W), and their masks (N, H, W)."""
    dataset = SliceDataset([volume], preprocessing)
    positive = dataset.labels.nonzero().flatten()
    # Inside the stretch of tumour: its very ends show next to nothing.
    inner = (torch.arange(count) + 0.5) / count * len(positive)
    chosen = positive[inner.long().unique()]
    images = dataset.images[chosen].float()
    if not with_masks:
        return images, None
    (path,) = volume.path.parent.glob("*-seg.nii.gz")
    image = preprocessing({"image": volume.image})["image"]
    mask = LoadImage(image_only=True, ensure_channel_first=True)(path)
    mask = ResampleToMatch(mode="nearest", padding_mode="zeros")(mask, image)
    mask = ResizeWithPadOrCrop((*images.shape[2:], -1))(mask)
    return images, mask.as_tensor()[0].movedim(-1, 0)[chosen] > 0


def add_patient(
    record: Record,
    network: nn.Module,
    images: Tensor,
    masks: Tensor | None,
    method: str,
    **options: Any,
) -> None:
    """Explain a patient's slices and add what came out."""
    counts: list[int] = []
    # The method works on a copy of the network, which takes the hook along.
    handle = network.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    start = time.perf_counter()
    explanation = explain_in_batches(Explainer(method, **options), network, images, 0)
    record.seconds += time.perf_counter() - start
    handle.remove()
    record.forwards += sum(counts)
    record.slices += len(images)
    record.maxima.append(find_maxima(explanation.attribution[:, 0]))
    if masks is not None:
        rows, columns = record.maxima[-1].unbind(1)
        hit = masks[torch.arange(len(masks)), rows, columns]
        record.hits.append(float(hit.float().mean()))


def find_maxima(maps: Tensor) -> Tensor:
    """Return row and column (N, 2) of the maximum of each map (N, H, W)."""
    flat = maps.flatten(1).argmax(1)
    return torch.stack([flat // maps.shape[2], flat % maps.shape[2]], dim=1)


def make_table(records: dict[str, Record], with_masks: bool) -> Table:
    """Return what each method did, a slice on average."""
    table = Table("Method", title="Coarse to fine beside full occlusion")
    for name in ("Forwards", "Seconds", *(["Pointing accuracy"] if with_masks else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for name, record in records.items():
        cells = [f"{record.forwards / record.slices:.1f}", f"{record.seconds / record.slices:.2f}"]
        if with_masks:
            cells.append(format_interval(bootstrap_mean(record.hits)))
        table.add_row(name, *cells)
    return table


def compare(records: dict[str, Record], window: int, with_masks: bool) -> str:
    """Return the ratio of the forwards, how often the maxima agree, and who points better."""
    full, fast = records[FULL], records[FAST]
    apart = [a - b for a, b in zip(full.maxima, fast.maxima, strict=True)]
    near = [float((d.abs().amax(1) <= window // 2).float().mean()) for d in apart]
    lines = [
        f"{full.forwards / fast.forwards:.1f} times fewer forwards",
        f"maxima within {window // 2} pixels: {format_interval(bootstrap_mean(near))}",
    ]
    if with_masks:
        difference = bootstrap_mean(np.subtract(fast.hits, full.hits))
        lines.append(f"accuracy, coarse to fine minus full: {format_interval(difference, '+')}")
    return "; ".join(lines)


def format_interval(interval: Interval | Sequence[float], sign: str = "") -> str:
    """Return a mean with its interval."""
    mean, low, high = np.round(interval, 3)
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    typer.run(main)
