"""Seconds an edit takes: ``python benchmarks/edits.py``.

Of the engine alone, on a usual 2D stack and on an isotropic volume, in seconds of the processor: a
bright ball of 60 mm across in noise, with a mask and a heatmap that are somewhat off. Then with the
way to a server and back, as the viewers' own clients see it, on a synthetic head of the stack's
size: strokes and clicks in MONAI Label's protocol, where every segment is sent, and in
nnInteractive's.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
from local_server import run_server
from monailabel.client.client import MONAILabelClient
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession as Client
from numpy.typing import NDArray
from phantom import DEMO_SEED, make_phantom, write_phantom
from rich.console import Console
from rich.table import Table

from heatmask.bundle import DEFAULT_BUNDLE, find_bundle
from heatmask.interaction import Correction, Edit

GRIDS = {
    "256 x 256 x 32, 1 x 1 x 5 mm": ((256, 256, 32), (1.0, 1.0, 5.0), 1.0),
    "240 x 240 x 155, 1 mm": ((240, 240, 155), (1.0, 1.0, 1.0), 3.0),
}
STACK, STACK_MM, LIMIT_S = GRIDS["256 x 256 x 32, 1 x 1 x 5 mm"]
SEGMENTS = {"tumour": 1, "background_scribbles": 2, "foreground_scribbles": 3}
console = Console()


def main() -> None:
    """Print the slowest of each kind of edit beside its limit."""
    table = Table("grid", "start s", "click s", "stroke s", "box s", "limit s", title="Engine")
    for name, (shape, spacing, limit) in GRIDS.items():
        started, seconds = measure_engine(shape, spacing)
        shown = (started, *(max(seconds[kind]) for kind in ("click", "stroke", "box")), limit)
        table.add_row(name, *(f"{value:.2f}" for value in shown))
    console.print(table)
    table = Table("client", "median s", "slowest s", "limit s", title="With HTTP, by the clock")
    for name, seconds in measure_http().items():
        shown = (median(seconds), max(seconds), LIMIT_S)
        table.add_row(name, *(f"{value:.2f}" for value in shown))
    console.print(table, f"load {os.getloadavg()[0]:.1f}, cores {os.cpu_count()}")


def measure_engine(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[float, dict[str, list[float]]]:
    """Return the seconds to begin with, and of each edit by its kind."""
    rng = np.random.default_rng(0)
    middle = np.array(shape) // 2
    grid = np.indices(shape, np.float32).transpose(1, 2, 3, 0) - middle
    away = np.linalg.norm(grid * np.array(spacing_mm, np.float32), axis=-1)
    scan = (60 + 60 * (away < 30) + rng.normal(0, 6, shape)).astype(np.float32)
    begin = time.process_time()
    correction = Correction(scan, spacing_mm, heatmap=np.exp(-away / 30), mask=away < 22)
    started = time.process_time() - begin
    edge = (26 / np.array(spacing_mm)).astype(int)
    line = np.array([np.add(middle, (0, step, 0)) for step in range(-20, 21)])
    edits = {
        "click": [Edit.click(middle + edge * (axis == np.arange(3))) for axis in range(3)]
        + [Edit.click(middle + edge, positive=False)],
        "stroke": [Edit.stroke(np.add(line, (edge[0], 0, 0))), Edit.stroke(line, positive=False)],
        "box": [Edit.box(middle - edge, middle + edge)],
    }
    seconds: dict[str, list[float]] = {}
    for kind, some in edits.items():
        for edit in some:
            begin = time.process_time()
            correction.apply(edit)
            seconds.setdefault(kind, []).append(time.process_time() - begin)
    return started, seconds


def measure_http() -> dict[str, list[float]]:
    """Return the seconds of each edit of a head that the model has seen, by client."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "studies").mkdir()
        image = folder / "studies/head-flair.nii.gz"
        write_phantom(make_phantom(DEMO_SEED, STACK, STACK_MM), image, folder / "lesion.nii.gz")
        lesion = np.argwhere(np.asarray(nib.load(folder / "lesion.nii.gz").dataobj) > 0)
        # Voxels of the lesion, in an order that does not go from neighbour to neighbour
        points = lesion[np.random.default_rng(0).permutation(len(lesion))[:10]]
        with run_server(folder, bundle=find_bundle(DEFAULT_BUNDLE)) as url:
            slicer = MONAILabelClient(url, tmpdir=name)
            slicer.infer(DEFAULT_BUNDLE, "head-flair", {"result_extension": ".nrrd"})
            return {
                "MONAI Label, scribbles": list(send_scribbles(slicer, image, points)),
                "MONAI Label, clicks": list(send_clicks(slicer, points)),
                "nnInteractive, points": list(send_points(url, image, points)),
            }


def send_scribbles(slicer: MONAILabelClient, image: Path, points: NDArray) -> list[float]:
    """Draw short lines, every other one as background, as 3D Slicer sends them."""
    scan = nib.load(image)
    segments, seconds = np.zeros(scan.shape, np.uint8), []
    info = [{"name": name, "id": value} for name, value in SEGMENTS.items()]
    request = {"label_info": info, "selected_label_name": "tumour", "roi": []}
    file = image.parents[1] / "segments.nii.gz"
    for number, (x, y, z) in enumerate(points):
        segments[x - 4 : x + 5, y, z] = 3 - number % 2
        nib.save(nib.Nifti1Image(segments, scan.affine), file)
        options = {**request, "result_extension": ".nii.gz"}
        name = f"{DEFAULT_BUNDLE}_scribbles"
        seconds += [time_call(slicer.infer, name, "head-flair", options, str(file))]
    return seconds


def send_clicks(slicer: MONAILabelClient, points: NDArray) -> list[float]:
    """Click, every other time on background: all clicks so far are sent."""
    said: dict[str, list[list[int]]] = {"foreground": [], "background": []}
    seconds = []
    for number, point in enumerate(points):
        said["background" if number % 2 else "foreground"].append(point.tolist())
        options = {"label": "tumour", **said, "result_extension": ".nrrd"}
        name = f"{DEFAULT_BUNDLE}_clicks"
        seconds += [time_call(slicer.infer, name, "head-flair", options)]
    return seconds


def send_points(url: str, image: Path, points: NDArray) -> list[float]:
    """Click, every other time on background; what changes comes back."""
    scan, seconds = nib.load(image), []
    with Client(f"{url}/nninteractive") as client:
        where = {"spacing": scan.header.get_zooms()[:3], "affine": scan.affine}
        client.set_image(np.asarray(scan.dataobj, np.float32)[None], where)
        client.set_target_buffer(np.zeros(scan.shape, np.uint8))
        for number, point in enumerate(points):
            voxel, positive = tuple(point.tolist()), number % 2 == 0
            seconds += [time_call(client.add_point_interaction, voxel, positive)]
    return seconds


def time_call(work: Callable[..., object], *arguments: object) -> float:
    """Return the seconds of a call by the clock."""
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
