"""A real server process and MONAI Label's own client of it, which 3D Slicer uses."""

import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nrrd
import numpy as np
import pytest

from helpers.waiting import PATIENCE_S

MONAILabelClient = pytest.importorskip(
    "monailabel.client.client", reason="needs the extra 'serve'"
).MONAILabelClient

MODEL = "stub_segmentation"
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}
START_S = 540  # A busy machine takes its time to import torch; below the timeout of a test.


@dataclass
class Server:
    """A running server, its client, its log and the folder of its own files."""

    client: MONAILabelClient
    log: Path
    work: Path
    studies: Path | str
    process: subprocess.Popen

    def infer(self, image: str, model: str = MODEL, **arguments) -> tuple[np.ndarray, dict, dict]:
        """Return the mask, its header and the params."""
        options = arguments.pop("options", {})
        file, params = self.client.infer(model, image, {**SLICER, **options}, **arguments)
        data, header = nrrd.read(file)
        return data, header, params


def find_free_port() -> int:
    """Return a port that nobody listens on, and nobody takes before the caller does.

    Each process of the tests has ports of its own, below those that the system gives to
    connections: one that it chose could be taken again before a server listens there.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for offset in itertools.islice(_OFFSETS, 1_000):
        port = 10_000 + worker % 20 * 1_000 + offset
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("There is no free port.")


_OFFSETS = itertools.cycle((os.getpid() + n) % 1_000 for n in range(1_000))


@contextmanager
def run_server(
    studies: Path | str,
    bundles: Path | None,
    tmp_path: Path,
    pattern: str | None = None,
    prelude: str = "",
    python: str | Path = sys.executable,
) -> Iterator[Server]:
    """Start a server on a free port, wait until it answers, and stop it at the end.

    `prelude` is code that its process runs first, `python` what runs it.
    """
    port = find_free_port()
    work, log = tmp_path / "work", tmp_path / "server.log"
    arguments = {"port": port, "device": "cpu", "workdir": str(work), "pattern": pattern}
    arguments |= {"bundles": str(bundles)} if bundles else {}
    code = (
        f"{prelude}\n"
        f"from heatmask.serving.server import start_server as s; s({str(studies)!r}, **{arguments})"
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            [python, "-c", code], stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, log)
        yield Server(MONAILabelClient(url, tmpdir=str(tmp_path)), log, work, studies, process)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/info/", timeout=20).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.3)
    pytest.fail(f"The server did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
