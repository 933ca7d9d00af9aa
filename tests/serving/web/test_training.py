"""Training from the plugin's panel: started, watched, stopped, killed, and what comes of it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nrrd
import pytest
from monailabel.client.client import MONAILabelClientException

from helpers.learning import NAMED, write_blind_weights, write_mask
from helpers.server import MODEL, SLICER, START_S
from helpers.serving_stub import write_scan
from helpers.web import Web, run_web

LEARNED = f"{MODEL}_learned"
QUICK = {"way": "joint", "max_epochs": 1, "slices_per_epoch": 256}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Web]:
    """Two studies with a lesion, and a model that just misses it."""
    with run_web(tmp_path) as web:
        write_scan(web.studies / "p2/p2-flair.nii.gz")
        write_blind_weights(tmp_path / "bundles" / MODEL)
        yield web


def submit(web: Web, tmp_path: Path, *patients: str) -> None:
    for patient in patients:
        mask = write_mask(tmp_path / f"{patient}_mask.nii.gz")
        web.client.save_label(f"{patient}-flair", str(mask), params={**NAMED, "model": MODEL})


def wait_for(web: Web, what, seconds: float = START_S) -> dict[str, Any]:
    """Ask for the status as the panel does until something holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = web.client.train_status(False)
        if what(status):
            return status
        time.sleep(0.3)
    raise AssertionError(status)


def has_ended(status: dict[str, Any]) -> bool:
    return status["status"] != "RUNNING"


def test_the_panel_trains_and_the_next_mask_is_by_the_new_weights(
    site: Web, tmp_path: Path
) -> None:
    client = site.client
    trainer = client.info()["trainers"][MODEL]
    assert trainer["config"]["way"] == ["auto", "joint", "segmentation"]
    assert client.info()["train_stats"] == {}
    submit(site, tmp_path, "p1")
    with pytest.raises(MONAILabelClientException, match="At least two patients"):
        client.train_start(MODEL, QUICK)
    submit(site, tmp_path, "p2")
    with pytest.raises(MONAILabelClientException, match="max_epochs must be a whole number"):
        client.train_start(MODEL, {**QUICK, "max_epochs": 0})
    file, _ = client.infer(MODEL, "p1-flair", SLICER)
    assert not nrrd.read(file)[0].any()
    started = client.train_start(MODEL, {**trainer["config"], **QUICK})
    assert started["status"] == "RUNNING"
    with pytest.raises(MONAILabelClientException, match=r"429.*running already"):
        client.train_start(MODEL, QUICK)
    ended = wait_for(site, has_ended)
    assert ended["status"] == "DONE", ended
    stats = client.info()["train_stats"][MODEL]
    assert stats["epoch"] == stats["total_epochs"] == 3
    assert stats["best_metric"] > 0.5
    assert stats["train"]["loss"] > 0
    assert stats["total_time"] > 0
    assert list(client.info()["models"])[:2] == [LEARNED, MODEL]
    file, params = client.infer(LEARNED, "p1-flair", SLICER)
    assert nrrd.read(file)[0].any()
    assert params["version"] == "0.0.1+1"
    assert LEARNED not in client.info()["trainers"]
    assert not client.train_status(True)
    assert site.send("DELETE", "/train/").json() is None


def test_labels_of_something_else_are_named_and_not_learnt(site: Web, tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        mask = write_mask(tmp_path / f"{patient}_mask.nii.gz")
        named = {"label_info": [{"name": "oedema", "idx": 1}], "model": MODEL}
        site.client.save_label(f"{patient}-flair", str(mask), params=named)
    labels = {p: b for p, b in site.list_files().items() if "/labels/" in p}
    site.client.train_start(MODEL, QUICK)
    ended = wait_for(site, has_ended)
    assert ended["status"] == "ERROR"
    said = "\n".join(ended["details"])
    assert (
        "The label of p1-flair must name 'tumour', which the bundle finds; it names 'oede" in said
    )
    assert "At least two patients" in said
    assert LEARNED not in site.client.info()["models"]
    assert labels == {p: b for p, b in site.list_files().items() if "/labels/" in p}


@pytest.mark.slow
def test_a_training_is_stopped_and_killed_and_goes_on(site: Web, tmp_path: Path) -> None:
    submit(site, tmp_path, "p1", "p2")
    labels = {p: b for p, b in site.list_files().items() if "/labels/" in p}
    long = {**QUICK, "max_epochs": 12}
    site.client.train_start(MODEL, long)
    wait_for(site, lambda status: status["done"] > 0)
    assert site.client.train_stop()["status"] in ("RUNNING", "STOPPED")
    stopped = wait_for(site, has_ended)
    assert (stopped["status"], "goes on" in stopped["result"]) == ("STOPPED", True)
    site.client.train_start(MODEL, long)
    running = wait_for(site, lambda status: status["done"] > 2 * 256)
    os.kill(running["process"], signal.SIGKILL)
    killed = wait_for(site, has_ended)
    assert (killed["status"], "It was killed" in killed["result"]) == ("ERROR", True)
    site.client.train_start(MODEL, long)
    ended = wait_for(site, has_ended)
    assert ended["status"] == "DONE"
    assert ended["done"] == ended["total"] == 3 * 12 * 256
    assert LEARNED in site.client.info()["models"]
    assert labels == {p: b for p, b in site.list_files().items() if "/labels/" in p}
    (record,) = site.serving.folder.glob(f"learned/{LEARNED}/configs/learned.json")
    assert json.loads(record.read_text(encoding="utf-8"))["folds"] == {
        "p1-flair": 0, "p2-flair": 1
    }  # fmt: skip
