"""A person who corrects a mask, played: each click goes to the middle of the largest error.

The rule of the literature on interactive segmentation (Sofiiuk et al., RITM, 2021; nnInteractive).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.interaction import Edit


def place_click(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> Edit | None:
    """Return the next click, or None where the mask is right.

    It lies in the largest piece of what is missing or too much, at the voxel that is furthest from
    the piece's border in mm; of several the one nearest to their mean, of which thick slices have
    many. What is missing goes before what is too much, if both are as large.

    Parameters
    ----------
    mask, reference
        (X, Y, Z).
    """
    (box,) = ndimage.find_objects((mask != reference).astype(np.uint8)) or [None]
    if box is None:
        return None
    mask, reference = mask[box], reference[box]
    missing, extra = (_find_largest(one) for one in (reference & ~mask, mask & ~reference))
    positive = np.count_nonzero(missing) >= np.count_nonzero(extra)
    piece = np.pad(missing if positive else extra, 1)  # the box ends where the errors do
    depth = ndimage.distance_transform_edt(piece, sampling=spacing_mm)
    deepest = np.argwhere(depth > depth.max() - 1e-6)
    away = ((deepest - deepest.mean(axis=0)) * np.asarray(spacing_mm)) ** 2
    voxel = deepest[away.sum(axis=1).argmin()] - 1 + [part.start for part in box]
    return Edit.click(voxel.tolist(), bool(positive))


def _find_largest(error: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndimage.label(error)
    if not count:
        return error
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
