"""From the raw heatmap of one class to its binary mask."""

import math

import numpy as np
from numpy.typing import NDArray

from heatmask.masks.clean import clean_mask, crop_to_mask, fill_holes, open_mask, trim_ends
from heatmask.masks.level_sets import draw_level_sets, find_warm_level
from heatmask.masks.paper import make_paper_mask
from heatmask.masks.settings import MaskSettings
from heatmask.masks.snap import snap_mask
from heatmask.masks.threshold import threshold_heatmap

__all__ = ["MaskSettings", "find_threshold", "make_label_map", "make_mask"]

_END_SHARE, _END_LEVEL = 0.25, 0.85
"""A mask of level sets ends with no slice below this share of its largest slice's area, unless its
heatmap reaches this level there, of a scale as of `MaskSettings.warm_level`."""


def make_label_map(
    heatmaps: NDArray[np.float32],
    scan: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    slice_axis: int,
    shown: NDArray[np.bool_],
    settings: MaskSettings,
) -> NDArray[np.uint8]:
    """Return the label map (X, Y, Z) of the heatmaps (K, X, Y, Z) of K classes.

    Class k becomes label k + 1, background is 0; where classes overlap the one with the higher
    heatmap wins. `shown` has a column for each class; the others as `make_mask`.
    """
    labels = np.zeros(heatmaps.shape[1:], np.uint8)
    best = np.full(labels.shape, -np.inf, np.float32) if len(heatmaps) > 1 else None
    for label, heatmap in enumerate(heatmaps, start=1):
        mask = make_mask(heatmap, scan, spacing_mm, slice_axis, shown[:, label - 1], settings)
        if best is not None:
            mask &= heatmap > best
            best[mask] = heatmap[mask]
        labels[mask] = label
    return labels


def make_mask(
    heatmap: NDArray[np.float32],
    scan: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    slice_axis: int,
    shown: NDArray[np.bool_],
    settings: MaskSettings,
) -> NDArray[np.bool_]:
    """Return the mask (X, Y, Z) of one class from its raw heatmap on the scan's grid.

    Threshold, clean, snap, smooth, clean again and fill holes. Only the slices that `shown` names
    (one entry for each along `slice_axis`) are looked at: the others hold a filling, which
    would decide the threshold. No shown slice or no foreground gives an empty mask. The preset
    ``"paper"`` and the rule ``"level_sets"`` have steps of their own.
    """
    if settings.preset == "paper":
        return make_paper_mask(heatmap, slice_axis, shown, settings.otsu_offset)
    if settings.threshold_rule == "level_sets":
        return _make_level_set_mask(heatmap, scan, spacing_mm, slice_axis, shown, settings)
    threshold = find_threshold(heatmap, slice_axis, shown, settings)
    mask = heatmap > threshold
    slices_last = np.moveaxis(mask, slice_axis, -1)
    slices_last &= shown
    if not mask.any():
        return mask

    def clean(part: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.bool_]:
        evidence = (np.minimum(heatmap[box], settings.calibration[1]) - threshold).clip(min=0)
        voxel_mm3 = float(np.prod(spacing_mm))
        return clean_mask(part, evidence, voxel_mm3, settings.min_volume_mm3, settings.keep)

    box = crop_to_mask(mask, (0, 0, 0))
    mask[box] = clean(mask[box], box)
    if not mask.any():
        return mask
    reach = [int(np.ceil(settings.snap_distance_mm / s)) for s in spacing_mm]
    reach[slice_axis] = 0
    box = crop_to_mask(mask, tuple(reach))
    part = mask[box]
    if settings.snap:
        part = snap_mask(part, scan[box], spacing_mm, slice_axis, settings.snap_distance_mm)
    part = open_mask(part, spacing_mm, slice_axis, settings.smooth_mm)
    mask[box] = fill_holes(clean(part, box), slice_axis)
    return mask


def _make_level_set_mask(
    heatmap: NDArray[np.float32],
    scan: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    slice_axis: int,
    shown: NDArray[np.bool_],
    settings: MaskSettings,
) -> NDArray[np.bool_]:
    mask = np.zeros(heatmap.shape, bool)
    if not shown.any():
        return mask
    heat, image = (volume.compress(shown, slice_axis) for volume in (heatmap, scan))
    drawn = draw_level_sets(heat, image, slice_axis, settings.warm_level, settings.polarity)
    np.moveaxis(mask, slice_axis, 0)[shown] = np.moveaxis(drawn, slice_axis, 0)
    evidence = heatmap - heatmap.min()

    def clean(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        voxel_mm3 = float(np.prod(spacing_mm))
        return clean_mask(mask, evidence, voxel_mm3, settings.min_volume_mm3, settings.keep)

    mask = clean(mask)
    if settings.snap and settings.polarity == "bright":  # beside dark lesions lie darker shadows
        snapped = snap_mask(mask, scan, spacing_mm, slice_axis, settings.snap_distance_mm)
        mask = fill_holes(clean(snapped), slice_axis)
    if settings.keep == "all":  # small objects on other slices are wanted
        return mask
    hot = heatmap > find_warm_level(heat, _END_LEVEL)
    return trim_ends(mask, hot, slice_axis, _END_SHARE)


def find_threshold(
    heatmap: NDArray[np.float32], slice_axis: int, shown: NDArray[np.bool_], settings: MaskSettings
) -> float:
    """Return the value of a raw heatmap above which the mask begins, inf if nowhere.

    The parameters are those of `make_mask`.
    """
    if not shown.any():
        return math.inf
    seen = heatmap if shown.all() else np.compress(shown, heatmap, slice_axis)
    if settings.threshold_rule in ("warm", "level_sets"):
        return find_warm_level(seen, settings.warm_level)
    return threshold_heatmap(
        seen,
        settings.threshold_rule,
        settings.calibration,
        settings.threshold_level,
    )
