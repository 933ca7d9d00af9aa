"""A real server on a free port of this machine, for measurements and figures."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 600
"""A busy machine takes its time to load all networks."""


@contextmanager
def run_server(folder: Path, threads: int = 2, bundle: Path | None = None) -> Iterator[str]:
    """Serve ``folder/studies`` on the CPU and give the address, once all networks are in memory.

    Parameters
    ----------
    folder
        Its own files and its log lie there too.
    threads
        Of torch.
    bundle
        Folder of the one bundle to serve; by default all.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = None
    if bundle is not None:
        chosen = folder / "bundles"
        chosen.mkdir()
        (chosen / bundle.name).symlink_to(bundle.resolve())
    code = (
        f"import torch; torch.set_num_threads({threads})\n"
        "from heatmask.serving.server import start_server\n"
        f"start_server({str(folder / 'studies')!r}, port={port}, device='cpu', "
        f"workdir={str(folder / 'work')!r}, bundles={chosen and str(chosen)!r})"
    )
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_loaded(f"{url}/readyz", server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_loaded(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("The server did not start.")
