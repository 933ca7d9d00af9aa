"""Intensities that count from the background, whatever number the file gives it.

In most MR images air is 0. In others everything is shifted (a rescale intercept, unsigned numbers
read as signed ones), or what lies outside the head or the field of view was filled with a number
of its own: -1000, the lowest of the type, DICOM's padding value. z-normalised heads have their
background in the middle of their range. A network would take any of these for tissue.
"""

import numpy as np
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.percentile import find_percentile

Array = NDArray[np.float32]

# Shares of the voxels on the volume's faces.
_MIN_FILLED = 0.005
_MIN_BACKGROUND = 0.1
# Distances from the darkest voxels, in parts of the range of all but the brightest.
_NEAR = 0.05
_WITHIN = 2.0


def zero_channels(volume: MetaTensor) -> MetaTensor:
    """Apply `zero_background` to each channel of a volume (C, X, Y, Z).

    It is returned as it is, the same object, where that changes nothing.
    """
    channels = list(volume.numpy(force=True))
    zeroed = [zero_background(channel) for channel in channels]
    if all(new is old for new, old in zip(zeroed, channels, strict=True)):
        return volume
    return convert_to_dst_type(np.stack(zeroed), volume)[0]


def zero_background(scan: Array) -> Array:
    """Shift a scan (X, Y, Z) so that air is 0, and set a background with a number of its own to 0.

    A scan whose air is about 0 is returned as it is, the same array. Adding a number to all voxels
    changes nothing in the result, nor does another number for the background. A few voxels far
    below all others are defects, and become as dark as the darkest.
    """
    fills = _find_fills(scan)
    inside = _leave_out(take_sample(scan), fills)
    if inside.size == 0:
        return scan
    dark, bright = find_percentile(inside, 0.1), find_percentile(inside, 99)
    air = _find_air(fills, dark, bright - dark)
    apart = [f for f in fills if f != air and _stands_apart(f, scan, inside, bright - dark)]
    too_dark = dark - (bright - dark)
    has_defects = float(scan.min()) < too_dark
    if not air and not apart and not has_defects:
        return scan
    shifted = (np.where(scan < too_dark, dark, scan) if has_defects else scan) - np.float32(air)
    for fill in apart:
        filled = scan == fill
        # Among the numbers of tissue it may be tissue, unless it reaches the faces.
        shifted[_connect_to_faces(filled) if dark <= fill <= bright else filled] = 0
    return shifted


def take_sample(scan: Array, size: int = 200_000) -> Array:
    """Return every n-th voxel, about `size` of them; n is odd, to meet all rows and columns."""
    flat = scan.ravel()
    return flat[:: flat.size // size | 1]


def _find_fills(scan: Array) -> list[float]:
    """Numbers that may fill what is no tissue.

    Of the frequent ones the most frequent, negative ones and the highest; the lowest if it repeats.
    """
    faces = _take_faces(scan)
    counts = count_frequent(faces, _MIN_BACKGROUND)
    most, highest = max(counts.values(), default=0), scan.max()
    fills = {v for v, count in counts.items() if count == most or v < 0 or v == highest}
    lowest = float(faces.min())
    is_lowest = lowest == scan.min()
    if is_lowest and np.count_nonzero(faces == lowest) / faces.size >= _MIN_FILLED:
        fills.add(lowest)
    return sorted(fills)


def count_frequent(values: Array, min_share: float) -> dict[float, int]:
    """Count each number that at least such a share of the values is.

    In their order it takes up one of places that are no farther apart than its count: much
    faster than sorting all.
    """
    step = max(1, int(min_share * values.size))
    places = np.arange(0, values.size, step)
    candidates = np.unique(np.partition(values, places)[places])
    counts = {float(value): int(np.count_nonzero(values == value)) for value in candidates}
    return {value: count for value, count in counts.items() if count / values.size >= min_share}


def _leave_out(values: Array, fills: list[float]) -> Array:
    for fill in fills:
        values = values[values != fill]
    return values


def _find_air(fills: list[float], dark: float, span: float) -> float:
    """What air is in the scan's numbers, whose darkest voxels have `dark`.

    A fill just below them is air. A negative one below a scan that has only positive numbers is
    not: nothing was shifted. Without either it is 0 if the darkest voxels are near it.
    """
    for fill in fills:
        if 0 <= dark - fill <= _WITHIN * span and (fill >= 0 or dark < 0):
            return fill
    reach = _WITHIN if fills else _NEAR
    return 0.0 if -_NEAR * span <= dark <= reach * span else dark


def _stands_apart(fill: float, scan: Array, inside: Array, span: float) -> bool:
    """Whether hardly any voxel is almost a fill: the commonest number of noise has neighbours."""
    distance = np.abs(inside - fill)
    near = distance <= max(0.01 * span, min(0.05 * span, 1.5 * distance.min()))
    return 5 * np.count_nonzero(near) < np.count_nonzero(take_sample(scan) == fill)


def _take_faces(scan: Array) -> Array:
    """Voxels on the faces of a volume; on the edges of a single slice."""
    axes = [axis for axis, count in enumerate(scan.shape) if count > 1]
    return np.concatenate([scan.take(side, axis).ravel() for axis in axes for side in (0, -1)])


def _connect_to_faces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out what tissue encloses."""
    faces = np.zeros_like(mask)
    for axis, count in enumerate(mask.shape):
        if count > 1:
            np.moveaxis(faces, axis, 0)[[0, -1]] = True
    return ndimage.binary_propagation(faces & mask, mask=mask)
