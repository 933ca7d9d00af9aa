"""Small web applications on real ports of this machine, each in a thread of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from helpers.server import find_free_port
from helpers.waiting import PATIENCE_S


@contextmanager
def run_site(app: ASGIApp, port: int | None = None, **options) -> Iterator[int]:
    """Serve an application until the block ends; give its port."""
    port = port or find_free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1, **options)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not server.started:
        assert thread.is_alive(), "The site did not start."
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=10)
