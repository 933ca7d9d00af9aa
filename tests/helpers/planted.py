"""A classifier whose heatmap is known beforehand, and volumes to show it.

The planted classifier sees brightness: its heatmap of class k is ``gains[k] * image +
offsets[k]`` and its logit the heatmap's maximum. So the right heatmap of a bright blob is
the blob, and the right answer to a scan without one is "nothing there".
"""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn


class PlantedClassifier(nn.Module):
    """Counts the slices of each forward in `batches`; `shrink` gives a coarser attribution."""

    def __init__(
        self, gains: Sequence[float] = (8.0,), offsets: Sequence[float] = (-12.0,), shrink: int = 1
    ) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, len(gains), kernel_size=1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(gains).view(-1, 1, 1, 1))
            self.head.bias.copy_(torch.tensor(offsets))
        self.shrink = nn.AvgPool2d(shrink)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_heatmap(images)[0]

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(images))
        heatmap = self.head(images)
        return heatmap.flatten(2).amax(-1), self.shrink(heatmap)


def make_affine(
    spacing_mm: Sequence[float],
    axcodes: str = "RAS",
    tilt_deg: Sequence[float] = (0.0, 0.0, 0.0),
    origin_mm: Sequence[float] = (-31.0, 17.5, -8.25),
) -> np.ndarray:
    """Affine (4, 4) of a grid stored as `axcodes`, with voxel sizes in stored order."""
    rotation = np.eye(3)
    for (first, second), degrees in zip(((0, 1), (1, 2), (0, 2)), tilt_deg, strict=True):
        turn = np.eye(3)
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
        rotation = turn @ rotation
    orientation = nib.orientations.axcodes2ornt(tuple(axcodes))
    axes = np.zeros((3, 3))
    axes[orientation[:, 0].astype(int), range(3)] = orientation[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ axes * np.asarray(spacing_mm)
    affine[:3, 3] = origin_mm
    return affine


def store_as(array: np.ndarray, affine: np.ndarray, axcodes: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the same volume (X, Y, Z) with its axes stored as `axcodes`, and its affine."""
    start = nib.io_orientation(affine)
    change = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(axcodes)))
    moved = nib.apply_orientation(array, change)
    return moved, affine @ nib.orientations.inv_ornt_aff(change, array.shape)


def make_volume(array: np.ndarray | Tensor, affine: np.ndarray, **meta: object) -> MetaTensor:
    """A channel-first float32 volume from (X, Y, Z) or (C, X, Y, Z)."""
    tensor = torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)
    tensor = tensor if tensor.ndim == 4 else tensor[None]
    return MetaTensor(tensor, torch.as_tensor(affine), dict(meta))


def draw_ball(
    shape: Sequence[int],
    centre: Sequence[float],
    radius: float,
    spacing: Sequence[float] = (1.0,),
) -> np.ndarray:
    """Boolean array: voxels within `radius` of `centre`, both in units of `spacing`."""
    grid = np.indices(shape).T * np.asarray(spacing) - np.asarray(centre)
    return (np.linalg.norm(grid, axis=-1) <= radius).T
