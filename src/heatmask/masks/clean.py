"""Clean a binary mask in physical units: objects, thin bridges, holes."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.errors import OptionError
from heatmask.masks.settings import KEEP

Mask = NDArray[np.bool_]


def clean_mask(
    mask: Mask,
    evidence: NDArray[np.float32],
    voxel_volume_mm3: float,
    min_volume_mm3: float,
    keep: str = "strongest",
) -> Mask:
    """Drop objects below `min_volume_mm3`, then keep one of the others or all.

    Objects are 3D components whose voxels touch by faces. An empty mask stays empty; so
    does one whose every object is too small.

    Parameters
    ----------
    mask
        (X, Y, Z).
    evidence
        (X, Y, Z), at least 0: how far the heatmap lies above its threshold.
    voxel_volume_mm3
        Volume of a voxel.
    keep
        ``"strongest"``: the object with the most evidence in sum, so that a wide faint one does
        not win over the lesion; ``"largest"``: that of the greatest volume; or ``"all"``.
    """
    if keep not in KEEP:
        raise OptionError(f"keep must be one of {KEEP}, got {keep!r}.")
    if min_volume_mm3 < 0:
        raise OptionError(f"min_volume_mm3 must be at least 0, got {min_volume_mm3}.")
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = sizes * voxel_volume_mm3 >= max(min_volume_mm3, voxel_volume_mm3)
    if keep != "all" and kept.any():
        weights = evidence.ravel() if keep == "strongest" else None
        scores = np.bincount(labels.ravel(), weights, minlength=count + 1)
        kept = np.arange(count + 1) == max(
            np.flatnonzero(kept), key=lambda k: (scores[k], sizes[k])
        )
    return kept[labels]


def open_mask(
    mask: Mask, spacing_mm: tuple[float, float, float], slice_axis: int, radius_mm: float
) -> Mask:
    """Remove what is thinner than a disc of `radius_mm` on each slice: bridges, fringes.

    A radius below the pixel size changes nothing. Neither does one that would leave
    nothing: a lesion may be thin.
    """
    if radius_mm < 0:
        raise OptionError(f"smooth_mm must be at least 0, got {radius_mm}.")
    reach = [
        0 if axis == slice_axis else int(radius_mm / s + 1e-6) for axis, s in enumerate(spacing_mm)
    ]
    steps = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    distance = sum((step * s) ** 2 for step, s in zip(steps, spacing_mm, strict=True))
    opened = ndimage.binary_opening(mask, distance <= radius_mm**2 + 1e-6)
    return opened if opened.any() else mask


def fill_holes(mask: Mask, slice_axis: int) -> Mask:
    """Fill the holes of every slice along `slice_axis`."""
    structure = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(structure, slice_axis, 0)[[0, 2]] = False  # slices do not touch
    return ndimage.binary_fill_holes(mask, structure)


def trim_ends(mask: Mask, hot: Mask, slice_axis: int, least_share: float) -> Mask:
    """Drop the outermost slices along `slice_axis` that hold little of the mask and are not hot.

    A mask begins and ends with a slice that has at least `least_share` of the area of its largest
    one, or a `hot` voxel. Slices between stay.

    Parameters
    ----------
    mask, hot
        (X, Y, Z).
    least_share
        From 0, which drops nothing, to 1.
    """
    slices = np.moveaxis(mask, slice_axis, 0)
    areas = slices.sum((1, 2))
    large = areas >= least_share * areas.max()
    ends = np.flatnonzero(large | (slices & np.moveaxis(hot, slice_axis, 0)).any((1, 2)))
    trimmed = np.zeros_like(mask)
    inside = slice(ends[0], ends[-1] + 1)
    np.moveaxis(trimmed, slice_axis, 0)[inside] = slices[inside]
    return trimmed


def crop_to_mask(mask: Mask, margin_voxels: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the box around a mask that is not empty, widened by a margin inside the volume.

    The clean-up costs the box instead of the volume: lesions fill a small part of it.
    """
    across = mask.any(axis=0)  # the one way through the volume that is fast
    hits = mask.any(axis=(1, 2)), across.any(axis=1), across.any(axis=0)
    ends = [np.flatnonzero(hit)[[0, -1]] for hit in hits]
    return tuple(
        slice(max(0, first - margin), last + 1 + margin)
        for (first, last), margin in zip(ends, margin_voxels, strict=True)
    )
