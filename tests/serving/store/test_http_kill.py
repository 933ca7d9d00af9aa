"""A real server, killed while two clients submit: what was answered with 200 is there."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests

from heatmask.serving.store import FINAL, Store
from helpers.scan_files import write_nifti
from helpers.server import MODEL, Server, run_server
from helpers.serving_stub import tilt_affine, write_bundle, write_scan


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4])
def test_nothing_answered_with_200_is_lost_to_kill_9(tmp_path: Path, kills: int) -> None:
    write_bundle(tmp_path / "bundles" / MODEL)
    write_scan(tmp_path / "studies" / "p1" / "p1-flair.nii.gz")
    answered: dict[int, bytes] = {}
    for kill in range(kills):
        with run_server(tmp_path / "studies", tmp_path / "bundles", tmp_path) as server:
            clients = [
                threading.Thread(target=submit_until_killed, args=(server, n, answered, tmp_path))
                for n in range(2)
            ]
            for client in clients:
                client.start()
            deadline, before = time.monotonic() + 60, len(answered)
            while len(answered) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.37 * kill)
            server.process.kill()
            for client in clients:
                client.join()
        (index,) = {path.parent for path in server.work.glob("*/store")}
        store = Store(index, index / "store")
        kept = {v.number: v.path.read_bytes() for v in store.list_versions("p1-flair", FINAL)}
        store.close()
        assert sorted(kept) == list(range(1, len(kept) + 1))
        assert {number: kept[number] for number in answered} == answered
    assert len(answered) > kills


def submit_until_killed(
    server: Server, client: int, answered: dict[int, bytes], folder: Path
) -> None:
    url, rng = server.client.get_server_url(), np.random.default_rng(time.time_ns())
    with suppress(requests.RequestException):
        while True:
            mask = (rng.random((14, 60, 52)) > 0.5).astype(np.uint8)
            label = write_nifti(folder / f"{client}.nii.gz", mask, tilt_affine()).read_bytes()
            answer = requests.put(
                f"{url}/datastore/label",
                params={"image": "p1-flair"},
                files={"label": ("label.nii.gz", label)},
                data={"params": f'{{"client_id": "c{client}"}}'},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
            answered[answer.json()["version"]] = label
