"""Let the scan help to draw the border inside the warm part of a heatmap.

The heatmap says about where the lesion is, the scan where it ends: as brightness falls, or rises,
the region that is brighter than a threshold grows. Of many such regions those count that separate
the heatmap best, and their average is the scan's vote.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit
from torch.nn import functional as F

from heatmask.masks.clean import crop_to_mask
from heatmask.percentile import find_percentile

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIGNS = {"bright": 1.0, "dark": -1.0}

_SIDE = 128
_SCALES = (0.5, 1.0, 2.0)
_QUANTILES = np.linspace(0.02, 0.95, 20)
_AVERAGED = 36
_ROUNDING = 0.2
_PEAK = 99.95
# Chosen on validation masks, one pair for LGG and ultrasound (docs/explanation/mask-quality.md).
_STEEPNESS, _MIDDLE = 16.0, 0.55


def draw_level_sets(
    heatmap: Floats, scan: Floats, slice_axis: int, warm_level: float, polarity: str
) -> Mask:
    """Return the mask (X, Y, Z) of one object, on whose border heatmap and scan vote.

    The warm part is the connected part of the heatmap above `warm_level` with the most heat. In it
    the scan, smoothed at three scales, is cut at twenty thresholds. Of each cut the connected
    region stays that separates the heatmap best (Otsu's criterion), opened by a disc of a fifth of
    its own radius, its holes filled. Their average, weighted by the square of that criterion, is
    the scan's vote; the heatmap's is the sigmoid of how far it lies above the middle between
    median and peak. The mask is where the mean of both is above one half. All on a grid of 128
    pixels along a slice's longer side, so that neither pixel size nor matrix matter, and connected
    in three dimensions.

    Parameters
    ----------
    heatmap, scan
        (X, Y, Z) on one grid; the scan in any unit.
    slice_axis
        The array axis along which the slices lie.
    warm_level
        Where the warm part begins, between the heatmap's median (0) and its peak (1).
    polarity
        Whether the lesion is ``"bright"`` or ``"dark"`` against what surrounds it.

    Returns
    -------
    numpy.ndarray
        bool; a part of what lies above `warm_level`. Empty for a flat heatmap.
    """
    median, peak = find_ends(heatmap)
    if peak <= median:
        return np.zeros(heatmap.shape, bool)
    slices, images = (np.moveaxis(volume, slice_axis, 0) for volume in (heatmap, scan))
    size = slices.shape[1:]
    share = min(1.0, _SIDE / max(size))
    grid = tuple(max(1, round(length * share)) for length in size)
    level = median + warm_level * (peak - median)
    average = average_level_sets(_resize(slices, grid), _resize(images, grid), level, polarity)
    place = (slices - median) / (peak - median)
    votes = _resize(average, size) + expit(_STEEPNESS * (place - _MIDDLE))
    return np.moveaxis((votes > 1) & (place > warm_level), 0, slice_axis)


def average_level_sets(heat: Floats, image: Floats, level: float, polarity: str) -> Floats:
    """Return how surely each pixel (slices, H, W) belongs to the object, from 0 to 1.

    Parameters
    ----------
    heat, image
        (slices, H, W) on the grid of `draw_level_sets`.
    level
        Heat at which the warm part begins.
    polarity
        As of `draw_level_sets`.
    """
    average = np.zeros(heat.shape, np.float32)
    warm = select_warm(heat, level)
    if not warm.any():
        return average
    box = crop_to_mask(warm, (0, 0, 0))
    criterion = _Separation(heat)
    regions = sorted(_cut(image * SIGNS[polarity], heat, warm, box, criterion), key=lambda r: -r[0])
    smoothed = [smooth_region(region) for _, region in regions[:_AVERAGED]]
    weights = np.array([criterion(region, heat[box]) for region in smoothed]) ** 2
    if not weights.any():
        return warm.astype(np.float32)
    average[box] = np.tensordot(weights / weights.sum(), np.stack(smoothed), 1)
    return average


def find_warm_level(heat: Floats, warm_level: float) -> float:
    """Return the heat at `warm_level` of the way from the median (0) to the peak (1)."""
    median, peak = find_ends(heat)
    return median + warm_level * (peak - median)


def find_ends(heat: Floats) -> tuple[float, float]:
    """Return the median of a heatmap and its peak, the 99.95th percentile."""
    return float(np.median(heat)), find_percentile(heat.ravel(), _PEAK)


def select_warm(heat: Floats, level: float) -> Mask:
    """Return the connected part of a heatmap above a level that has the most heat above it."""
    parts, count = ndimage.label(heat > level)
    if count == 0:
        return parts > 0
    excess = np.bincount(parts.ravel(), (heat - level).clip(min=0).ravel())
    return parts == excess[1:].argmax() + 1


def smooth_region(region: Mask) -> Mask:
    """Open each slice (axis 0) by a disc of a fifth of its area's radius, and fill its holes."""
    out = region.copy()
    for part in out:
        boxes = ndimage.find_objects(part.view(np.uint8))
        if not boxes:
            continue
        area = part[boxes[0]]  # the rest of the slice costs time only
        radius = max(1.0, _ROUNDING * np.sqrt(area.sum() / np.pi))
        core = ndimage.distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1] > radius
        if core.any():
            area[:] = ndimage.binary_fill_holes(ndimage.distance_transform_edt(~core) <= radius)
    return out


class _Separation:
    """Otsu's criterion: the variance of the heat that lies between a region and all else."""

    def __init__(self, heat: Floats) -> None:
        self.count, self.total = heat.size, float(heat.sum(dtype=np.float64))

    def __call__(self, region: Mask, heat: Floats) -> float:
        """Return the criterion of one region (slices, H, W) of a box of the heat."""
        inside = np.array([region.sum()]), np.array([heat[region].sum(dtype=np.float64)])
        return float(self.compare(*inside)[0])

    def compare(self, counts: NDArray[Any], sums: NDArray[Any]) -> NDArray[np.float64]:
        """Return the criterion of regions with so many pixels and so much heat."""
        outside = np.maximum(self.count - counts, 1)
        step = sums / np.maximum(counts, 1) - (self.total - sums) / outside
        share = counts / self.count
        return share * (1 - share) * step.clip(min=0) ** 2


def _cut(
    image: Floats, heat: Floats, warm: Mask, box: tuple[slice, ...], criterion: _Separation
) -> Iterator[tuple[float, Mask]]:
    """Give the best connected region, within `box`, of each level set of the image."""
    inside, near = warm[box], heat[box]
    for scale in _SCALES:
        smooth = ndimage.gaussian_filter(image, (0, scale, scale))[box]
        for threshold in np.unique(np.quantile(smooth[inside], _QUANTILES)):
            parts, count = ndimage.label(inside & (smooth > threshold))
            if count:
                flat = parts.ravel()
                counts, sums = np.bincount(flat)[1:], np.bincount(flat, near.ravel())[1:]
                scores = criterion.compare(counts, sums)
                best = int(scores.argmax())
                yield float(scores[best]), parts == best + 1


def _resize(slices: Floats, size: tuple[int, ...]) -> Floats:
    """Interpolate (slices, H, W) to another H and W; averages where pixels become larger."""
    images = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None]
    shrinks = size[0] < slices.shape[1]
    resized = F.interpolate(images, size=size, mode="bilinear", antialias=shrinks)
    return resized[:, 0].numpy()
