"""How far a run has come, for one listener, which may stop the run by raising.

What knows the numbers (the loop over batches) and who wants them (a server, a bar) are many calls
apart, and a run belongs to one thread. So the listener is of the context and not an argument of
all that lies between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Listener = Callable[[int, int], None]
"""Called with how many images are done and how many are known to come; it may raise."""


@dataclass
class _Count:
    tell: Listener
    done: int = 0
    total: int = 0


_COUNT: ContextVar[_Count | None] = ContextVar("count", default=None)


@contextmanager
def listen(tell: Listener | None) -> Iterator[None]:
    """Tell `tell` of all progress inside the block, beginning with 0 of 0; None tells nobody."""
    token = _COUNT.set(None if tell is None else _Count(tell))
    try:
        advance(0)
        yield
    finally:
        _COUNT.reset(token)


def expect(images: int) -> None:
    """Say that so many more images are to be run.

    The total grows during a run: which slices are explained is known once all are classified.
    """
    count = _COUNT.get()
    if count is not None:
        count.total += images


def advance(images: int) -> None:
    """Say that so many more images are done; 0 only gives the listener its chance to stop."""
    count = _COUNT.get()
    if count is not None:
        count.done += images
        count.tell(count.done, count.total)
