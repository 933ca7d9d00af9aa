"""How far a pseudo-mask can be trusted, without a reference mask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatmask.geometry import find_near
from heatmask.masks.clean import crop_to_mask

CLOSE_LOOK = 0.6
"""Below this quality a mask deserves a close look."""
SURE_LOGIT = 8.0
"""A classifier as sure as this cannot be surer."""
GAP_MM, RING_MM = 2.0, 8.0
"""Where the surroundings of a mask begin and end: not at its border, which may be off."""


def measure_quality(
    scan: NDArray, mask: NDArray[np.bool_], probability: float, spacing_mm: Sequence[float]
) -> float | None:
    """Return the quality of one class's mask in [0, 1], None for an empty mask.

    The mean of how sure the classifier is (its logit) and how far the mask stands out from its
    surroundings (difference of their means, in standard deviations of the head). Chosen from
    some twenty quantities on ten validation patients: see `docs/results/quality.md`.

    Parameters
    ----------
    scan, mask
        (X, Y, Z) on one grid.
    probability
        Of the class, the largest over the slices.
    spacing_mm
        Edges of a voxel.
    """
    if not mask.any():
        return None
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    certainty = np.clip(np.log(p / (1 - p)) / SURE_LOGIT, 0, 1)
    contrast = np.clip(measure_contrast(scan, mask, spacing_mm), 0, 1)
    return round(float((certainty + contrast) / 2), 3)


def measure_contrast(scan: NDArray, mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Return how far a mask is brighter or darker than its surroundings.

    In standard deviations of what is no background; 0 without a mask or surroundings.
    """
    voxels = scan.ravel(order="K")  # as they lie in memory, which is faster
    head = voxels[voxels > voxels.min()]
    spread = head.std(dtype=float) if head.size else 0.0
    if not spread or not mask.any():
        return 0.0
    margin = np.ceil(RING_MM / np.asarray(spacing_mm)).astype(int)
    box = crop_to_mask(mask, tuple(margin.tolist()))  # the rest of the volume costs time only
    inside, near = mask[box], scan[box]
    ring = find_near(inside, RING_MM, spacing_mm) & ~find_near(inside, GAP_MM, spacing_mm)
    if not ring.any():
        return 0.0
    return float(abs(near[inside].mean(dtype=float) - near[ring].mean(dtype=float)) / spread)
