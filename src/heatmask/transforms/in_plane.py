"""Slices on another grid, smoothed, and beside one another; nothing across them changes."""

from collections.abc import Hashable, Mapping, Sequence
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

from heatmask.errors import InputError, OptionError
from heatmask.geometry import find_slice_axis
from heatmask.transforms.each import EachVolumed

SHORTEST_SIDE = 8
"""Pixels that the shorter side of a slice must have for a network to see anything in it."""


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

    Raises
    ------
    InputError
        On call, if the shorter side would have fewer pixels than `SHORTEST_SIDE`.
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
        size = np.round(extent / longest * self.longest_side).astype(int)
        size[axis] = old[axis]
        shorter = min(length for i, length in enumerate(size) if i != axis)
        if shorter < SHORTEST_SIDE:
            sides = " x ".join(str(length) for i, length in enumerate(old) if i != axis)
            raise InputError(
                f"A slice of {sides} pixels is too long: with {self.longest_side} along its longer "
                f"side the shorter one would have {shorter}, and {SHORTEST_SIDE} is the least. "
                "Crop it."
            )
        info = self.get_transform_info()
        return self._resize(volume, size.tolist(), info, mode="bilinear", antialias=True)


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
