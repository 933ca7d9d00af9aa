"""Whether voxels can be a scan of a head at all, asked before a network is.

A network answers on anything. A mask given as a scan, or voxel sizes in the wrong unit, would give
a result that looks like any other.
"""

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from heatmask.data.background import take_sample
from heatmask.data.paths import is_picture
from heatmask.errors import InputError
from heatmask.percentile import find_percentile

# A head at half its size is up to 115 mm long, a newborn's 120 mm; with the neck it is 300 mm.
_USUAL_MM = (125.0, 300.0)
_THINNEST_MM = 15.0
_MAX_LEVELS = 16
# Of neighbours within tissue; 0.02 to 0.36 in 121 MR volumes of 8 bits.
_MAX_EQUAL = 0.75


def check_plausible(volume: MetaTensor, size_mm: Sequence[float] | None) -> list[str]:
    """Refuse a volume (1, X, Y, Z) that is a label map, or that shows no head by its size.

    Parameters
    ----------
    volume
        A scan whose air is 0 (`heatmask.data.background.zero_channels`).
    size_mm
        Least length of the two longer sides of what is shown, and greatest of all three; None
        leaves it unchecked, and so does a picture, which has no size.

    Returns
    -------
    list of str
        A warning where the size is possible and unusual.

    Raises
    ------
    InputError
        No head looks like this.
    """
    name = str(volume.meta.get("filename_or_obj", "volume in memory"))
    scan = volume[0].numpy(force=True)
    _check_not_labels(scan, name)
    if size_mm is None or is_picture(name):
        return []
    sides_mm = measure_size(scan, [float(spacing) for spacing in volume.pixdim])
    sides = " x ".join(f"{side:.3g}" for side in sides_mm)
    shortest, middle, longest = sorted(sides_mm)
    if not size_mm[0] <= middle <= longest <= size_mm[1]:
        raise InputError(
            f"By its voxel size, what '{name}' shows measures {sides} mm; a head is about "
            "160 x 200 x 200 mm. Correct the voxel size in the file's header, or its unit."
        )
    is_thick = shortest >= _THINNEST_MM or 1 in scan.shape
    if is_thick and _USUAL_MM[0] <= longest <= _USUAL_MM[1]:
        return []
    return [f"What the scan shows measures {sides} mm, unusual for a head. Check the voxel size."]


def measure_size(scan: NDArray[np.float32], spacing_mm: Sequence[float]) -> list[float]:
    """Length in mm, along each axis, of what is above a fifth of the brightest hundredth.

    Air must be 0. The outermost half per cent at each end is left out: noise, and what was folded
    over.
    """
    sample = take_sample(scan)
    tissue = scan > 0.2 * find_percentile(sample[sample > 0], 99)
    across = tissue.sum(axis=0)
    counts = tissue.sum(axis=(1, 2)), across.sum(axis=1), across.sum(axis=0)
    lengths = []
    for count, spacing in zip(counts, spacing_mm, strict=True):
        share = count.cumsum() / count.sum()
        first, last = np.searchsorted(share, (0.005, 0.995))
        lengths.append(float(last - first + 1) * spacing)
    return lengths


def _check_not_labels(scan: NDArray[np.float32], name: str) -> None:
    """Refuse a label map, by its few values or its many equal neighbours."""
    # A few voxels mostly show that there are many levels.
    has_many = any(_count_levels(scan, size) > _MAX_LEVELS for size in (2_000, 200_000))
    if has_many and not is_in_patches(scan):
        return
    raise InputError(
        f"'{name}' looks like a mask or a label map, not like a scan: it has "
        f"{_count_levels(scan, 200_000)} values, in patches of one value. Give the scan itself."
    )


def is_in_patches(scan: NDArray[np.float32]) -> bool:
    """Whether most neighbours in (X, Y, Z) that are not 0 are equal, as in a label map."""
    inside = (scan[:-1] != 0) & (scan[1:] != 0)
    equal = np.count_nonzero(inside & (scan[:-1] == scan[1:]))
    return bool(equal > _MAX_EQUAL * np.count_nonzero(inside))


def _count_levels(scan: NDArray[np.float32], size: int) -> int:
    return len(np.unique(take_sample(scan, size)))
