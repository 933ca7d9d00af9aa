"""From the raw heatmap on the scan's grid to its mask, and to its form for people."""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from heatmask.errors import InputError
from heatmask.geometry import find_array_axis, find_ras_slice_axis, order_as_stored
from heatmask.masks.make import find_threshold, make_label_map
from heatmask.masks.settings import MaskSettings


class HeatmapToMaskd(MapTransform):
    """Turn a raw heatmap (K, X, Y, Z) on the scanner's grid into a uint8 label map.

    See `heatmask.masks.make` for the steps and `MaskSettings` for the options.

    Parameters
    ----------
    keys
        Key of the heatmap. Beside it lie ``scan`` (C, X, Y, Z) on the same grid, whose first
        channel is snapped to, and ``shown`` (slices, K), in RAS order. The mask (1, X, Y, Z) goes
        to ``mask``, with the heatmap's affine.
    slice_axis
        Axis of the slices in RAS orientation; the array may be stored in any other.
    """

    def __init__(self, keys: KeysCollection, slice_axis: int = 2, **settings: Any) -> None:
        super().__init__(keys)
        self.slice_axis = slice_axis
        settings["calibration"] = tuple(settings["calibration"])
        self.settings = MaskSettings(**settings)

    def change(self, **settings: Any) -> "HeatmapToMaskd":
        """Return this step with some of its settings changed."""
        changed = copy(self)
        changed.settings = replace(self.settings, **settings)
        return changed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask to the dictionary."""
        out = dict(data)
        for key in self.key_iterator(out):
            heatmaps, scan, spacing, axis, shown = self._read(out, key)
            labels = make_label_map(heatmaps, scan, spacing, axis, shown, self.settings)
            out["mask"] = convert_to_dst_type(labels[None], out[key], dtype=torch.uint8)[0]
        return out

    def find_thresholds(self, data: Mapping[Hashable, Any]) -> list[float]:
        """Return the threshold on the raw heatmap of each class, inf where no voxel is above."""
        (key,) = self.keys
        heatmaps, _, _, axis, shown = self._read(data, key)
        return [
            find_threshold(heatmap, axis, by_class, self.settings)
            for heatmap, by_class in zip(heatmaps, shown.T, strict=True)
        ]

    def _read(self, data: Mapping[Hashable, Any], key: Hashable) -> tuple[Any, ...]:
        """Return heatmaps, scan, spacing, the array's slice axis and what is shown, as stored."""
        heatmap, scan, shown = data[key], data["scan"], np.asarray(data["shown"])
        if heatmap.shape[1:] != scan.shape[1:]:
            raise InputError(
                f"Heatmap and scan must share a grid, got {tuple(heatmap.shape[1:])} and "
                f"{tuple(scan.shape[1:])}: invert the heatmap to the scan before this step."
            )
        affine = np.asarray(scan.affine)
        ras_axis = find_ras_slice_axis(scan.shape[1:], affine, self.slice_axis)
        axis = find_array_axis(affine, ras_axis)
        shown = order_as_stored(shown, affine, ras_axis)
        # Rounded: a rotated 1 mm grid gives 0.9999999 mm, and a reach of 2 mm would lose a voxel.
        spacing = tuple(round(float(s), 4) for s in scan.pixdim)
        return heatmap.numpy(force=True), scan[0].numpy(force=True), spacing, axis, shown


class CalibrateHeatmapd(MapTransform):
    """Map a raw heatmap to [0, 1] by the bundle's fixed calibration, for people and files.

    Never by the image's own range: that would give every healthy scan a lesion.
    """

    def __init__(self, keys: KeysCollection, calibration: Sequence[float]) -> None:
        super().__init__(keys)
        self.low, self.high = calibration

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the form for people as ``display``."""
        out = dict(data)
        for key in self.key_iterator(out):
            # Of a plain tensor: each step of a MetaTensor copies what comes with it
            shifted = out[key].as_tensor() - self.low
            scaled = shifted.div_(self.high - self.low).clamp_(0, 1)
            out["display"] = convert_to_dst_type(scaled, out[key])[0]
        return out
