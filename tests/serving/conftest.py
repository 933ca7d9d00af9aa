"""What every test of the server needs."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def log_of_the_tests() -> Iterator[None]:
    """Undo what `start_server` does in this process: its log is that of the whole process.

    Its handler would go on to write to what pytest showed it as stderr, which is closed by then.
    """
    root, package = logging.getLogger(), logging.getLogger("heatmask")
    handlers, levels = list(root.handlers), (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])
