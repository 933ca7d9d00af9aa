"""How likely each voxel near an edit belongs to the object, looked at alone."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.interaction.neighbourhood import Neighbourhood
from heatmask.interaction.statements import IN, OUT

Array = NDArray[np.float64]

BINS = 32
"""Of intensity."""
SEED_MM = 3.0
"""Around a click or a stroke the tissue is taken to be the same."""
SEED_MM3 = 4 / 3 * np.pi * 8.0**3
"""What all that was said counts at least, beside the voxels of the mask."""
LIMIT = 4.0
"""No voxel alone is surer than this, as a logit."""
WEIGHT = 4.0
"""Of the edit at its own voxels, as a logit."""
LIKENESS = 0.2
"""How far another intensity, in a range from 0 to 1, is still like the edit's."""
INERTIA = 0.25
"""How hard the mask is to change, as a logit a squared scale away from the edit."""
FIRM = 10.0
"""Squared scales from which on it gets no harder."""
SCALE_MM = (6.0, 20.0)
"""The least and the largest scale of an edit."""


def gather_evidence(near: Neighbourhood, smooth: Array) -> Array:
    """Return the logit of each voxel (X, Y, Z): what it looks like, the edit, the mask so far.

    Parameters
    ----------
    smooth
        The scan without its noise.
    """
    remoteness = _measure_remoteness(near)
    unlike = ((smooth - smooth[near.core].mean()) / LIKENESS) ** 2
    spoken = WEIGHT * np.exp(-(remoteness + unlike) / 2)
    kept = INERTIA * np.minimum(remoteness, FIRM)
    return (
        _count_alike(near, smooth)
        + (spoken if near.positive else -spoken)
        + np.where(near.mask, kept, -kept)
    )


def _measure_remoteness(near: Neighbourhood) -> Array:
    """Return the squared distance from the edit, in scales of the edit.

    People click into the middle of what is wrong. So the scale of an edit is its distance from
    the mask's border; and what was said the other way round earlier makes its own surroundings
    more remote.
    """
    away = near.measure_distance_mm(near.core)
    border = near.mask if near.positive else ~near.mask
    depth = near.measure_distance_mm(border)[near.core].max()
    squared = (away / np.clip(1.5 * depth, *SCALE_MM)) ** 2
    opposite = near.measure_distance_mm(near.said == (OUT if near.positive else IN))
    return squared * (1 + away**2 / np.maximum(opposite**2, 0.1))


def _count_alike(near: Neighbourhood, smooth: Array) -> Array:
    """Return the logit of each voxel by what voxels of its intensity were so far.

    So far: in the mask or not, and what the user said of voxels close by.
    """
    index = np.minimum((smooth * BINS).astype(int), BINS - 1)
    inside, outside = near.mask.astype(float), (~near.mask).astype(float)
    for said, gains, loses in ((IN, inside, outside), (OUT, outside, inside)):
        meant = (near.said == said) | (near.core & (near.positive == (said == IN)))
        close = near.measure_distance_mm(meant) <= SEED_MM
        if close.any():
            loses[close] = 0
            share = SEED_MM3 / np.prod(near.spacing_mm) / np.count_nonzero(close)
            gains[close] = np.maximum(gains[close], share)
    found, missed = (_count(index, weights) for weights in (inside, outside))
    return np.clip(np.log(found / missed), -LIMIT, LIMIT)[index]


def _count(index: NDArray[np.intp], weights: Array) -> Array:
    """Return the smoothed share of each bin (BINS,); none is 0."""
    counts = np.bincount(index.ravel(), weights.ravel(), BINS)
    counts = ndimage.gaussian_filter1d(counts, 1.5, mode="nearest")
    return counts / max(counts.sum(), 1e-9) + 0.05 / BINS
