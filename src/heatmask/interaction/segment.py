"""One edit's answer: which voxels near it belong to the object now."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.interaction.evidence import gather_evidence
from heatmask.interaction.neighbourhood import Neighbourhood
from heatmask.interaction.random_walker import walk
from heatmask.interaction.statements import IN, OUT, UNKNOWN
from heatmask.interaction.whole import find_whole

NOISE_MM = 1.0
"""Standard deviation of the Gaussian that takes the scan's noise away."""
_TIE = 1e-6
"""Where both are as likely, rounding must not decide."""


def segment(near: Neighbourhood) -> NDArray[np.bool_]:
    """Return the object's mask in the neighbourhood of an edit.

    A positive edit adds to the mask and a negative one takes away, in one piece with what was
    touched; what was said of single voxels holds.
    """
    free = near.free & (near.said == UNKNOWN)
    meant = find_whole(near)
    if not meant.any():
        meant = _find_inside(near, free) == near.positive
    changed = free & meant & (near.mask != near.positive)
    found = np.where(_keep_touching(changed, near.core), near.positive, near.mask)
    return np.where(near.said == UNKNOWN, found, near.said == IN)


def _find_inside(near: Neighbourhood, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    smooth = ndimage.gaussian_filter(
        near.scan.astype(np.float64), [NOISE_MM / edge for edge in near.spacing_mm], mode="nearest"
    )
    prior = 1 / (1 + np.exp(-gather_evidence(near, smooth)))
    kept = np.where(near.mask, IN, OUT)
    seeds = np.where(free, UNKNOWN, np.where(near.said == UNKNOWN, kept, near.said))
    return walk(smooth, prior, seeds, near.spacing_mm) > 0.5 + _TIE


def _keep_touching(changed: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what of the changes is in one piece with the edit."""
    pieces, _ = ndimage.label(changed | core, ndimage.generate_binary_structure(3, 3))
    return changed & np.isin(pieces, np.unique(pieces[core]))
