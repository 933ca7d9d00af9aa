from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.store_files import write_studies


class Clock:
    """A clock that a test moves."""

    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def flat(tmp_path) -> Path:
    """A flat folder of links to two studies, p1 and p2."""
    return write_studies(tmp_path)


@pytest.fixture
def store(flat, clock) -> Iterator:
    from heatmask.serving.store import Store

    store = Store(flat, flat / "store", clock)
    yield store
    store.close()
