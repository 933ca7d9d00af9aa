"""The numbers and sentences of one result, for the report, the picture and the server."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.geometry import (
    find_array_axis,
    find_ras_slice_axis,
    measure_spacing_mm,
    order_as_stored,
)
from heatmask.report.quality import CLOSE_LOOK, measure_quality
from heatmask.result import Result

NUMBERING = "from 0 along array_axis of the mask, as stored"
"""Of the slices, in the report and in the overview: the index of nibabel, numpy and FSLeyes."""


def summarise_result(result: Result) -> dict[str, Any]:
    """Return the numbers and sentences of a result as plain values.

    Slices are numbered as the file stores them (`NUMBERING`), in the overview too. Of each class,
    ``confidence`` is the mean probability of the slices on which it is shown, 0 where there are
    none, and ``suspicious_slices`` are those on which it is predicted.
    """
    affine, mask = np.asarray(result.scan.affine), np.asarray(result.mask)[0]
    slice_axis = find_ras_slice_axis(mask.shape, affine, result.slice_axis)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    slices = order_as_stored(np.asarray(result.slice_probabilities), affine, slice_axis)
    predicted = order_as_stored(np.asarray(result.predicted), affine, slice_axis)
    qualities = [
        measure_quality(
            np.asarray(result.scan)[0], mask == k + 1, float(p), measure_spacing_mm(affine).tolist()
        )
        for k, p in enumerate(result.probabilities)
    ]
    shown = order_as_stored(np.asarray(result.shown), affine, slice_axis)
    classes = [
        {
            "name": name,
            "label": k + 1,
            "probability": round(float(result.probabilities[k]), 6),
            "confidence": round(mean_shown(slices[:, k], shown[:, k]), 6),
            "mask_ml": round(float(np.count_nonzero(mask == k + 1)) * voxel_ml, 4),
            "quality": qualities[k],
            "suspicious_slices": np.flatnonzero(predicted[:, k]).tolist(),
            "slice_probabilities": [round(float(p), 6) for p in slices[:, k]],
        }
        for k, name in enumerate(result.class_names)
    ]
    return {
        "finding": " ".join(
            describe_class(c, int(predicted[:, k].sum())) + advise(qualities[k])
            for k, c in enumerate(classes)
        ),
        "classes": classes,
        "slices": {
            "count": len(slices),
            "array_axis": find_array_axis(affine, slice_axis),
            "numbering": NUMBERING,
        },
        "warnings": list(result.warnings),
        "sequence": result.sequence,
        "sequences": list(result.sequences),
        "device": result.provenance.device,
        "weights_sha256": result.provenance.weights_sha256,
        "seconds": dict(result.seconds),
    }


def mean_shown(probabilities: NDArray[np.float32], shown: NDArray[np.bool_]) -> float:
    """Return the mean probability of the slices that are shown, 0 if there are none."""
    return float(probabilities[shown].mean()) if shown.any() else 0.0


def describe_class(entry: dict[str, Any], count: int) -> str:
    """Say in a sentence what was found of one class, predicted on `count` slices."""
    name, p = entry["name"], entry["probability"]
    if not count:
        mask = f", but the gate is off: pseudo-mask of {entry['mask_ml']:.1f} ml"
        return f"No {name} predicted (p = {p:.2f}){mask * (entry['mask_ml'] > 0)}."
    found = f"{_begin_sentence(name)} predicted (p = {p:.2f}) on {count} slice{'s' * (count != 1)}"
    if entry["mask_ml"] == 0:
        return f"{found}, but nothing was left after threshold and clean-up: the mask is empty."
    return f"{found}; pseudo-mask of {entry['mask_ml']:.1f} ml."


def advise(quality: float | None) -> str:
    """Return a sentence about a mask that is likely to be wrong, else nothing."""
    if quality is None or quality >= CLOSE_LOOK:
        return ""
    return f" Look closely: its quality is {quality:.2f} on a scale from 0 to 1."


def describe_slices(numbers: Sequence[int]) -> str:
    """Return rising slice numbers as text, neighbours as a range: "3-7, 12"."""
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _begin_sentence(name: str) -> str:
    """Raise the first letter of a plain word: "tumour", but not "HGG", "mTOR" or "p53"."""
    first = name.split()[0]
    return name[0].upper() + name[1:] if first.isalpha() and first.islower() else name
