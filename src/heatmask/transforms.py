"""The dictionary transforms that bundle configs name, beside MONAI's own."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.utils import scale_affine
from monai.utils import convert_to_dst_type
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from heatmask.data.background import zero_channels
from heatmask.errors import InputError, OptionError
from heatmask.geometry import (
    find_array_axis,
    find_ras_slice_axis,
    find_slice_axis,
    order_as_stored,
)
from heatmask.masks.make import find_threshold, make_label_map
from heatmask.masks.settings import MaskSettings
from heatmask.percentile import find_percentile


class EachVolumed(MapTransform):
    """Changes the volume of every key in the same way."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every key."""
        return {**data, **{k: self.change(data[k]) for k in self.key_iterator(data)}}

    @abstractmethod
    def change(self, volume: MetaTensor) -> Tensor:
        """Return the changed volume (C, X, Y, Z)."""


class ResampleInPlaned(EachVolumed, InvertibleTransform):
    """Resample volumes to square pixels, leaving their slices where they are.

    `monai.transforms.Spacingd` and `Resized` would do it too, in three dimensions and several
    times as long. Here the slices are channels of one image: axial slices, the last axis in
    memory, are then interpolated side by side without a copy.

    Parameters
    ----------
    pixel_spacing_mm
        Pixel size after resampling; averages where pixels become larger.
    slice_axis
        Spatial axis along which the slices lie (see `heatmask.geometry.find_slice_axis`); its
        spacing stays.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixel_spacing_mm: float,
        slice_axis: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_spacing_mm, self.slice_axis = pixel_spacing_mm, slice_axis

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the resampled volume (C, X, Y, Z)."""
        old = np.asarray(volume.shape[1:])
        factor = np.asarray(volume.pixdim) / self.pixel_spacing_mm
        factor[find_slice_axis(old.tolist(), self.slice_axis)] = 1.0
        size = np.maximum(np.round(old * factor), 1).astype(int)
        mode = "area" if (size <= old).all() else "bilinear"
        return self._resize(volume, size.tolist(), self.get_transform_info(), mode=mode)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring every key back to the grid it had before, by linear interpolation."""
        return {**data, **{k: self._change_back(data[k]) for k in self.key_iterator(data)}}

    def _change_back(self, volume: MetaTensor) -> MetaTensor:
        size = self.pop_transform(volume)["orig_size"]
        return self._resize(volume, list(size), mode="bilinear")

    def _resize(
        self, volume: MetaTensor, size: list[int], info: dict | None = None, **how: Any
    ) -> MetaTensor:
        old = tuple(volume.shape[1:])
        meta = self.track_transform_meta(  # without `info` the step leaves no trace
            volume, affine=scale_affine(old, size), orig_size=old, transform_info=info
        )
        axis = find_slice_axis(old, self.slice_axis)
        images = volume.as_tensor().float().movedim(axis + 1, 1)  # (C, slices, H, W)
        in_plane = [n for i, n in enumerate(size) if i != axis]
        resized = F.interpolate(images, size=in_plane, **how).movedim(1, axis + 1)
        return MetaTensor(resized.contiguous()).copy_meta_from(meta)


class ResizeInPlaned(ResampleInPlaned):
    """Scale the slices of volumes to one size, whatever their pixels are: for pictures.

    `monai.transforms.Resized` with ``anti_aliasing`` smooths in three dimensions, which takes
    seventy times as long, and darkens the borders.

    Parameters
    ----------
    size
        Of a slice, along the two axes in their order.
    slice_axis
        As in `ResampleInPlaned`.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], slice_axis: int = 2) -> None:
        MapTransform.__init__(self, keys)
        self.size, self.slice_axis = tuple(size), slice_axis

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the scaled volume (C, X, Y, Z); averages where pixels become larger."""
        size = list(self.size)
        axis = find_slice_axis(volume.shape[1:], self.slice_axis)
        size.insert(axis, volume.shape[axis + 1])
        info = self.get_transform_info()
        return self._resize(volume, size, info, mode="bilinear", antialias=True)


class FitInPlaned(ResampleInPlaned):
    """Resample volumes so that the longer side of a slice has so many pixels, square ones.

    Parameters
    ----------
    longest_side
        Pixels along it; averages where pixels become larger.
    slice_axis
        As in `ResampleInPlaned`.
    """

    def __init__(self, keys: KeysCollection, longest_side: int, slice_axis: int = 2) -> None:
        MapTransform.__init__(self, keys)
        self.longest_side, self.slice_axis = longest_side, slice_axis

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the resampled volume (C, X, Y, Z)."""
        old = np.asarray(volume.shape[1:])
        axis = find_slice_axis(old.tolist(), self.slice_axis)
        extent = old * np.asarray(volume.pixdim)
        longest = max(length for i, length in enumerate(extent) if i != axis)
        size = np.maximum(np.round(extent / longest * self.longest_side), 1).astype(int)
        size[axis] = old[axis]
        info = self.get_transform_info()
        return self._resize(volume, size.tolist(), info, mode="bilinear", antialias=True)


