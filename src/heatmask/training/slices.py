"""Labelled slices, prepared by the very steps that inference uses."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
from heatmask.data.paths import is_picture
from heatmask.data.tables.csv_table import raise_problems
from heatmask.errors import HeatmaskError, InputError, reveal_reason
from heatmask.training.prepared import PreparedPictures, Preprocessing, prepare_pictures

Volume = LabelledVolume | LabelledImage


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
        Volumes cannot be read, or their labels do not fit them; the first of them are named.

    Attributes
    ----------
    images : Tensor or PreparedPictures
        (N, C, H, W), float16, of the labelled slices of all volumes, in order.
    labels, positions : Tensor
        (N,).
    places : Tensor
        (N, 2), the volume's number and that of the slice in it.
    patients : numpy.ndarray
        (N,), names.

    Notes
    -----
    Axial slices: the labels belong to the file's third axis and follow it through the
    reorientation. Slices of volumes are held in memory as float16 (2 bytes a pixel: 60 MB for
    1,800 slices of 128 x 128), all-zero slices included; pictures stay on disk.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        preprocessing: Preprocessing,
        image_size: Sequence[int] = (128, 128),
    ) -> None:
        if not volumes:
            raise InputError("There is no labelled image in this split.")
        pictures = all(isinstance(v.image, str) and is_picture(v.image) for v in volumes)
        read = _read_pictures if pictures else _read_volumes
        size = (image_size[0], image_size[1])  # configs give a list
        self.images, self.labels, self.positions, self.places = read(volumes, preprocessing, size)
        self.patients = np.array([volume.patient for volume in volumes])[self.places[:, 0]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (C, H, W) float32, ``label`` and ``position``, both scalars."""
        return {
            "image": self.images[index].float(),
            "label": self.labels[index],
            "position": self.positions[index],
        }


class _Slices(NamedTuple):
    images: Tensor | PreparedPictures
    labels: Tensor
    positions: Tensor
    places: Tensor


def _read_pictures(
    volumes: Sequence[Volume], preprocessing: Preprocessing, size: tuple[int, int]
) -> _Slices:
    paths = [str(volume.image) for volume in volumes]
    pictures, problems = prepare_pictures(paths, preprocessing, size)
    labels: list[int | None] = []
    for number, volume in enumerate(volumes):
        try:
            labels += volume.list_labels(1)
        except InputError as error:
            problems[number] = problems[number] or str(error)
    _refuse_unreadable(volumes, problems)
    places = torch.stack([torch.arange(len(volumes)), torch.zeros(len(volumes)).long()], 1)
    return _Slices(pictures, torch.tensor(labels).float(), torch.full((len(labels),), 0.5), places)


def _read_volumes(
    volumes: Sequence[Volume], preprocessing: Preprocessing, size: tuple[int, int]
) -> _Slices:
    fit = ResizeWithPadOrCrop((*size, -1))
    parts, problems = [], [""] * len(volumes)
    reading = track(volumes, "Reading slices", disable=len(volumes) < 4)
    for number, volume in enumerate(reading):
        try:
            with reveal_reason():
                prepared = preprocessing({"image": volume.image})
            labels = orient_labels(volume, prepared["scan"])
        except HeatmaskError as error:
            problems[number] = str(error)
            continue
        stack = fit(prepared["image"]).as_tensor().movedim(-1, 0)
        positions = (torch.arange(len(stack)) + 0.5) / len(stack)
        kept = ~labels.isnan()
        places = torch.stack([torch.full((len(stack),), number), torch.arange(len(stack))], 1)
        parts.append((stack[kept].half(), labels[kept], positions[kept], places[kept]))
    _refuse_unreadable(volumes, problems)
    return _Slices(*map(torch.cat, zip(*parts, strict=True)))


def _refuse_unreadable(volumes: Sequence[Volume], problems: Sequence[str]) -> None:
    named = [f"{_say_lines(v)}{p}" for v, p in zip(volumes, problems, strict=True) if p]
    if len(named) == 1:
        raise InputError(named[0])
    if named:
        raise_problems(f"There are {len(named)} of {len(volumes)} images", named)


def _say_lines(volume: Volume) -> str:
    if not volume.lines:
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


def orient_labels(volume: Volume, scan: MetaTensor) -> Tensor:
    """Return the labels of a scan's slices (N,) in RAS order, NaN for none.

    Raises
    ------
    InputError
        The scan has another number of slices than labels, or its third axis is not axial.
    """
    labels = volume.list_labels(scan.shape[-1])
    axes = nib.aff2axcodes(np.asarray(scan.affine))
    if axes[2] not in "SI":
        raise InputError(
            f"The slices of {volume.path} are not axial: its axes are {''.join(axes)}. Store it "
            "with the axial slices along the third axis."
        )
    stored = torch.tensor([float("nan") if n is None else float(n) for n in labels])
    return stored if axes[2] == "S" else stored.flip(0)
