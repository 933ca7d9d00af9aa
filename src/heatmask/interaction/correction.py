"""A mask that is being corrected: edits in, a new mask out, each of them undone and done again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from skimage.filters import threshold_otsu

from heatmask.errors import InputError, OptionError
from heatmask.geometry import measure_spacing_mm
from heatmask.interaction.edits import Edit
from heatmask.interaction.neighbourhood import (
    REACH_MM,
    RIM_MM,
    Neighbourhood,
    crop_around,
    find_core,
    measure_distance_mm,
)
from heatmask.interaction.segment import segment
from heatmask.interaction.statements import Statements

UNDOABLE = 50
"""Steps that can be taken back; of earlier ones what was said is kept, not the voxels."""


@dataclass(frozen=True, eq=False)
class _Step:
    """An edit, or None for a reset, and what lay in its box before and after it."""

    edit: Edit | None
    box: tuple[slice, ...]
    before: NDArray[np.uint8] | None
    after: NDArray[np.uint8]


class Correction:
    """The state of one scan's correction.

    Parameters
    ----------
    scan
        (X, Y, Z) or (C, X, Y, Z), of which the first channel is looked at; any intensity unit.
    spacing_mm
        (3,), edges of a voxel; by default those of the scan's affine, which a MetaTensor has.
    heatmap
        On the scan's grid: (X, Y, Z), or (K, X, Y, Z) with channel k for label k + 1; any scale,
        or a pseudo-mask. The first positive edit on an empty place brings the piece of it that it
        touches. None for none.
    mask
        Label map (X, Y, Z) or (1, X, Y, Z) of whole numbers to begin with; None for an empty one.

    Raises
    ------
    InputError
        What came does not lie on the scan's grid, or is not finite.
    """

    def __init__(
        self,
        scan: Any,
        spacing_mm: Sequence[float] | None = None,
        heatmap: Any = None,
        mask: ArrayLike | None = None,
    ) -> None:
        self.spacing_mm = _find_spacing(scan, spacing_mm)
        scan = _check_finite(np.asarray(scan, np.float32), "scan")
        scan = scan[0] if scan.ndim == 4 else scan
        if scan.ndim != 3 or not scan.size:
            raise InputError(f"A scan must be (X, Y, Z) or (C, X, Y, Z), got {scan.shape}.")
        self._scan, self.shape = normalise(scan), scan.shape
        self._hot = self._read_heatmap(heatmap)
        self._start = self._read_mask(mask)
        self._mask = self._start.copy()
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._statements = Statements(self.shape)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """A copy of the label map (X, Y, Z) as it is now."""
        return self._mask.copy()

    @property
    def n_steps(self) -> int:
        """How many edits and resets have been made and not been taken back."""
        return len(self._done)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits since the last reset, the first one first."""
        edits = [step.edit for step in self._done]
        begin = max((k + 1 for k, edit in enumerate(edits) if edit is None), default=0)
        return tuple(edit for edit in edits[begin:] if edit is not None)

    def apply(self, edit: Edit, reach_mm: float = REACH_MM) -> NDArray[np.uint8]:
        """Correct the mask and return it.

        Who listens to `heatmask.progress` may stop it by raising; the mask is then as before.

        The edit's own voxels are as it says, and those of earlier edits as they said where this
        one does not contradict them. A positive edit adds, a negative one takes away. Other labels
        keep their voxels, but for those that a positive edit touches.

        Parameters
        ----------
        reach_mm
            No voxel further away from the edit than this is changed; outside a box or a lasso
            none at all.

        Raises
        ------
        InputError
            It lies outside the scan.
        OptionError
            The reach is no length.
        """
        if not 0 <= reach_mm < np.inf:
            raise OptionError(f"reach_mm must be a length of 0 mm or more, got {reach_mm}.")
        edit.check_inside(self.shape)
        margin_mm = reach_mm if edit.exact else RIM_MM
        box = crop_around(edit, self.shape, self.spacing_mm, margin_mm)
        self._statements.add(edit)
        try:
            answer = self._answer(edit, box, reach_mm)
        except BaseException:
            self._statements = Statements(self.shape, self.edits)
            raise
        return self._change(edit, box, answer)

    def undo(self) -> NDArray[np.uint8]:
        """Take back the last edit or reset, if there is one, and return the mask.

        The last `UNDOABLE` of them can be taken back.
        """
        if self._done and (before := self._done[-1].before) is not None:
            step = self._done.pop()
            self._mask[step.box] = before
            self._undone.append(step)
            self._statements = Statements(self.shape, self.edits)
        return self.mask

    def redo(self) -> NDArray[np.uint8]:
        """Do again what was taken back last, if there is anything, and return the mask."""
        if self._undone:
            step = self._undone.pop()
            self._mask[step.box] = step.after
            self._done.append(step)
            self._statements = Statements(self.shape, self.edits)
        return self.mask

    def reset(self, mask: ArrayLike | None = None) -> NDArray[np.uint8]:
        """Begin anew with the first mask or another one, and return it; undo takes it back."""
        after = self._start if mask is None else self._read_mask(mask)
        self._statements = Statements(self.shape)
        return self._change(None, (slice(None),) * 3, after)

    def _change(
        self, edit: Edit | None, box: tuple[slice, ...], after: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        self._done.append(_Step(edit, box, self._mask[box].copy(), after))
        if len(self._done) > UNDOABLE:
            old = self._done[-UNDOABLE - 1]
            self._done[-UNDOABLE - 1] = _Step(old.edit, old.box, None, np.empty(0, np.uint8))
        self._undone.clear()
        self._mask[box] = after
        return self.mask

    def _answer(self, edit: Edit, box: tuple[slice, ...], reach_mm: float) -> NDArray[np.uint8]:
        labels = self._mask[box]
        touched = np.zeros(labels.shape, np.bool_)
        touched[tuple((edit.voxels - [part.start for part in box]).T)] = True
        core = touched if edit.exact else find_core(touched, self.spacing_mm)
        taken = np.unique(labels[touched]) if edit.positive and edit.exact else []
        near = Neighbourhood(
            scan=self._scan[box],
            hot=self._hot.get(edit.label, np.zeros(self.shape, np.bool_))[box],
            mask=labels == edit.label,
            said=self._statements.find(edit.label, box),
            core=core,
            free=np.isin(labels, [0, edit.label, *taken])
            & (measure_distance_mm(touched, self.spacing_mm) <= (reach_mm if edit.exact else 0)),
            positive=edit.positive,
            spacing_mm=self.spacing_mm,
        )
        rest = np.where(near.mask, 0, labels)
        return np.where(segment(near), edit.label, rest).astype(np.uint8)

    def _read_heatmap(self, heatmap: Any) -> dict[int, NDArray[np.bool_]]:
        """Return by label what is hot: above Otsu's threshold."""
        if heatmap is None:
            return {}
        maps = _check_finite(np.asarray(heatmap, np.float32), "heatmap")
        maps = maps[None] if maps.ndim == 3 else maps
        self._check_grid(maps.shape[1:], "heatmap")
        return {k: one > threshold_otsu(one.ravel()) for k, one in enumerate(maps, start=1)}

    def _read_mask(self, mask: ArrayLike | None) -> NDArray[np.uint8]:
        if mask is None:
            return np.zeros(self.shape, np.uint8)
        labels = np.asarray(mask)
        labels = labels[0] if labels.ndim == 4 and len(labels) == 1 else labels
        self._check_grid(labels.shape, "mask")
        whole = np.rint(labels)
        if not np.array_equal(whole, labels) or whole.min() < 0 or whole.max() > 255:
            raise InputError("A mask must hold whole numbers from 0 to 255.")
        return whole.astype(np.uint8)

    def _check_grid(self, shape: Sequence[int], name: str) -> None:
        if tuple(shape) != self.shape:
            raise InputError(
                f"The {name} must lie on the scan's grid of {' x '.join(map(str, self.shape))} "
                f"voxels, got {' x '.join(map(str, shape))}."
            )


def normalise(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a scan in [0, 1]: its percentiles 1 and 99.5 above its least value."""
    values = array[array > array.min()]
    if not values.size:
        return np.zeros_like(array)
    low, high = np.percentile(values, (1, 99.5))
    return np.clip((array - low) / max(high - low, 1e-6 * abs(high), 1e-30), 0, 1)


def _find_spacing(scan: Any, spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
    if spacing_mm is None:
        if not isinstance(scan, MetaTensor):
            raise InputError("spacing_mm must be given with a scan that has no affine.")
        spacing_mm = measure_spacing_mm(np.asarray(scan.affine)).tolist()
    spacing = tuple(map(float, spacing_mm))
    if len(spacing) != 3 or not all(0 < edge < np.inf for edge in spacing):
        raise InputError(f"spacing_mm must be three lengths above 0, got {spacing}.")
    return spacing


def _check_finite(array: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(array).all():
        raise InputError(f"The {name} must be finite; it holds NaN or infinity.")
    return array