class ZeroBackgroundd(EachVolumed):
    """Shift each channel of a volume (C, X, Y, Z) so that air is 0, as in most MR images.

    `heatmask.data.load.LoadSequencesd` does it by itself; bundles that were trained with Heatmask
    0.1 name the step.
    """

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the shifted volume."""
        return zero_channels(volume)


class NormalizeHeadd(EachVolumed):
    """Scale intensities so that the head's median is 1, the background 0 and the top 4.

    The head is what lies above a fifth of the 99th percentile of the non-zero voxels. A
    scan with negative values (z-normalised) is first shifted so that its lowest voxel is 0,
    and exact zeros, its background, stay 0. A scan without any signal stays zero.
    """

    top = 4.0

    def change(self, volume: Tensor) -> Tensor:
        """Return the normalised volume (C, X, Y, Z), each channel on its own."""
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        scaled = torch.stack([self._normalize_channel(channel) for channel in plain.float()])
        return convert_to_dst_type(scaled, volume, dtype=torch.float32)[0]

    def _normalize_channel(self, channel: Tensor) -> Tensor:
        if channel.min() < 0:
            channel = torch.where(channel != 0, channel - channel.min(), 0.0)
        sample = channel.numpy(force=True)
        sample = sample[sample > 0]  # several times faster than torch's selection
        if sample.size == 0:
            return channel
        head = sample[sample > 0.2 * find_percentile(sample, 99)]
        return (channel / float(np.median(head))).clamp_(0, self.top)


class ScaleByPercentilesd(EachVolumed):
    """Scale intensities so that the 1st percentile becomes 0 and the 99.5th 1, and clip.

    For images of anything, and a volume as a whole. `monai.transforms` has
    ``ScaleIntensityRangePercentilesd``, which leaves a channel unscaled where the two percentiles
    are one number. Here what is brighter than it becomes 1.
    """

    low, high = 1.0, 99.5

    def change(self, volume: Tensor) -> Tensor:
        """Return the scaled volume (C, X, Y, Z), each channel on its own."""
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        scaled = torch.stack([self._scale_channel(channel) for channel in plain.float()])
        return convert_to_dst_type(scaled, volume, dtype=torch.float32)[0]

    def _scale_channel(self, channel: Tensor) -> Tensor:
        values = channel.flatten().numpy(force=True)
        low, high = (find_percentile(values, percent) for percent in (self.low, self.high))
        span = max(high - low, 1e-6 * max(abs(high), 1e-6))
        return ((channel - low) / span).clamp_(0, 1)


class StackNeighboursd(EachVolumed):
    """Put each slice between its neighbours: one channel becomes three.

    The first and the last slice, and that of a picture, are their own neighbours.

    Parameters
    ----------
    slice_axis
        As in `ResampleInPlaned`.
    """

    def __init__(self, keys: KeysCollection, slice_axis: int = 2) -> None:
        super().__init__(keys)
        self.slice_axis = slice_axis

    def change(self, volume: MetaTensor) -> Tensor:
        """Return the volume (3, X, Y, Z): slice before, slice, slice after."""
        if volume.shape[0] != 1:
            raise InputError(
                f"A network that sees a slice between its neighbours takes one sequence, got "
                f"{volume.shape[0]}. Choose one: the option sequences."
            )
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        axis = find_slice_axis(volume.shape[1:], self.slice_axis) + 1
        places = torch.arange(plain.shape[axis])
        moved = [(places + step).clamp(0, len(places) - 1) for step in (-1, 0, 1)]
        stacked = torch.cat([plain.index_select(axis, at) for at in moved])
        return convert_to_dst_type(stacked, volume)[0]


class SmoothHeatmapd(EachVolumed):
    """Blur a heatmap (K, X, Y, Z) within its slices by a Gaussian.

    Methods that differentiate down to the pixels leave a map of fine edges; the region that
    they belong to shows after smoothing.

    Parameters
    ----------
    keys
        Key of the heatmap, on the network's grid.
    blur_mm
        Standard deviation; 0 leaves the heatmap alone.
    slice_axis
        Spatial axis along which the slices lie; nothing is blurred across them.
    """

    def __init__(self, keys: KeysCollection, blur_mm: float, slice_axis: int = 2) -> None:
        super().__init__(keys)
        if not blur_mm >= 0:
            raise OptionError(f"blur_mm must be at least 0, got {blur_mm!r}.")
        self.blur_mm, self.slice_axis = blur_mm, slice_axis

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the blurred heatmap."""
        sigma = [0.0, *(self.blur_mm / float(s) for s in volume.pixdim)]
        sigma[find_slice_axis(volume.shape[1:], self.slice_axis) + 1] = 0.0
        smooth = ndimage.gaussian_filter(volume.numpy(force=True), sigma)
        return convert_to_dst_type(smooth, volume, dtype=torch.float32)[0]


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
            shifted = out[key] - self.low
            out["display"] = shifted.div_(self.high - self.low).clamp_(0, 1)
        return out
