"""The bundle on a volume that is loaded, part by part, beside a peer that does the like."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from phantom import Phantom
from scipy import ndimage
from skimage.filters import threshold_otsu
from timing import Row, measure_call, measure_in_turn

from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.pipeline import Pipeline

AROUND_LIMIT = 2.0
FORWARD_LIMIT = 1.1


def build_pipeline(bundle: str, device: str = "cpu", **options: Any) -> Pipeline:
    """Return a bundle's pipeline, without data set and writer."""
    parser = read_bundle(find_bundle(bundle), options={"device": device, **options})
    parser["dataset"], parser["writer"] = [], None
    return run_bundle(parser, "evaluator")


def make_volume(phantom: Phantom) -> MetaTensor:
    """Return the phantom's image as a loaded volume (1, X, Y, Z)."""
    return MetaTensor(torch.from_numpy(phantom.image)[None], torch.from_numpy(phantom.affine))


def measure_around(pipeline: Pipeline, phantom: Phantom, repeats: int, what: str) -> Row:
    """Measure everything from loaded array to mask but the inferer, which repeats its answer."""
    volume = make_volume(phantom)
    explained = pipeline.explain(pipeline.prepare(volume)["image"])
    around = copy.copy(pipeline)
    around.explain = lambda image: explained
    ours, peer = measure_in_turn(
        lambda: around(volume), lambda: label_bright(phantom.image), repeats
    )
    shown = f"{int(explained['shown'].sum())} of {explained['shown'].numel()} slices shown"
    return Row(f"{what} ({shown})", "ms", ours, "threshold_otsu + 3D label", peer, AROUND_LIMIT)


def label_bright(image: Any) -> Any:
    """Do what a script without a network would: threshold and label, in three dimensions."""
    return ndimage.label(image > threshold_otsu(image))


def measure_forward(pipeline: Pipeline, phantom: Phantom, repeats: int) -> Row:
    """Measure the inferer on the prepared volume beside the network alone on its slices."""
    volume = pipeline.preprocessing({"image": make_volume(phantom)})["image"][None]
    batches = cut_batches(volume, pipeline.inferer.slice_axis, pipeline.inferer.batch_size)

    def run_bare() -> None:
        with torch.no_grad():
            for batch in batches:
                pipeline.network(batch)

    ours, peer = measure_in_turn(
        lambda: pipeline.inferer(volume, pipeline.network), run_bare, repeats
    )
    return Row(
        f"HeatmapInferer, {sum(map(len, batches))} slices of {tuple(batches[0].shape[2:])}",
        "ms",
        ours,
        "bare batched network",
        peer,
        FORWARD_LIMIT,
    )


def cut_batches(volume: MetaTensor, slice_axis: int, batch_size: int) -> list[torch.Tensor]:
    """Return the slices (C, H, W) that are not all zero, in contiguous batches."""
    slices = volume.as_tensor()[0].movedim(slice_axis + 1, 0)
    kept = slices[slices.flatten(1).any(1)].contiguous()
    return list(kept.split(batch_size))


def measure_run(pipeline: Pipeline, phantom: Phantom, repeats: int) -> Row:
    """Measure the whole way from loaded array to mask on the pipeline's device."""
    run = _prepare_run(pipeline, phantom)
    times = [measure_call(run) for _ in range(repeats)]
    return Row(f"Loaded array to mask, whole, {pipeline.device}", "ms", times)


def measure_cuda(bundle: str, phantom: Phantom, repeats: int) -> list[Row]:
    """Measure latency and peak memory on the GPU; empty where torch sees none."""
    if not torch.cuda.is_available():
        return []
    pipeline = build_pipeline(bundle, "cuda")
    latency = measure_run(pipeline, phantom, repeats)
    torch.cuda.reset_peak_memory_stats()
    _prepare_run(pipeline, phantom)()
    peak_mib = torch.cuda.max_memory_allocated() / 2**20
    return [latency, Row("Peak memory allocated by torch, cuda", "MiB", [peak_mib])]


def _prepare_run(pipeline: Pipeline, phantom: Phantom) -> Callable[[], Any]:
    volume = make_volume(phantom)
    pipeline(volume)  # warm
    return lambda: pipeline(volume)
