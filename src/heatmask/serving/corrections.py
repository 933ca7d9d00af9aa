"""Corrections under way, each of one client: a viewer sends all it has, here is what is new in it.

3D Slicer's scribbles come with every segment and all strokes so far, its clicks with all clicks so
far. An edit must count once, and the next one must know of it: so the last answer is kept.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import InputError
from heatmask.interaction import Correction, Edit
from heatmask.interaction.correction import UNDOABLE
from heatmask.progress import Listener, listen

FOREGROUND, BACKGROUND = 1, -1
EDIT_S = 20.0
"""The longest that an edit may take; a usual one takes less than a second."""
Point = tuple[int, ...]


@contextmanager
def limit_edit(progress: Listener | None = None, seconds: float = EDIT_S) -> Iterator[None]:
    """Stop an edit inside the block that takes too long; the mask is then as before it.

    Parameters
    ----------
    progress
        Called now and then; it may raise, to stop the edit for another reason.

    Raises
    ------
    InputError
        It took too long.
    """
    deadline = time.monotonic() + seconds

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)
        if time.monotonic() > deadline:
            raise InputError(
                f"An edit must take at most {seconds:g} s; this one took longer and was not made. "
                "Paint less at once, or crop the scan around what you segment."
            )

    with listen(tell):
        yield


class Kept(Protocol):
    """What is kept between two requests."""

    correction: Correction


Some = TypeVar("Some", bound=Kept)


class Corrections:
    """What is kept, bounded: the longest unused goes first. Who comes back then begins again.

    Parameters
    ----------
    voxels
        Of all images together.
    idle_s
        How long one is kept that is not used.
    clock
        Returns the time in s.
    """

    def __init__(
        self,
        voxels: int = 100_000_000,
        idle_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._voxels, self._idle_s, self._clock = voxels, idle_s, clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def open(self, key: Hashable, make: Callable[[], Some]) -> Iterator[Some]:
        """Give what is kept under a key, to one request at a time; `make` it if there is none."""
        self.expire()
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.used = self._clock()
        with entry.lock:
            if entry.kept is None:
                entry.kept = make()
                self._make_room()
            yield entry.kept

    def drop(self, key: Hashable) -> None:
        """Keep nothing under a key any more."""
        with self._lock:
            self._entries.pop(key, None)

    def expire(self) -> None:
        """Drop what was not used for long."""
        with self._lock:
            for key, entry in list(self._entries.items()):
                if entry.used + self._idle_s < self._clock():
                    del self._entries[key]

    def _make_room(self) -> None:
        with self._lock:
            while sum(map(_count, self._entries.values())) > self._voxels:
                self._entries.popitem(last=False)


@dataclass
class _Entry:
    kept: Any = None
    used: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _count(entry: _Entry) -> int:
    return 0 if entry.kept is None else int(np.prod(entry.kept.correction.shape))


@dataclass
class Strokes:
    """Strokes on one label of a mask.

    Attributes
    ----------
    correction
        The mask so far.
    label
        Which label they are of.
    painted
        (X, Y, Z), what was painted so far: `FOREGROUND`, `BACKGROUND` or 0.
    """

    correction: Correction
    label: int
    painted: NDArray[np.int8]

    def update(self, mask: NDArray[np.uint8], painted: NDArray[np.int8]) -> NDArray[np.uint8]:
        """Return the mask (X, Y, Z) after all that is painted now.

        Parameters
        ----------
        mask
            As the viewer has it; what lies below strokes does not count.
        painted
            As `Strokes.painted`.
        """
        known = np.where(painted == self.painted, painted, 0).astype(np.int8)
        bare = painted == 0
        erased = (self.painted != 0) & (known == 0)
        if erased.any() or not np.array_equal(mask[bare], self.correction.mask[bare]):
            # Corrected by hand, undone or erased in the viewer: its mask is the one that counts
            below = np.where(bare, mask, self.correction.mask)
            self.correction.reset(below)
            self._apply(known, reach_mm=0)
        self._apply(np.where(known == painted, 0, painted))
        self.painted = painted
        return self.correction.mask

    def _apply(self, painted: NDArray[np.int8], **reach: float) -> None:
        for kind in (FOREGROUND, BACKGROUND):
            voxels = painted == kind
            if voxels.any():
                edit = Edit.stroke(voxels, kind == FOREGROUND, self.label)
                self.correction.apply(edit, **reach)


@dataclass
class Clicks:
    """Clicks on one label of a mask, in the order in which they were answered.

    Attributes
    ----------
    correction, label
        As `Strokes`.
    answered
        Voxels, and whether they were clicked as foreground.
    """

    correction: Correction
    label: int
    answered: list[tuple[Point, bool]] = field(default_factory=list)

    def update(self, foreground: Sequence[Point], background: Sequence[Point]) -> NDArray[np.uint8]:
        """Return the mask (X, Y, Z) after all these clicks.

        Raises
        ------
        InputError
            One lies outside the image; the others are as they were.
        """
        wanted = [*((p, True) for p in foreground), *((p, False) for p in background)]
        edits = [(one, Edit.click(one[0], one[1], self.label)) for one in dict.fromkeys(wanted)]
        for _, edit in edits:
            edit.check_inside(self.correction.shape)
        kept = next((i for i, one in enumerate(self.answered) if one not in wanted), None)
        if kept is not None and len(self.answered) - kept > UNDOABLE:
            self.correction.reset()
            self.answered.clear()
        elif kept is not None:
            for _ in self.answered[kept:]:
                self.correction.undo()
            del self.answered[kept:]
        for one, edit in edits:
            if one not in self.answered:
                self.correction.apply(edit)
                self.answered.append(one)
        return self.correction.mask
