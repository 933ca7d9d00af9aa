"""One image and one object in it, as a client of nnInteractive edits it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from heatmask.errors import InputError
from heatmask.interaction import Correction, Edit
from heatmask.interaction.correction import UNDOABLE
from heatmask.interaction.neighbourhood import REACH_MM, find_core

_TOUCHING = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True, eq=False)
class Prior:
    """What a model says of an image, on its grid.

    Attributes
    ----------
    heatmap
        (K, X, Y, Z), raw scale.
    mask
        (X, Y, Z), the pseudo-mask: 0, and k + 1 for class k.
    """

    heatmap: NDArray[np.float32]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Change:
    """What a client does not have yet: the box, and its voxels (0 or 1)."""

    box: tuple[slice, ...]
    voxels: NDArray[np.uint8]


class Editor:
    """An image and the mask of one object, from its first edit on.

    A positive first edit that touches pieces of the pseudo-mask begins with these. Where it touches
    none, and without a model, the object begins empty; and what a flat box or lasso finds in its
    slice grows into the others, as clients expect.

    Parameters
    ----------
    scan
        (1, X, Y, Z).
    prior
        Of a model; None for none.

    Raises
    ------
    InputError
        The scan is not finite.
    """

    def __init__(self, scan: MetaTensor, prior: Prior | None = None) -> None:
        self._prior, self._label = prior, 1
        self._correction = Correction(scan, heatmap=None if prior is None else prior.heatmap)
        self._start = self._correction.mask
        self._shown = np.zeros(self.shape, np.bool_)
        self._steps: deque[int] = deque(maxlen=UNDOABLE // 2)  # of two steps each at most

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z)."""
        return self._correction.shape

    def apply(self, edit: Edit) -> None:
        """Correct the mask.

        Raises
        ------
        InputError
            The edit lies outside the image.
        """
        edit.check_inside(self.shape)
        is_first = edit.positive and not (self._steps or self._start.any())
        before = self._correction.n_steps
        try:
            self._steps.append(self._begin(edit) if is_first else self._correct(edit))
        except BaseException:
            while self._correction.n_steps > before:
                self._correction.undo()
            raise

    def undo(self) -> bool:
        """Take back the last edit, of some 25; return whether there was one."""
        if not self._steps:
            return False
        for _ in range(self._steps.pop()):
            self._correction.undo()
        return True

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Begin another object: an empty one, or with a mask (X, Y, Z) that is the client's now.

        Raises
        ------
        InputError
            The mask lies on another grid.
        """
        mask = np.zeros(self.shape, np.bool_) if mask is None else np.asarray(mask) != 0
        self._check_grid("segmentation", mask.shape)
        self._label = self._choose_label(np.nonzero(mask)) if mask.any() else 1
        self._correction.reset(mask * np.uint8(self._label))
        self._start, self._shown = self._correction.mask, mask
        self._steps.clear()

    def clear_buffer(self, shape: Sequence[int]) -> None:
        """Take note that the client's mask is empty.

        Raises
        ------
        InputError
            It lies on another grid.
        """
        self._check_grid("target buffer", shape)
        self._shown = np.zeros(self.shape, np.bool_)

    def find_change(self) -> Change | None:
        """Return what the client does not have yet; None if it has all."""
        mask = self._correction.mask == self._label
        (box,) = ndimage.find_objects((mask != self._shown).astype(np.uint8)) or [None]
        return None if box is None else Change(box, mask[box].astype(np.uint8))

    def note_shown(self, change: Change) -> None:
        """Take note that the client has a change."""
        self._shown[change.box] = change.voxels

    def _begin(self, edit: Edit) -> int:
        """Apply the first edit; return in how many steps."""
        pieces = self._find_pieces(edit)
        if not pieces.any():
            return self._correct(edit) + self._grow(edit)
        self._correction.reset(pieces * np.uint8(self._label))
        # A click or a stroke has named them; a box or a lasso may hold more than they do
        return 1 + self._correct(edit, reach_mm=0 if edit.exact else REACH_MM)

    def _correct(self, edit: Edit, reach_mm: float = REACH_MM) -> int:
        self._correction.apply(replace(edit, label=self._label), reach_mm)
        return 1

    def _grow(self, edit: Edit) -> int:
        """Let what was found in a flat box or lasso, the object in one slice, grow beyond it."""
        start, stop = edit.voxels.min(axis=0), edit.voxels.max(axis=0) + 1
        found = self._correction.mask[tuple(map(slice, start, stop))] > 0
        if edit.exact or min(found.shape) > 1 or not found.any():
            return 0
        core = np.argwhere(find_core(found, self._correction.spacing_mm)) + start
        return self._correct(Edit.stroke(core))

    def _find_pieces(self, edit: Edit) -> NDArray[np.bool_]:
        """Return the pieces of the pseudo-mask that an edit touches, all of one class."""
        if self._prior is None:
            return np.zeros(self.shape, np.bool_)
        touched = self._prior.mask[edit.index]
        counts = np.bincount(touched)[1:]
        self._label = 1 + int(counts.argmax()) if counts.any() else self._choose_label(edit.index)
        numbers, _ = ndimage.label(self._prior.mask == self._label, _TOUCHING)
        return np.isin(numbers, np.setdiff1d(numbers[edit.index], [0]))

    def _choose_label(self, index: tuple[NDArray[np.intp], ...]) -> int:
        """Return the class whose heatmap is the highest at some voxels."""
        if self._prior is None:
            return 1
        return 1 + int(np.argmax([one[index].mean() for one in self._prior.heatmap]))

    def _check_grid(self, name: str, shape: Sequence[int]) -> None:
        if tuple(shape) != self.shape:
            raise InputError(
                f"The {name} must have the image's {' x '.join(map(str, self.shape))} voxels, "
                f"got {' x '.join(map(str, shape))}."
            )
