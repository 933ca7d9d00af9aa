"""Kill a server while clients submit to it, and count what is lost of what it answered with 200.

Run as ``python benchmarks/kill_server.py --kills 200``. A server's process, forked from one that
has the libraries in memory already, listens on a port; two clients submit label after label by
HTTP; SIGKILL comes at a random moment. The next server starts on what is there, and must list
every version that was answered. Exits with 1 if one is missing or another one, or if one is there
that is not whole.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import requests

import heatmask.serving.web  # noqa: F401 (before the fork, so that every server has it)
from heatmask.bundle import DEFAULT_BUNDLE, find_bundle
from heatmask.serving.server import start_server
from heatmask.serving.store.checks import check_label

SHAPE, AFFINE = (64, 48, 32), np.diag([1.0, 1.0, 3.0, 1.0])
CLIENTS, LABELS, IMAGE = 2, 40, "p1-flair"
LONGEST_S, START_S = 0.5, 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments, begin = random.Random(arguments.seed), time.monotonic()
    answered: dict[int, str] = {}
    unfinished = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = write_files(folder)
        check_label(folder / "label.nii.gz", None, {})  # Loads what a server then need not
        for kill in range(arguments.kills + 1):
            server, url = start(folder)
            kept = list_kept(folder, url)
            lost = sum(kept.get(number) != digest for number, digest in answered.items())
            lost += sorted(kept) != list(range(1, len(kept) + 1))
            torn = sum(digest not in labels for digest in kept.values())
            if lost or torn or kill == arguments.kills:
                stop(server)
                break
            submit_until_killed(server, url, labels, answered, moments)
            unfinished += any(folder.glob("work/*/store/drafts/*"))
            if kill % 20 == 19:
                print(f"{kill + 1} kills, {len(answered)} submits answered", flush=True)
    print(
        f"{kill} kills, {unfinished} amid a write; {len(answered)} submits answered with 200, "
        f"{len(kept)} versions there, {lost} lost, {torn} torn; {time.monotonic() - begin:.0f} s"
    )
    return int(bool(lost or torn))


def write_files(folder: Path) -> dict[str, bytes]:
    """Write a scan and one bundle; return labels on the scan's grid, some 50 kB each, by digest."""
    rng = np.random.default_rng(0)
    (folder / "studies/p1").mkdir(parents=True)
    scan = nib.Nifti1Image(rng.random(SHAPE, np.float32), AFFINE)
    nib.save(scan, folder / "studies/p1" / f"{IMAGE}.nii.gz")
    (folder / "bundles").mkdir()
    (folder / "bundles" / DEFAULT_BUNDLE).symlink_to(find_bundle(DEFAULT_BUNDLE).resolve())
    labels = {}
    for _ in range(LABELS):
        nib.save(
            nib.Nifti1Image(rng.integers(0, 3, SHAPE).astype(np.uint8), AFFINE),
            folder / "label.nii.gz",
        )
        content = (folder / "label.nii.gz").read_bytes()
        labels[hashlib.sha256(content).hexdigest()] = content
    return labels


def start(folder: Path) -> tuple[int, str]:
    """Return the process of a server and its address, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = os.fork()
    if server == 0:
        try:
            log = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            start_server(
                folder / "studies", port=port, device="cpu", workdir=folder / "work",
                bundles=folder / "bundles",
            )  # fmt: skip
        finally:
            os._exit(1)
    deadline, url = time.monotonic() + START_S, f"http://127.0.0.1:{port}"
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            requests.get(f"{url}/healthz", timeout=30).raise_for_status()
            return server, url
        if os.waitpid(server, os.WNOHANG) != (0, 0):
            break
        time.sleep(0.02)
    raise RuntimeError(f"No start: {(folder / 'server.log').read_text(encoding='utf-8')[-3000:]}")


def stop(server: int) -> None:
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


def list_kept(folder: Path, url: str) -> dict[int, str]:
    """Return the digest of every version that the server lists, from its file."""
    answer = requests.get(f"{url}/datastore/label/versions", params={"image": IMAGE}, timeout=60)
    answer.raise_for_status()
    versions = next(folder.glob(f"work/*/store/labels/{IMAGE}/final"), folder)
    return {
        version["version"]: _measure(versions / str(version["version"]) / "mask.nii.gz")
        for version in answer.json()
    }


def _measure(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def submit_until_killed(
    server: int,
    url: str,
    labels: dict[str, bytes],
    answered: dict[int, str],
    moments: random.Random,
) -> None:
    """Let clients submit, kill the server, and note what it had answered with 200."""
    before = len(answered)
    clients = [
        threading.Thread(target=submit, args=(url, labels, answered, f"c{n}", moments.random()))
        for n in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    deadline = time.monotonic() + START_S
    while len(answered) == before and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(moments.uniform(0, LONGEST_S))
    stop(server)
    for client in clients:
        client.join()


def submit(
    url: str, labels: dict[str, bytes], answered: dict[int, str], client: str, seed: float
) -> None:
    chance = random.Random(seed)
    with suppress(requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        while True:
            digest = chance.choice(list(labels))
            answer = requests.put(
                f"{url}/datastore/label", params={"image": IMAGE},
                files={"label": ("label.nii.gz", labels[digest])},
                data={"params": json.dumps({"client_id": client})}, timeout=60,
            )  # fmt: skip
            answer.raise_for_status()
            answered[answer.json()["version"]] = digest


if __name__ == "__main__":
    sys.exit(main())
