"""Where an image looks like no other: what heads are to look at when every image has a finding.

With no image known to be without one, a classifier may read its classes off healthy tissue. But
what is healthy looks alike in the same place of other patients' images, and a finding does not. An
image's own label plays no part in its rarity.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from heatmask.errors import InputError
from heatmask.files import write_atomically
from heatmask.training.features import STRIDES, FeatureDataset, View

Maps = NDArray[np.float32]
Places = NDArray[np.bool_]

_STAGES = {8: 1.0, 16: 1.0, 32: 0.7}
"""Strides of the features that are compared, with their weights."""
_COMPONENTS = 48
_FITTED = 200
"""How many images the principal components are found on."""
_LAYOUT = 8
"""Rows and columns of the grid on which images are compared as a whole."""
_SIMILAR = 8
"""How many images of each class a place is looked for in."""
_OF_ONE_PATIENT = 2
"""How many of these may be of one patient."""
_NEAREST = 5
"""How many of these the distance is the mean of."""
_COORDINATES = 2.0
"""Weight of half an image's side, in typical norms of the features."""
_BLUR = 0.6
_RAREST = 0.1
"""Share of an image's places that heads look at."""
_BATCH = 64


class RarityMeter:
    """Measures how far each place of an image is from the nearest of similar training images.

    Similar are those, or their mirror images, whose features agree most as a whole: as many of
    each class, none of the same patient. Coordinates count among the features, so that a place is
    looked for around where it lies.

    Parameters
    ----------
    data
        The training images.

    Raises
    ------
    InputError
        All are of one patient.
    """

    def __init__(self, data: FeatureDataset) -> None:
        if len(np.unique(data.patients)) < 2:
            raise InputError(
                "Every training image has a finding. What is healthy is then learnt from other "
                f"patients, and all images are of the patient '{data.patients[0]}'. Add images "
                "without a finding, or of more patients."
            )
        self.data = data
        step = max(1, len(data) // _FITTED)
        sample = join_stages(data.take(0, slice(None, None, step)))[:, ::3].flatten(0, 1)
        self.mean = sample.mean(0)
        self.axes = torch.linalg.eigh(torch.cov(sample.T)).eigenvectors[:, -_COMPONENTS:]
        self.scale = ((sample - self.mean) @ self.axes).pow(2).sum(1).mean().sqrt()
        # Of the memory every second row and column; image n is entry n, its mirror image N + n.
        height, width = data.inside.shape[1:]
        odd = np.zeros((height, width), bool)
        odd[1::2, 1::2] = True
        self.kept = torch.from_numpy(np.flatnonzero(odd))
        layouts, places = [], []
        for mirrored in (0, 1):
            for start in range(0, len(data), _BATCH):
                found = self._describe(data.take(mirrored, slice(start, start + _BATCH)))
                layouts.append(encode_layout(found, (height, width)))
                places.append(found[:, self.kept].half())
        self.layouts, self.places = torch.cat(layouts), torch.cat(places)
        self.known = torch.ones(self.places.shape[:2], dtype=torch.bool)

    def forget(self, places: Places) -> None:
        """Compare no longer with these places (N, h, w) of the training images."""
        both = np.concatenate([places, places[:, :, ::-1]]).reshape(len(self.known), -1)
        self.known = ~torch.from_numpy(both)[:, self.kept]

    def measure(self, data: FeatureDataset, path: Path) -> Maps:
        """Return the rarity (N, h, w) of the places of images, 0 beyond them.

        It is kept at `path`; a file that is there is read.
        """
        if path.is_file():
            return np.load(path)
        rarity = np.zeros(data.inside.shape, np.float32)
        for number in track(range(len(data)), "Looking for what is rare"):
            own = self._describe(data.take(0, slice(number, number + 1)))
            similar = self._find_similar(own, data.patients[number])
            distances = torch.cdist(own, self.places[similar].float())
            distances.masked_fill_(~self.known[similar][:, None], torch.inf)
            nearest = distances.amin(2).sort(0).values[:_NEAREST].mean(0)
            smooth = ndimage.gaussian_filter(nearest.numpy().reshape(rarity.shape[1:]), _BLUR)
            rarity[number] = np.where(data.inside[number], smooth, 0)
        with write_atomically(path) as draft:
            np.save(draft, rarity)
        return rarity

    def _describe(self, view: View) -> Tensor:
        """Return components and coordinates (B, places, components + 2) of images."""
        height, width = view.inside.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        at = torch.stack([rows / (height / 2), columns / (width / 2)], 2).flatten(0, 1)
        reduced = (join_stages(view) - self.mean) @ self.axes
        at = (at * _COORDINATES * self.scale).expand(len(reduced), -1, -1)
        return torch.cat([reduced, at], 2)

    def _find_similar(self, own: Tensor, patient: str) -> list[int]:
        count, layout = len(self.data), encode_layout(own, self.data.inside.shape[1:])
        order = (self.layouts @ layout[0]).argsort(descending=True).tolist()
        found, classes, patients = [], Counter[int](), Counter[str]()
        labels, names = self.data.labels.int().tolist(), self.data.patients
        for entry in order:
            label, name = labels[entry % count], names[entry % count]
            full = classes[label] == _SIMILAR or patients[name] == _OF_ONE_PATIENT
            if name != patient and not full:
                classes[label] += 1
                patients[name] += 1
                found.append(entry)
        return found


def join_stages(view: View) -> Tensor:
    """Return the features of all stages (B, places, channels) on the grid of stride 8."""
    parts, size = [], view.inside.shape[2:]
    for stride, weight in _STAGES.items():
        stage = view.features[STRIDES.index(stride)]
        if stage.shape[2:] == size:  # as smooth as the others
            stage = F.avg_pool2d(stage, 3, 1, 1, count_include_pad=False)
        stage = F.interpolate(stage, size=size, mode="bilinear")
        parts.append(stage * weight / stage.shape[1] ** 0.5)
    return torch.cat(parts, 1).flatten(2).transpose(1, 2)


def encode_layout(described: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return what images (B, places, components + 2) look like as a whole, vectors of length 1."""
    maps = described[..., :-2].transpose(1, 2).unflatten(2, size)
    flat = F.adaptive_avg_pool2d(maps, _LAYOUT).flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True))


def mark_rarest(rarity: Maps, inside: Places) -> Places:
    """Return the rarest tenth of the places inside each image (N, h, w)."""
    levels = [np.quantile(r[i], 1 - _RAREST) for r, i in zip(rarity, inside, strict=True)]
    return inside & (rarity >= np.reshape(levels, (-1, 1, 1)))


def weigh_maps(maps: Maps, rarity: Maps) -> Maps:
    """Return the third power of rarity times heads' maps (N, K, h, w) as sigmoids.

    Before that 0 is the median of each product, and 1 its peak.
    """
    centred = maps - np.median(maps, axis=(2, 3), keepdims=True)
    product = rarity[:, None] / (1 + np.exp(-centred))
    above = (product - np.median(product, axis=(2, 3), keepdims=True)).clip(min=0)
    return (above / above.max(axis=(2, 3), keepdims=True).clip(min=1e-6)) ** 3
