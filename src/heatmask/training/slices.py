"""Labelled slices in memory, prepared by the very steps that inference uses."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResizeWithPadOrCrop
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume
from heatmask.data.table import raise_problems
from heatmask.errors import HeatmaskError, InputError, reveal_reason


class SliceDataset(Dataset[dict[str, Tensor]]):
    """The labelled slices of every volume, with label and relative height in the stack.

    Parameters
    ----------
    volumes
        See `heatmask.data.labels.list_labelled_volumes`, all of whose slices have a label, and
        `heatmask.data.label_table.LabelTable`, where some may have none. An image of one slice
        is a volume too.
    preprocessing
        The bundle's preprocessing: ``{"image": path}`` to an RAS volume (C, X, Y, Z) under
        ``"image"``, and the scan as it is stored under ``"scan"``.
    image_size
        Rows and columns of a slice; larger slices are cropped around the centre, smaller
        ones padded with zeros.

    Raises
    ------
    InputError
        Volumes cannot be read, or their labels do not fit them; all of them are named.

    Attributes
    ----------
    images, labels, positions : Tensor
        (N, C, H, W), (N,) and (N,) of the labelled slices of all volumes, in order.
    places : Tensor
        (N, 2), the volume's number and that of the slice in it.

    Notes
    -----
    Axial slices: the labels belong to the file's third axis and follow it through the
    reorientation. Slices are held as float16 (2 bytes a pixel: 60 MB for 1,800 slices of
    128 x 128), all-zero slices included.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume | LabelledImage],
        preprocessing: Callable[[Mapping[str, Any]], Any],
        image_size: tuple[int, int] = (128, 128),
    ) -> None:
        fit = ResizeWithPadOrCrop((*image_size, -1))
        parts, problems = [], []
        reading = track(volumes, "Reading slices", disable=len(volumes) < 4)
        for number, volume in enumerate(reading):
            try:
                with reveal_reason():
                    prepared = preprocessing({"image": volume.image})
                labels = _orient_labels(volume, prepared["scan"])
            except HeatmaskError as error:
                problems.append((volume, error))
                continue
            stack = fit(prepared["image"]).as_tensor().movedim(-1, 0)
            positions = (torch.arange(len(stack)) + 0.5) / len(stack)
            kept = ~labels.isnan()
            places = torch.stack([torch.full((len(stack),), number), torch.arange(len(stack))], 1)
            parts.append((stack[kept].half(), labels[kept], positions[kept], places[kept]))
        if problems:
            _raise_unreadable(problems, len(volumes))
        if not parts:
            raise InputError(
                "There must be a labelled image in every split that is read, and none is there."
            )
        self.images, self.labels, self.positions, self.places = map(
            torch.cat, zip(*parts, strict=True)
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (C, H, W) float32, ``label`` and ``position``, both scalars."""
        return {
            "image": self.images[index].float(),
            "label": self.labels[index],
            "position": self.positions[index],
        }


def _raise_unreadable(
    problems: Sequence[tuple[LabelledVolume | LabelledImage, HeatmaskError]], count: int
) -> None:
    named = [f"{_say_lines(volume)}{error}" for volume, error in problems]
    if len(problems) == 1:
        raise InputError(named[0]) from problems[0][1]
    raise_problems(f"There are {len(problems)} of {count} images", named)


def _say_lines(volume: LabelledVolume | LabelledImage) -> str:
    if not isinstance(volume, LabelledImage):
        return ""
    return f"line{'s' * (len(volume.lines) > 1)} {_join_runs(volume.lines)}: "


def _join_runs(lines: Iterable[int]) -> str:
    """Name line numbers with runs together: "2-5, 9"."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _orient_labels(volume: LabelledVolume | LabelledImage, scan: MetaTensor) -> Tensor:
    """Return the slice labels in RAS order, NaN for none; refuse those that do not fit."""
    labels = _list_labels(volume, scan.shape[-1])
    axes = nib.aff2axcodes(np.asarray(scan.affine))
    if axes[2] not in "SI":
        raise InputError(
            f"{volume.path} must hold axial slices along its third axis, and its axes are "
            f"{''.join(axes)}. Store it with the slices along the third axis."
        )
    stored = torch.tensor([float("nan") if n is None else float(n) for n in labels])
    return stored if axes[2] == "S" else stored.flip(0)


def _list_labels(volume: LabelledVolume | LabelledImage, count: int) -> Sequence[int | None]:
    if isinstance(volume, LabelledImage):
        return volume.list_labels(count)
    if count != len(volume.slice_labels):
        raise InputError(
            f"Every slice of {volume.path} must have a label: the file has {count} slices along "
            f"its third axis, the table {len(volume.slice_labels)}."
        )
    return volume.slice_labels
