"""The same cases through every bundle, in one picture, to be looked at.

``python benchmarks/draw_bundles.py DATA --patient A --patient B --patient C``
"""

from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track

from heatmask.bundle import find_bundle, find_shipped, read_bundle, run_bundle
from heatmask.data.labels import LabelledVolume, list_labelled_volumes
from heatmask.experiments.overlap import score_mask
from heatmask.geometry import measure_spacing_mm, to_ras

NAMES = tuple(sorted(path.name for path in find_shipped("bundles").glob("brain_mri_*")))


def main(
    data: Annotated[Path, typer.Argument(help="Folder with patients.csv and slice_labels.csv.")],
    patient: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: three, spread over the split.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which patients of patients.csv.")] = "test",
    pattern: Annotated[str | None, typer.Option(help="Which scans; default: all.")] = None,
    bundle: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("bundles.png"),
) -> None:
    """Draw scan, heatmaps and masks at the slice where the reference mask is largest."""
    names = bundle or list(NAMES)
    parsers = [read_bundle(find_bundle(name)) for name in names]
    tables = (data / "slice_labels.csv", data / "patients.csv")
    listed = list_labelled_volumes(data, pattern, *map(str, tables), split, parsers[0]["sequences"])
    if patient:
        listed = [volume for volume in listed if volume.patient in patient]
    else:
        listed = [listed[i] for i in np.linspace(0, len(listed) - 1, 3).round().astype(int)]
    pipelines = [open_pipeline(parser) for parser in parsers]
    figure = Figure((2.6 * (len(names) + 1), 2.9 * len(listed)), layout="constrained")
    axes = figure.subplots(len(listed), len(names) + 1, squeeze=False)
    for row, volume in zip(axes, track(listed, "Cases"), strict=True):
        draw_case(row, volume, pipelines)
    for axis, name in zip(axes[0, 1:], names, strict=True):
        short = name.removeprefix("brain_mri_").removesuffix("_segmentation")
        axis.set_title(f"{short}\n{axis.get_title()}", fontsize=9)
    figure.savefig(output, dpi=110)
    print(f"Written to {output}")


def open_pipeline(parser: Any) -> Any:
    """Return the pipeline of a bundle, which writes nothing here."""
    parser["dataset"], parser["writer"] = [], None
    return run_bundle(parser, "evaluator")


def draw_case(row: NDArray[Any], volume: LabelledVolume, pipelines: list[Any]) -> None:
    """Draw one patient: the scan with the reference outline, then a column a bundle."""
    results = [pipeline(volume.image) for pipeline in pipelines]
    affine = np.asarray(results[0].scan.affine)
    reference = read_reference(volume)
    index = int(to_ras(reference, affine).sum(axis=(0, 1)).argmax())

    def plane(array: Any) -> NDArray[Any]:
        return to_ras(np.asarray(array), affine)[:, :, index].T[::-1, ::-1]

    scan = plane(results[0].scan[0])
    show(row[0], scan, plane(reference), "yellow")
    row[0].set_title("scan, reference", fontsize=9)
    row[0].set_ylabel(f"{volume.patient}\naxial {index + 1}", fontsize=8)
    for axis, result in zip(row[1:], results, strict=True):
        show(axis, scan, plane(result.mask[0]), "cyan", plane(result.display.amax(0)))
        mask, spacing = np.asarray(result.mask[0]), measure_spacing_mm(affine)
        dice = score_mask(mask, reference, spacing)["dice"]
        p = float(np.asarray(result.slice_probabilities).max(axis=1)[index])
        axis.set_title(f"Dice {dice:.2f}, p = {p:.2f}", fontsize=9)


def read_reference(volume: LabelledVolume) -> NDArray[np.uint8]:
    """Return the reference mask that lies beside a volume."""
    (path,) = Path(volume.path).parent.glob("*-seg.nii.gz")
    return (np.asarray(nib.load(path).dataobj) > 0).astype(np.uint8)


def show(
    axis: Axes,
    scan: NDArray[Any],
    outline: NDArray[Any],
    colour: str,
    heat: NDArray[Any] | None = None,
) -> None:
    """Draw one slice, its heatmap and the outline of a mask."""
    axis.imshow(scan, cmap="gray", vmax=float(np.percentile(scan, 99.5)))
    if heat is not None:
        axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat, 0, 1) * 0.7)
    if outline.any():
        axis.contour(outline, levels=[0.5], colors=colour, linewidths=0.9)
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    typer.run(main)
