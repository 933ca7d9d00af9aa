"""What a person says of a mask: these voxels belong to a label, or do not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heatmask.errors import InputError

LABELS = range(1, 256)


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit; made by `click`, `stroke`, `box` or `lasso`.

    Attributes
    ----------
    voxels
        (n, 3), indices of the voxels that were touched; at least one.
    positive
        Whether they belong to the label.
    label
        From 1 to 255.
    exact
        Whether every single voxel is meant. Of a box or a lasso it is not: what lies inside is
        looked for there, and only there.
    """

    voxels: NDArray[np.intp]
    positive: bool = True
    label: int = 1
    exact: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no edit, with an `InputError`."""
        voxels = np.asarray(self.voxels)
        if voxels.ndim != 2 or voxels.shape[1] != 3 or not np.issubdtype(voxels.dtype, np.integer):
            raise InputError(
                "The voxels of an edit must be whole numbers (n, 3), got "
                f"{voxels.dtype} {voxels.shape}."
            )
        if not len(voxels):
            raise InputError("An edit must touch at least one voxel; this one is empty.")
        if self.label not in LABELS:
            raise InputError(f"A label must be from 1 to 255, got {self.label!r}.")
        object.__setattr__(self, "voxels", np.unique(voxels, axis=0).astype(np.intp))

    @classmethod
    def click(cls, voxel: Sequence[int], positive: bool = True, label: int = 1) -> "Edit":
        """Return a click on one voxel (3,)."""
        return cls(np.asarray([voxel]), positive, label)

    @classmethod
    def stroke(cls, painted: ArrayLike, positive: bool = True, label: int = 1) -> "Edit":
        """Return a stroke: the voxels that are not 0 of a mask (X, Y, Z), or indices (n, 3)."""
        return cls(_list_voxels(painted), positive, label)

    @classmethod
    def lasso(cls, painted: ArrayLike, positive: bool = True, label: int = 1) -> "Edit":
        """Return a filled outline, given as for `stroke`."""
        return cls(_list_voxels(painted), positive, label, exact=False)

    @classmethod
    def box(
        cls, start: Sequence[int], stop: Sequence[int], positive: bool = True, label: int = 1
    ) -> "Edit":
        """Return a box from the voxel `start` (3,) up to `stop` (3,), which is left out."""
        if len(start) != 3 or len(stop) != 3 or not np.all(np.less(start, stop)):
            raise InputError(
                f"A box must begin before it ends along each axis, got {[*start]} to {[*stop]}."
            )
        inside = np.argwhere(np.ones(np.subtract(stop, start), np.bool_)) + np.asarray(start)
        return cls(inside, positive, label, exact=False)

    @property
    def index(self) -> tuple[NDArray[np.intp], ...]:
        """The voxels as an index of an array (X, Y, Z)."""
        return tuple(self.voxels.T)

    def check_inside(self, shape: Sequence[int]) -> None:
        """Refuse voxels outside a scan of `shape` with an `InputError`."""
        outside = ((self.voxels < 0) | (self.voxels >= np.asarray(shape))).any(axis=1)
        if outside.any():
            raise InputError(
                "An edit must lie inside the scan, which has "
                f"{' x '.join(map(str, shape))} voxels; {int(outside.sum())} of {len(outside)} "
                f"voxels do not, the first is {self.voxels[outside][0].tolist()}."
            )


def _list_voxels(painted: ArrayLike) -> NDArray[np.intp]:
    array = np.asarray(painted)
    return np.argwhere(array) if array.ndim == 3 else array
