"""Features of a frozen encoder, computed once for all images and their mirror images.

What is trained on a frozen encoder sees the same features in every epoch. They lie on disk,
460 kB an image, and are read as they are needed.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from heatmask.files import write_atomically
from heatmask.networks.pretrained import CHANNELS, PretrainedEncoder
from heatmask.networks.self_trained import show_upright
from heatmask.training.slices import SliceDataset

STRIDES = (4, 8, 16, 32)
"""Of the encoder's stages that are kept, all but the finest; the first is averaged to stride 8."""
GRID = 8
"""Stride of `View.inside`, and of the maps that are made from features."""

_BATCH = 16
_SAMPLE = 256
"""How many images the features are standardised by."""
_FAR = 8.0
"""Standard deviations that features are clipped at."""


class View(NamedTuple):
    """Features of images; where (B, 1, h, w) these are not black, and where heads are to look."""

    features: list[Tensor]
    inside: Tensor
    searched: Tensor


class FeatureDataset(Dataset[dict[str, Any]]):
    """Features of labelled images, in the order of a `heatmask.training.slices.SliceDataset`.

    They are computed when it is made, as far as the folder does not hold them: a run that was
    stopped goes on there.

    Parameters
    ----------
    slices
        Images (N, 3, X, Y) in [0, 1], with labels and positions.
    extractor
        Standardised; on the device where it is to run.
    folder
        Where the features are kept; of one extractor and one set of images.
    side
        Pixels of the square that an image is shown in.
    mirror
        Whether an item is the mirror image by chance: for training.

    Attributes
    ----------
    pictures : numpy.ndarray
        (N, side / 2, side / 2), uint8, upright: what borders are drawn by.
    inside : numpy.ndarray
        (N, side / 8, side / 8), bool: the box around what is not black.
    searched : numpy.ndarray
        Likewise: the places that heads are to look at; all inside until `search` says which.
    labels, positions, places, patients
        As of the slices.
    """

    def __init__(
        self,
        slices: SliceDataset,
        extractor: "FeatureExtractor",
        folder: Path,
        side: int,
        mirror: bool = False,
    ) -> None:
        self.labels, self.positions = slices.labels, slices.positions
        self.places, self.patients = slices.places, slices.patients
        self.side, self.mirror = side, mirror
        self._open(folder, len(slices))
        done = folder / "done.json"
        first = json.loads(done.read_text(encoding="utf-8")) if done.is_file() else 0
        starts = range(first, len(slices), _BATCH)
        for start in track(starts, "Computing features", disable=not starts):
            square = show_upright(slices.images[start : start + _BATCH].float(), side)
            self._compute(square, extractor, slice(start, start + len(square)))
            with write_atomically(done) as draft:
                draft.write_text(str(start + len(square)), encoding="utf-8")
        self.searched: NDArray[np.bool_] = self.inside

    def _open(self, folder: Path, count: int) -> None:
        side = self.side
        self.pictures = _open_array(
            folder / "pictures.npy", (count, side // 2, side // 2), np.uint8
        )
        self.inside = _open_array(folder / "inside.npy", (count, side // GRID, side // GRID), bool)
        self.stages = []
        for stride, channels in zip(STRIDES, CHANNELS[1:], strict=True):
            grid = side // max(stride, GRID)
            shape = (2, count, channels, grid, grid)
            self.stages.append(_open_array(folder / f"stride{stride}.npy", shape, np.float16))

    @torch.no_grad()
    def _compute(self, square: Tensor, extractor: "FeatureExtractor", place: slice) -> None:
        device = next(extractor.parameters()).device
        for mirrored, shown in enumerate((square, square.flip(3))):
            for kept, found in zip(self.stages, extractor(shown.to(device)), strict=True):
                kept[mirrored, place] = found.half().cpu().numpy()
        picture = F.avg_pool2d(square[:, 1], 2)  # the slice itself, between its neighbours
        self.pictures[place] = (picture * 255).round().byte().numpy()
        self.inside[place] = find_inside(square)[:, 0].numpy()

    def search(self, places: NDArray[np.bool_]) -> None:
        """Let heads look at these places (N, side / 8, side / 8) alone."""
        self.searched = places

    @property
    def searches(self) -> bool:
        """Whether heads are to look at some places alone."""
        return self.searched is not self.inside

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``image``, a `View`, ``label`` and ``position``."""
        mirrored = int(torch.randint(2, ())) if self.mirror else 0
        return {
            "image": self.take(mirrored, index),
            "label": self.labels[index],
            "position": self.positions[index],
        }

    def take(self, mirrored: int, index: Any) -> View:
        """Return what is known of an image or a slice of them, with 1 of their mirror images."""
        features = [torch.from_numpy(np.array(stage[mirrored, index])) for stage in self.stages]
        step = -1 if mirrored else 1
        grids = (
            torch.from_numpy(np.array(grid[index][..., None, :, ::step]))
            for grid in (self.inside, self.searched)
        )
        return View([stage.float() for stage in features], *grids)


class FeatureExtractor(nn.Module):
    """An encoder's features at `STRIDES`, standardised and clipped at 8 standard deviations."""

    def __init__(self, encoder: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.standardise = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c in CHANNELS[1:])
        self.eval()

    def forward(self, square: Tensor) -> list[Tensor]:
        """Return the features of upright images (B, 3, side, side)."""
        found = zip(self.standardise, self._extract(square), strict=True)
        return [standardise(stage).clamp(-_FAR, _FAR) for standardise, stage in found]

    @torch.no_grad()
    def fit(self, slices: SliceDataset, side: int) -> None:
        """Take mean and variance of the features from a sample of the training images."""
        step = max(1, len(slices) // _SAMPLE)
        parts = torch.arange(0, len(slices), step)[:_SAMPLE].split(_BATCH)
        device = next(self.parameters()).device
        squares = (show_upright(slices.images[part].float(), side).to(device) for part in parts)
        stages = zip(*(self._extract(square) for square in squares), strict=True)
        for layer, found in zip(self.standardise, stages, strict=True):
            variance, mean = torch.var_mean(torch.cat(found), dim=(0, 2, 3))
            layer.load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)

    def _extract(self, square: Tensor) -> list[Tensor]:
        _, finest, *others = self.encoder(square)
        return [F.avg_pool2d(finest, GRID // STRIDES[0]), *others]


def find_inside(square: Tensor) -> Tensor:
    """Return which places of the grid (B, 1, side / 8, side / 8) hold the picture.

    That is the box around what is not black: no finding lies in the black beyond it.
    """
    lit = F.max_pool2d(square.amax(1, keepdim=True), GRID) > 0
    return _fill_between(lit.any(3, keepdim=True), 2) & _fill_between(lit.any(2, keepdim=True), 3)


def _fill_between(hits: Tensor, axis: int) -> Tensor:
    """Fill what lies between the first and the last hit along an axis."""
    counts = hits.int()
    before, after = counts.cumsum(axis), counts.flip(axis).cumsum(axis).flip(axis)
    return (before > 0) & (after > 0)


def _open_array(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if not path.is_file():
        with write_atomically(path) as draft:
            open_memmap(draft, "w+", dtype, shape).flush()
    return open_memmap(path, mode="r+")
