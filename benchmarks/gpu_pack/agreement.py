"""A bundle on the device beside the same bundle on the CPU: results, time and memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from monai.data import MetaTensor
from timing import measure_call, settle

from heatmask.attribution.memory import measure_peak
from heatmask.pipeline import Pipeline
from heatmask.result import Result
from pipeline import build_pipeline

HEATMAP_BAR, DICE_BAR = 1e-4, 0.999
"""Largest difference of heatmaps over their largest value; least Dice of the masks."""

VARIANTS = {"float32": False, "amp": True}
"""Whether amp is on."""

Case = dict[str, Any]
Compared = tuple[Case, Result]
"""A case, and what came of it on the CPU."""
Row = dict[str, Any]


def read_scans(folder: Path, most: int | None = None) -> dict[str, Case]:
    """Return the pack's scans as cases, each a volume for every sequence."""
    cases = {}
    for path in sorted(folder.glob("*.npz"))[:most]:
        with np.load(path) as arrays:
            affine = arrays["affine"]
            volumes = {
                name: MetaTensor(arrays[name].astype(np.float32)[None], affine=affine)
                for name in arrays.files
                if name != "affine"
            }
        cases[path.stem] = {"case": path.stem, "image": volumes}
    return cases


def measure_on_cpu(
    bundle: Path, cases: Mapping[str, Case], repeats: int, results: dict[str, Compared]
) -> Iterator[Row]:
    """Yield a row for each scan, and keep its result as what the device is held against."""
    pipeline = build_pipeline(bundle, "cpu")
    for name, case in cases.items():
        found, figures = measure_pipeline(pipeline, case, repeats)
        results[name] = case, found
        yield {"bundle": bundle.name, "variant": "cpu", "scan": name, **figures}


def compare_variant(
    bundle: Path, variant: str, results: Mapping[str, Compared], device: str, repeats: int
) -> Iterator[Row]:
    """Yield a row for each scan: time, memory, and how far the result is from the CPU's."""
    amp = VARIANTS[variant]
    pipeline = build_pipeline(bundle, device, amp=amp)
    for name, (case, expected) in results.items():
        found, figures = measure_pipeline(pipeline, case, repeats)
        agreement = compare_results(expected, found)
        missed = [] if amp else list_missed(f"{bundle.name}, {variant}, {name}", agreement)
        place = {"bundle": bundle.name, "variant": variant, "scan": name}
        yield {**place, **figures, **agreement, "missed": missed}


def measure_pipeline(pipeline: Pipeline, case: Case, repeats: int) -> tuple[Result, Row]:
    """Return the result of a case, and how long it took and what it held of the GPU's memory."""
    figures: Row = {}
    if pipeline.device.type == "cuda":
        with measure_peak(pipeline.device) as read_peak:
            result = pipeline(case["image"], case["case"])
            figures["peak_mb"] = round(read_peak() / 1e6)
    else:
        result = pipeline(case["image"], case["case"])
    image = pipeline.preprocessing(case)["image"][None].to(pipeline.device)
    explain = settle(lambda: pipeline.inferer(image, pipeline.network), pipeline.device.type)
    figures["explain_ms"] = round(median(measure_call(explain) for _ in range(repeats)), 2)
    figures["prepare_ms"] = round(result.seconds["read and prepare"] * 1e3)
    figures["mask_ms"] = round(result.seconds["make mask"] * 1e3)
    figures["slices"] = len(result.slice_probabilities)
    return result, figures


def compare_results(expected: Result, found: Result) -> Row:
    """Return how far two results of one scan differ."""
    exact, other = (np.asarray(result.heatmap, np.float64) for result in (expected, found))
    masks = [np.asarray(result.mask) for result in (expected, found)]
    probabilities = expected.slice_probabilities - found.slice_probabilities
    return {
        "heatmap": float(np.abs(exact - other).max() / np.abs(exact).max()),
        "heatmap_mean": float(np.abs(exact - other).mean() / np.abs(exact).max()),
        "probability": float(probabilities.abs().max()),
        "slices_shown_differ": int((expected.shown != found.shown).sum()),
        "dice": overlap(*masks),
        "mask_voxels": [int((mask > 0).sum()) for mask in masks],
    }


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice of label maps: voxels of one label in both; 1 where both are empty."""
    held = (first > 0).sum() + (second > 0).sum()
    return float(2 * ((first == second) & (first > 0)).sum() / held) if held else 1.0


def list_missed(what: str, agreement: Row) -> list[str]:
    """Return the bars that a row misses, as sentences."""
    missed = []
    if not agreement["heatmap"] <= HEATMAP_BAR:
        missed.append(f"{what}: heatmaps differ by {agreement['heatmap']:.1e} (bar {HEATMAP_BAR})")
    if not agreement["dice"] >= DICE_BAR:
        missed.append(f"{what}: Dice of the masks is {agreement['dice']:.4f} (bar {DICE_BAR})")
    return missed
