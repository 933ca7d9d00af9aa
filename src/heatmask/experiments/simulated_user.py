"""A person who corrects a mask, played: each edit goes to the middle of the largest error.

The rule of the literature on interactive segmentation (Sofiiuk et al., RITM, 2021; nnInteractive);
strokes follow the middle line of the error (ScribblePrompt, Wong et al., ECCV 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import skeletonize

from heatmask.interaction import Edit

THIN = 0.5
"""Nobody draws where an error is less deep than this, as a share of its greatest depth."""


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
    error = _find_error(mask, reference, spacing_mm)
    if error is None:
        return None
    return Edit.click((error.middle + error.corner).tolist(), error.positive)


def place_stroke(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    slice_axis: int = 2,
) -> Edit | None:
    """Return the next stroke, or None where the mask is right.

    It is drawn in one slice, through the voxel of `place_click`: the middle line of the error as
    far as the error is at least half as deep there as at its deepest.
    """
    error = _find_error(mask, reference, spacing_mm)
    if error is None:
        return None
    middle = error.middle
    depth = error.depth.take(middle[slice_axis], axis=slice_axis)
    pieces, _ = ndimage.label(depth >= THIN * depth.max(), np.ones((3, 3)))
    line = skeletonize(pieces == pieces[tuple(np.delete(middle, slice_axis))])
    voxels = np.insert(np.argwhere(line), slice_axis, middle[slice_axis], axis=1)
    return Edit.stroke(np.vstack([voxels, middle]) + error.corner, error.positive)


@dataclass(frozen=True, eq=False)
class _Error:
    """The largest piece of what is wrong.

    Attributes
    ----------
    depth
        From its border in mm, 0 outside; (X, Y, Z) of a box around it.
    middle
        Its deepest voxel in that box.
    corner
        Of the box.
    """

    depth: NDArray[np.float64]
    middle: NDArray[np.intp]
    corner: NDArray[np.intp]
    positive: bool


def _find_error(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> _Error | None:
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
    corner = np.array([part.start - 1 for part in box])
    return _Error(depth, deepest[away.sum(axis=1).argmin()], corner, bool(positive))


def _find_largest(error: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndimage.label(error)
    if not count:
        return error
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
