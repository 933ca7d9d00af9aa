"""What has been said of each voxel so far; of two edits that differ the later counts."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from heatmask.interaction.edits import Edit

IN, UNKNOWN, OUT = 1, 0, -1


class Statements:
    """The exact edits of a scan of `shape`, voxel by voxel."""

    def __init__(self, shape: Sequence[int], edits: Iterable[Edit] = ()) -> None:
        self._placed = np.zeros(shape, np.uint8)
        self._refused: dict[int, NDArray[np.bool_]] = {}
        for edit in edits:
            self.add(edit)

    def add(self, edit: Edit) -> None:
        """Take note of an edit; a box or a lasso says nothing of a single voxel."""
        if not edit.exact:
            return
        refused = self._refused.setdefault(edit.label, np.zeros(self._placed.shape, np.bool_))
        refused[edit.index] = not edit.positive
        if edit.positive:
            self._placed[edit.index] = edit.label
        else:
            there = self._placed[edit.index]
            self._placed[edit.index] = np.where(there == edit.label, 0, there)

    def find(self, label: int, box: tuple[slice, ...]) -> NDArray[np.int8]:
        """Return `IN`, `OUT` or `UNKNOWN` of a label for each voxel of a box."""
        placed = self._placed[box]
        found = np.where(placed == label, IN, np.where(placed, OUT, UNKNOWN)).astype(np.int8)
        if label in self._refused:
            found[self._refused[label][box]] = OUT
        return found
