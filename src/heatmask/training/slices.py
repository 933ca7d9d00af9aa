"""Labelled slices in memory, prepared by the very steps that inference uses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, ResizeWithPadOrCrop
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError


class SliceDataset(Dataset[dict[str, Tensor]]):
    """Every slice of every volume, with its label and its relative height in the stack.

    Parameters
    ----------
    volumes
        See `heatmask.data.labels.list_labelled_volumes`.
    preprocessing
        The bundle's preprocessing: ``{"image": path}`` to an RAS volume under ``"image"``.
    image_size
        Rows and columns of a slice; larger slices are cropped around the centre, smaller
        ones padded with zeros.

    Notes
    -----
    Axial slices: the labels belong to the file's third axis and follow it through the
    reorientation. Slices are held as float16 (2 bytes a pixel: 60 MB for 1,800 slices of
    128 x 128), all-zero slices included.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        preprocessing: Callable[[Mapping[str, Any]], Any],
        image_size: tuple[int, int] = (128, 128),
    ) -> None:
        fit = ResizeWithPadOrCrop((*image_size, -1))
        images, labels, positions = [], [], []
        for volume in track(volumes, "Reading slices", disable=len(volumes) < 4):
            prepared = preprocessing({"image": str(volume.path)})
            stack = fit(prepared["image"]).as_tensor().movedim(-1, 0)
            images.append(stack.half())
            labels.append(_orient_labels(volume, prepared["scan"]))
            positions.append((torch.arange(len(stack)) + 0.5) / len(stack))
        self.images, self.labels = torch.cat(images), torch.cat(labels)
        self.positions = torch.cat(positions)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (1, H, W) float32, ``label`` and ``position``, both scalars."""
        return {
            "image": self.images[index].float(),
            "label": self.labels[index],
            "position": self.positions[index],
        }


def _orient_labels(volume: LabelledVolume, scan: MetaTensor) -> Tensor:
    """Return the slice labels in RAS order, or refuse a count that does not match."""
    count = scan.shape[-1]
    if count != len(volume.slice_labels):
        raise InputError(
            f"Every slice of {volume.path} must have a label: the file has {count} slices along "
            f"its third axis, the table {len(volume.slice_labels)}."
        )
    labels = torch.tensor(volume.slice_labels, dtype=torch.float32).view(1, 1, 1, -1)
    oriented = Orientation("RAS", labels=None)(MetaTensor(labels, affine=scan.affine))
    if oriented.shape[-1] != count and count > 1:
        axes = "".join(nib.aff2axcodes(np.asarray(scan.affine)))
        raise InputError(
            f"{volume.path} must hold axial slices along its third axis, and its axes are {axes}. "
            "Store it with the slices along the third axis."
        )
    return oriented.as_tensor().flatten()
