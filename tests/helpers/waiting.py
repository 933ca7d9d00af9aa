"""Waiting for what happens in another thread or process, for as long as a busy machine takes."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PATIENCE_S = 120.0


def wait_until(look: Callable[[], Found], seconds: float = PATIENCE_S) -> Found:
    """Return what a look finds once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"It did not happen within {seconds:.0f} s."
        time.sleep(0.02)
    return found
