"""What an edit means as a whole: a wrong piece of the mask, or a piece that the heatmap shows.

People click into the middle of what is wrong. A negative edit in the middle of a piece means all of
that piece, unless something in it was said to belong; a positive one far from the mask means the
piece of the heatmap that it touches.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.interaction.neighbourhood import Neighbourhood, measure_distance_mm
from heatmask.interaction.statements import IN

MIDDLE = 0.8
"""An edit this deep in a piece, as a share of its greatest depth, is in its middle."""
NECK = 0.5
"""Pieces hang together by what is at least this deep, as a share of the edit's depth."""
CORNERS = ndimage.generate_binary_structure(3, 3)


def find_whole(near: Neighbourhood) -> NDArray[np.bool_]:
    """Return the voxels (X, Y, Z) that an edit means as a whole; often there are none."""
    nothing = np.zeros_like(near.mask)
    if near.positive:
        return nothing if near.mask.any() else find_touched(near.hot, near.core)
    piece = find_piece(near.mask, near.core, near.spacing_mm)
    return nothing if (near.said[piece] == IN).any() else piece


def find_piece(
    mask: NDArray[np.bool_], core: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """Return the piece of a mask in whose middle some voxels lie; nothing if they are elsewhere.

    A piece ends at its necks: where it is less than half as deep as at those voxels.
    """
    nothing = np.zeros_like(mask)
    depth = np.where(mask, measure_distance_mm(~mask, spacing_mm), 0)
    reached = depth[core].max()
    if not reached:
        return nothing
    pieces, count = ndimage.label(depth >= NECK * reached, CORNERS)
    own = np.unique(pieces[core & (depth == reached)])
    if depth[np.isin(pieces, own)].max() > reached / MIDDLE:
        return nothing
    if count > 1:
        nearest = ndimage.distance_transform_edt(
            ~(pieces > 0), spacing_mm, return_distances=False, return_indices=True
        )
        mask = mask & np.isin(pieces[tuple(nearest)], own)
    return find_touched(mask, core)


def find_touched(mask: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pieces of a mask in which some voxels lie."""
    pieces, _ = ndimage.label(mask, CORNERS)
    return mask & np.isin(pieces, np.unique(pieces[core & mask]))
