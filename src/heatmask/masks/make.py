"""From the raw heatmap of one class to its binary mask."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import OptionError
from heatmask.masks.clean import KEEP, clean_mask, crop_to_mask, fill_holes, open_mask
from heatmask.masks.paper import make_paper_mask
from heatmask.masks.snap import snap_mask
from heatmask.masks.threshold import THRESHOLD_RULES, check_calibration, threshold_heatmap

PRESETS = ("default", "paper")


@dataclass(frozen=True)
class MaskSettings:
    """How a heatmap becomes a mask. Every unit is physical, nothing counts voxels.

    Attributes
    ----------
    calibration
        The bundle's fixed range (low, high) of the raw heatmap.
    threshold_rule, threshold_level
        See `heatmask.masks.threshold.threshold_heatmap`.
    min_volume_mm3
        Objects below this volume are dropped.
    keep
        ``"strongest"`` or ``"largest"`` object or ``"all"``, see `heatmask.masks.clean.clean_mask`.
    snap, snap_distance_mm
        Whether and how far the border may move to fit the scan.
    smooth_mm
        Radius of the disc that the mask must hold: thinner bridges and fringes go. Chosen
        on the synthetic brains, whose lesions are known, not on any reference mask.
    preset
        ``"default"``: the above. ``"paper"``: the steps of the GP networks' paper, which pass by
        all of the above (see `heatmask.masks.paper`).
    otsu_offset
        What ``"paper"`` takes off its threshold, in the heatmap's unit.
    """

    calibration: tuple[float, float]
    threshold_rule: str = "otsu"
    threshold_level: float = 0.0
    min_volume_mm3: float = 200.0
    keep: str = "strongest"
    snap: bool = True
    snap_distance_mm: float = 8.0
    smooth_mm: float = 2.0
    preset: str = "default"
    otsu_offset: float = 0.3

    def __post_init__(self) -> None:
        check_calibration(self.calibration)
        if self.threshold_rule not in THRESHOLD_RULES:
            raise OptionError(
                f"threshold_rule must be one of {THRESHOLD_RULES}, got {self.threshold_rule!r}."
            )
        if self.keep not in KEEP:
            raise OptionError(f"keep must be one of {KEEP}, got {self.keep!r}.")
        if self.preset not in PRESETS:
            raise OptionError(f"preset must be one of {PRESETS}, got {self.preset!r}.")
        if self.snap not in (True, False):  # "false" would count as true
            raise OptionError(f"snap must be true or false, got {self.snap!r}.")
        for name in ("threshold_level", "otsu_offset"):
            if not math.isfinite(getattr(self, name)):
                raise OptionError(f"{name} must be a number, got {getattr(self, name)}.")
        for name in ("min_volume_mm3", "snap_distance_mm", "smooth_mm"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name} must be at least 0, got {getattr(self, name)}.")


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
    ``"paper"`` has steps of its own.
    """
    if settings.preset == "paper":
        return make_paper_mask(heatmap, slice_axis, shown, settings.otsu_offset)
    threshold = _find_threshold(heatmap, slice_axis, shown, settings)
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


def _find_threshold(
    heatmap: NDArray[np.float32], slice_axis: int, shown: NDArray[np.bool_], settings: MaskSettings
) -> float:
    if not shown.any():
        return math.inf
    return threshold_heatmap(
        np.compress(shown, heatmap, slice_axis),
        settings.threshold_rule,
        settings.calibration,
        settings.threshold_level,
    )
