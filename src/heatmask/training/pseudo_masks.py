"""Pseudo-masks of the training images, from the teacher's maps and the labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy import ndimage
from torch.nn import functional as F

from heatmask.files import write_atomically
from heatmask.masks.level_sets import average_level_sets, find_warm_level, select_warm
from heatmask.training.features import FeatureDataset

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]

_JUDGED = 60
"""How many images say whether a finding is bright or dark."""
_CORE = 0.5
"""Where the part begins that is compared with its surroundings."""


def learn_polarity(maps: Maps, data: FeatureDataset, seed: int = 0) -> str:
    """Return whether findings are ``"bright"`` or ``"dark"``, as training images with one show.

    The hot part of the teacher's map is compared with as many pixels around it, in standard
    deviations of the picture.
    """
    labels = data.labels.round().long().numpy()
    positive = np.flatnonzero(labels > 0)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(positive, min(_JUDGED, len(positive)), replace=False)
    contrasts = [_measure_contrast(maps[n, labels[n] - 1], data, int(n)) for n in chosen]
    return "bright" if np.mean(contrasts) >= 0 else "dark"


def draw_pseudo_masks(
    maps: Maps, data: FeatureDataset, polarity: str, warm_level: float, path: Path
) -> Masks:
    """Return pseudo-masks (N, K, side / 2, side / 2) whose border the picture draws.

    Slices of one volume are taken as a stack. Only those that show a class by their label have a
    mask of it; all others are empty.

    Parameters
    ----------
    maps
        (N, K, h, w), the teacher's.
    data
        The images.
    polarity, warm_level
        As of `heatmask.masks.level_sets.draw_level_sets`.
    path
        Where the masks are kept; a file that is there is read.
    """
    if path.is_file():
        return np.load(path)["masks"]
    masks = np.zeros((len(data), maps.shape[1], *data.pictures.shape[1:]), bool)
    for class_idx, members in track(list(list_stacks(data)), "Drawing pseudo-masks"):
        heat, inside = read_stack(maps[members, class_idx], data, members)
        level = find_warm_level(heat[inside], warm_level)
        picture = data.pictures[members].astype(np.float32)
        average = average_level_sets(heat, picture, level, polarity)
        masks[members, class_idx] = (average > 0.5) & inside
    with write_atomically(path) as draft:
        np.savez_compressed(draft, masks=masks)
    return masks


def list_stacks(data: FeatureDataset) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Give each class of each volume, and the numbers of the slices that show it, in order."""
    labels, volumes = data.labels.round().long().numpy(), data.places[:, 0].numpy()
    for volume in np.unique(volumes):
        for label in np.unique(labels[volumes == volume]):
            if label > 0:
                yield int(label) - 1, np.flatnonzero((volumes == volume) & (labels == label))


def read_stack(
    maps: Maps, data: FeatureDataset, members: NDArray[np.int64]
) -> tuple[Maps, NDArray[np.bool_]]:
    """Return the heat of some images (n, h, w) on the pictures' grid, and where these are."""
    size = data.pictures.shape[1:]
    heat = enlarge(maps, size)
    factor = size[0] // data.inside.shape[1]
    inside = data.inside[members].repeat(factor, axis=1).repeat(factor, axis=2)
    return heat, inside


def enlarge(maps: Maps, size: tuple[int, ...]) -> Maps:
    """Interpolate maps (N, h, w) to a grid of another size."""
    return F.interpolate(torch.from_numpy(maps)[:, None], size=size, mode="bilinear")[:, 0].numpy()


def _measure_contrast(heat: Maps, data: FeatureDataset, number: int) -> float:
    (hot,), (inside,) = read_stack(heat[None], data, np.array([number]))
    part = select_warm(hot, find_warm_level(hot[inside], _CORE)) & inside
    picture = data.pictures[number].astype(np.float32)
    if not part.any() or part.all():
        return 0.0
    distance = np.where(inside & ~part, ndimage.distance_transform_edt(~part), np.inf)
    ring = distance <= np.sort(distance, axis=None)[part.sum()]
    return float((picture[part].mean() - picture[ring].mean()) / (picture[inside].std() + 1))
