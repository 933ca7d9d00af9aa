"""What the models' results say of a scan that nobody has labelled, in numbers that order scans."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from heatmask.report.summary import summarise_result
from heatmask.result import Result

HOTTEST = 0.001
"""Share of the voxels that stand for the finding where the mask is empty."""
_LOOK, _INSIDE = (0.1, 0.3, 0.5, 0.7, 0.9), (0.1, 0.5, 0.9)


def score_scan(results: Sequence[Result]) -> dict[str, Any]:
    """Return what orders scans.

    Parameters
    ----------
    results
        Of one scan by several bundles, the first choice first.

    Returns
    -------
    dict
        ``quality``, the lowest of the first's classes (None without a mask); ``mask_ml``, of all
        its classes; ``disagreement``, see `measure_disagreement`; ``features``, see
        `describe_finding`.
    """
    classes = summarise_result(results[0])["classes"]
    return {
        "quality": min((c["quality"] for c in classes if c["quality"] is not None), default=None),
        "mask_ml": sum(c["mask_ml"] for c in classes),
        "disagreement": measure_disagreement([np.asarray(r.mask)[0] > 0 for r in results]),
        "features": describe_finding(results[0]),
    }


def measure_disagreement(masks: Sequence[NDArray[np.bool_]]) -> float | None:
    """Return 1 less the mean Dice of all pairs of masks, in [0, 1]; None of fewer than two.

    Two empty masks agree.
    """
    pairs = list(combinations(masks, 2))
    if not pairs:
        return None
    sizes = [(int((a & b).sum()), int(a.sum() + b.sum())) for a, b in pairs]
    return 1 - sum(2 * both / total if total else 1.0 for both, total in sizes) / len(pairs)


def describe_finding(result: Result) -> list[float]:
    """Return how a scan looks to a model, as 17 numbers: the scan's grey values and the finding.

    Deciles of the grey values of all that is no background, and of those inside the finding;
    where the finding lies in the head and how far it extends, along the axes of the world; its
    volume; how sure the classifier is, and on what share of the slices. The finding is the mask,
    or where it is empty the hottest voxels. Grey values are in standard deviations from the mean,
    lengths in decimetres.
    """
    scan, affine = np.asarray(result.scan)[0], np.asarray(result.scan.affine)
    mask = np.asarray(result.mask)[0] > 0
    head = scan > scan.min()
    if not head.any():
        head = np.ones_like(head)
    inside = mask if mask.any() else _find_hottest(np.asarray(result.heatmap).max(axis=0))
    spread = float(scan[head].std()) or 1.0
    grey = (scan - scan[head].mean()) / spread
    places = [apply_affine(affine, np.argwhere(part)) for part in (inside, head)]
    ml = float(mask.sum()) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    p = min(max(float(result.probabilities.max()), 1e-6), 1 - 1e-6)
    numbers = [
        *np.quantile(grey[head], _LOOK),
        *np.quantile(grey[inside], _INSIDE),
        *(places[0].mean(axis=0) - places[1].mean(axis=0)) / 100,
        *places[0].std(axis=0) / 100,
        math.log1p(ml),
        math.log(p / (1 - p)),
        float(np.asarray(result.predicted).any(axis=1).mean()),
    ]
    return [round(float(number), 4) for number in numbers]


def measure_difference(
    features: Mapping[str, Sequence[float]], labelled: Collection[str]
) -> dict[str, float]:
    """Return how far each scan that is not labelled is from the nearest one that is.

    Each number counts in standard deviations over all scans. Where nothing is labelled yet, the
    most typical scan has the largest value: less its distance from the mean.

    Parameters
    ----------
    features
        Of `describe_finding`, by name, all of one length.
    labelled
        Names, some of which may be unknown.
    """
    if not features:
        return {}
    values = np.array([*features.values()], float)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)
    there = dict(zip(features, values, strict=True))
    known = [there[name] for name in labelled if name in there]
    return {
        name: min(float(np.linalg.norm(value - one)) for one in known)
        if known
        else -float(np.linalg.norm(value))
        for name, value in there.items()
        if name not in labelled
    }


def _find_hottest(heatmap: NDArray[np.float32]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = heatmap >= np.quantile(heatmap, 1 - HOTTEST)
    return found
