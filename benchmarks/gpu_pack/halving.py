"""Too little memory on the device: batches are halved, and the result stays what it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from agreement import HEATMAP_BAR, Case
from torch.nn.modules.module import register_module_forward_pre_hook

from heatmask.attribution.memory import logger, measure_peak
from pipeline import build_pipeline

SHARES = (0.5, 0.25)
"""Of the memory that all slices in one batch take."""


def measure_halving(bundle: Path, case: Case, device: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each share: how often batches were halved, and how far results differ."""
    pipeline = build_pipeline(bundle, device, batch_size=10_000)
    image = pipeline.preprocessing(case)["image"][None].to(pipeline.device)

    def explain() -> torch.Tensor:
        return pipeline.inferer(image, pipeline.network)["heatmap"].as_tensor().cpu()

    slices = image.shape[2:][pipeline.inferer.slice_axis]
    explain()  # libraries load and plan: not part of the peak
    with measure_peak(pipeline.device) as read_peak:
        whole = explain()
        peak = read_peak()
    for share in SHARES:
        with count_halvings() as halvings, limit_memory(pipeline.device, share, peak, slices):
            parts = explain()
        difference = float((parts - whole).abs().max() / whole.abs().max())
        what = f"{bundle.name} with {share:.0%} of the memory"
        missed = []
        if not halvings:
            missed.append(f"{what}: no batch was halved")
        if not difference <= HEATMAP_BAR:
            missed.append(f"{what}: heatmaps differ by {difference:.1e} (bar {HEATMAP_BAR})")
        yield {
            "bundle": bundle.name, "memory": share, "peak_mb": round(peak / 1e6),
            "halvings": len(halvings), "heatmap": difference, "missed": missed,
        }  # fmt: skip


@contextmanager
def limit_memory(device: torch.device, share: float, peak: int, slices: int) -> Iterator[None]:
    """Leave a share of `peak` bytes beside what is held now; on a CPU a share of the slices."""
    if device.type == "cpu":
        with refuse_batches(max(1, int(share * slices))):
            yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + share * peak
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def refuse_batches(most: int) -> Iterator[None]:
    """Let every module run out of memory on a batch of more than so many images."""

    def refuse(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and len(inputs[0]) > most:
            raise torch.cuda.OutOfMemoryError(f"more than {most} images")

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def count_halvings() -> Iterator[list[logging.LogRecord]]:
    """Collect the warnings that tell of a smaller batch."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
