"""Whether the voxels of a scan contradict the sequence that it is called.

In the brain, T1 shows the broad white matter bright, and what lies at edges (cortex, fluid)
dark; FLAIR shows the cortex brighter than the white matter. So intensity goes down with the
local gradient in T1, with or without contrast agent, and about as often up as down in FLAIR.
That is enough to tell when two scans of one head are exchanged, and seldom enough to judge
one alone. T2 against FLAIR is not judged: no data was at hand to measure it on.
"""

from collections.abc import Mapping

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage
from scipy.stats import rankdata

from heatmask.geometry import find_array_axis

# Chosen on the training and validation patients of the LGG set: 61 FLAIR (-0.32 to 0.27), 8 T1-Gd
# (-0.36 to -0.12, each at least 0.15 below its own FLAIR), no T1. On the 16 test patients 31 of 32
# pairs with T1-Gd or T1 are noticed when exchanged, one T1 cannot be judged; called FLAIR, 5 of 16
# T1-Gd and 9 of 16 T1 are noticed; called T1-Gd, 6 of 16 FLAIR. No false alarm on any patient.
EXCHANGED = -0.1
"""FLAIR minus T1 or T1-Gd, below which the two seem exchanged."""
USUAL = {"FLAIR": (-0.4, np.inf), "T1": (-np.inf, 0.05), "T1-Gd": (-np.inf, 0.05)}
"""Below its range a FLAIR looks like a T1, above theirs a T1 and a T1-Gd like a FLAIR."""


def describe_contradictions(scans: Mapping[str, MetaTensor]) -> list[str]:
    """Warn about scans (1, X, Y, Z) of one head, air at 0, whose voxels contradict their names.

    Parameters
    ----------
    scans
        Sequence to scan. Other sequences than FLAIR, T1 and T1-Gd are passed over.

    Returns
    -------
    list of str
        Sentences for people, empty where nothing is sure.
    """
    known = {name: scan for name, scan in scans.items() if name in USUAL}
    alone = len(known) == 1
    trends = {n: measure_edge_trend(v, USUAL[n] if alone else None) for n, v in known.items()}
    flair = trends.get("FLAIR", np.nan)
    exchanged = [name for name, trend in trends.items() if flair - trend < EXCHANGED]
    if exchanged:
        return [
            f"FLAIR and {' and '.join(exchanged)} seem to be exchanged: by its voxels the one is "
            "what the other is called. Check the order."
        ]
    unlike = [n for n, trend in trends.items() if trend < USUAL[n][0] or trend > USUAL[n][1]]
    return [
        f"The {name} looks like a {'T1' if name == 'FLAIR' else 'FLAIR'} by its voxels. Check that "
        "the right file was given."
        for name in unlike
    ]


def measure_edge_trend(scan: MetaTensor, usual: tuple[float, float] | None = None) -> float:
    """Return the rank correlation of intensity and gradient in the brain.

    The median over up to five slices from the middle of the stack, looked at with pixels of
    about 2 mm; NaN where none of them shows enough of a head.

    Parameters
    ----------
    scan
        (1, X, Y, Z), air is 0.
    usual
        With a range, slices are looked at until most of the five lie in it, as the median then
        does.
    """
    spacing_mm = np.asarray(scan.pixdim, float)
    axis = _find_slice_axis(np.asarray(scan.affine), spacing_mm)
    planes = np.moveaxis(scan[0].numpy(force=True), axis, 0)
    first, last = int(0.35 * len(planes)), int(np.ceil(0.75 * len(planes)))
    chosen = np.unique(np.linspace(first, last - 1, 5).round().astype(int))
    in_plane_mm = np.delete(spacing_mm, axis)
    known: list[float] = []
    for index in chosen:
        trend = _measure_slice(planes[index], in_plane_mm)
        known += [trend] if trend is not None else []
        if usual and 2 * sum(usual[0] <= trend <= usual[1] for trend in known) > len(chosen):
            break
    return float(np.median(known)) if known else float("nan")


def _find_slice_axis(affine: np.ndarray, spacing_mm: np.ndarray) -> int:
    """The array's axis of the thickest slices; the axial one where all are alike."""
    axial = find_array_axis(affine, 2)
    thick = int(spacing_mm.argmax())
    return thick if spacing_mm[thick] > 1.5 * spacing_mm[axial] else axial


def _measure_slice(plane: np.ndarray, spacing_mm: np.ndarray) -> float | None:
    steps = np.maximum(np.round(2.0 / spacing_mm), 1).astype(int)
    image, pixel_mm = plane.astype(np.float32), spacing_mm * steps
    for axis in (0, 1):  # one after the other: the second has fewer lines to smooth
        smooth = ndimage.gaussian_filter1d(image, 1.5 / spacing_mm[axis], axis)
        image = smooth.take(range(0, smooth.shape[axis], steps[axis]), axis)
    brain = _find_brain(image, pixel_mm)
    if np.count_nonzero(brain) < 300 or min(image.shape) < 2:
        return None
    middle = np.median(image[brain])
    tissue = brain & (image > 0.6 * middle) & (image < 1.5 * middle)
    gradient = np.hypot(*np.gradient(image, *pixel_mm))
    ranks = rankdata([image[tissue], gradient[tissue]], axis=1)
    trend = float(np.corrcoef(ranks)[0, 1])
    return trend if np.isfinite(trend) else None


def _find_brain(image: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
    """Mask of a slice's inside, without the outer third, where scalp and skull are."""
    head = ndimage.binary_fill_holes(image > 0.2 * np.percentile(image, 99))
    if head.all():  # without background there are no distances to it
        return np.zeros(head.shape, bool)
    depth_mm = ndimage.distance_transform_edt(head, sampling=pixel_mm)
    return depth_mm > 0.3 * depth_mm.max() if depth_mm.max() > 30 else np.zeros(head.shape, bool)
