"""Pictures of a user's own that look alike: with other labels, or on both sides of the split."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from heatmask.data.label_table import LabelTable
from heatmask.data.tables.label_rows import LabelRow
from heatmask.training.prepared import PreparedPictures

logger = logging.getLogger(__name__)

_SIDE = 48
_ALIKE = 0.95
"""Correlation of two pictures of 48 x 48 pixels from which on they count as one."""
_PART = 512
_NAMED = 3


def warn_of_lookalikes(table: LabelTable, pictures: PreparedPictures | torch.Tensor) -> None:
    """Log which pictures look alike and should not: labels apart, or train and another split.

    Parameters
    ----------
    table
        Its rows have one picture each, in the order of `pictures`.
    pictures
        (N, C, H, W), prepared.
    """
    pairs = [(table.rows[a], table.rows[b]) for a, b in find_lookalikes(pictures)]
    apart = [pair for pair in pairs if pair[0].label != pair[1].label]
    if apart:
        logger.warning(
            "%d pair(s) of pictures look alike and have different labels: %s. One of the labels "
            "is wrong, or the picture shows both; correct the table or leave them out.",
            len(apart), _name(apart, table),
        )  # fmt: skip
    across = [pair for pair in pairs if "train" in {row.split for row in pair} != {"train"}]
    if across:
        logger.warning(
            "%d pair(s) of pictures look alike, one in train and one not: %s. Scores will look "
            "better than they are; say what belongs together in the column patient.",
            len(across), _name(across, table),
        )  # fmt: skip


def find_lookalikes(pictures: PreparedPictures | torch.Tensor) -> list[tuple[int, int]]:
    """Return the pairs (a, b), a < b, of pictures (N, C, H, W) that are nearly one."""
    small = np.concatenate(
        [_shrink(pictures[start : start + _PART]) for start in range(0, len(pictures), _PART)]
    )
    found = []
    for start in range(0, len(small), _PART):
        alike = small[start : start + _PART] @ small.T > _ALIKE
        found += [(start + a, b) for a, b in np.argwhere(alike).tolist() if start + a < b]
    return found


def _shrink(pictures: torch.Tensor) -> NDArray[np.float32]:
    """Return pictures as vectors of mean 0 and length 1; of a flat one all are 0.

    Without the black around them, which would make all long pictures alike.
    """
    grey = pictures[:, pictures.shape[1] // 2].float()
    flat = torch.cat([_cut_black_off(picture) for picture in grey]).flatten(1).numpy()
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)


def _cut_black_off(picture: torch.Tensor) -> torch.Tensor:
    """Return what a picture (H, W) shows, as (1, `_SIDE`, `_SIDE`)."""
    for axis in (0, 1):
        lit = picture.any(1 - axis).nonzero()
        if len(lit):
            first, last = int(lit[0]), int(lit[-1])
            picture = picture.narrow(axis, first, last - first + 1)
    return F.adaptive_avg_pool2d(picture[None], _SIDE)


def _name(pairs: Sequence[tuple[LabelRow, LabelRow]], table: LabelTable) -> str:
    named = "; ".join(_describe(pair, table) for pair in pairs[:_NAMED])
    return named + f"; and {len(pairs) - _NAMED} more" * (len(pairs) > _NAMED)


def _describe(pair: Iterable[LabelRow], table: LabelTable) -> str:
    names = ("none", *table.class_names)
    return " and ".join(
        f"line {row.line} {row.path.name} ({names[row.label]}, {row.split})" for row in pair
    )
