"""`heatmask prelabel`: a mask of every study overnight, there at the next Next Sample."""

import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.networks.weights import save_weights
from heatmask.serving.store import Store
from heatmask.serving.store.labels import ORIGINAL
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.batch import Batch
from helpers.dicom_studies import write_study
from helpers.serving_stub import plant_network, write_bundle, write_scan

MODEL = "stub_segmentation"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two NIfTI, a DICOM series and a file that is damaged."""
    folder = tmp_path / "studies"
    for patient in ("p1", "p2"):
        write_scan(folder / patient / f"{patient}-flair.nii.gz")
    write_study(folder / "p3_flair")
    damaged = folder / "p0" / "p0-flair.nii.gz"
    damaged.parent.mkdir()
    damaged.write_bytes((folder / "p1" / "p1-flair.nii.gz").read_bytes()[:5000])
    write_bundle(tmp_path / "bundles" / MODEL)
    return folder


@pytest.fixture
def run(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what calls the command."""
    monkeypatch.setenv("HEATMASK_BUNDLES", str(tmp_path / "bundles"))

    def call(*arguments: str):
        given = ["prelabel", str(studies), "--workdir", str(tmp_path / "work"), "--bundle", MODEL]
        return CliRunner().invoke(app, [*given, *arguments])

    return call


def open_store(tmp_path: Path) -> Store:
    (flat,) = (path for path in (tmp_path / "work").iterdir() if path.name.startswith("studies"))
    return Store(flat, flat / "store")


def count_versions(tmp_path: Path) -> dict[str, int]:
    store = open_store(tmp_path)
    try:
        return {i: len(store.list_versions(i, ORIGINAL)) for i in store.list_images()}
    finally:
        store.close()


def test_every_study_gets_a_mask_and_a_damaged_one_stops_no_other(run, tmp_path: Path) -> None:
    answer = run()
    assert answer.exit_code == 1
    assert "3 labels by stub_segmentation, 1 scans failed" in " ".join(answer.output.split())
    error = str(answer.exception)
    assert error.startswith("1 of 4 scans failed, the others have their labels.")
    assert "p0-flair: " in error
    assert count_versions(tmp_path) == {"p0-flair": 0, "p1-flair": 1, "p2-flair": 1, "p3_flair": 1}
    store = open_store(tmp_path)
    label = store.list_current("p3_flair")[ORIGINAL]
    assert label.info["params"]["probabilities"]["tumour"] > 0.5
    assert store.get_labeled_images() == []
    store.close()


def test_it_goes_on_where_it_was_interrupted(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    stopped = threading.Event()
    infer, stop, sleep = HeatmapInferTask.__call__, Batch.stop, time.sleep

    def wait_in_the_third(self, request, progress=None, folder=None):
        begun.append(Path(request["image"]).name.partition(".")[0])
        if len(begun) == 3:
            assert stopped.wait(60)
        return infer(self, request, progress, folder)

    def interrupt_in_the_third(seconds: float) -> None:
        sleep(seconds)
        if len(begun) == 3:
            raise KeyboardInterrupt

    def stop_and_go_on(self) -> None:
        stop(self)
        stopped.set()

    monkeypatch.setattr(HeatmapInferTask, "__call__", wait_in_the_third)
    monkeypatch.setattr(Batch, "stop", stop_and_go_on)
    with monkeypatch.context() as patch:
        patch.setattr("heatmask.serving.prelabel.time.sleep", interrupt_in_the_third)
        answer = run()
    assert "goes on where it stopped" in answer.output
    made = {image for image, count in count_versions(tmp_path).items() if count}
    assert made < {"p1-flair", "p2-flair", "p3_flair"}
    begun.clear()
    run()
    assert begun == sorted({"p0-flair", "p1-flair", "p2-flair", "p3_flair"} - made)
    assert sum(count_versions(tmp_path).values()) == 3
    assert run("--again").exit_code == 1
    assert sum(count_versions(tmp_path).values()) == 6
    network = plant_network()  # learnt anew
    network.head.bias.data -= 0.1
    save_weights(network.state_dict(), tmp_path / "bundles" / MODEL / "models/model.pt")
    run()
    assert sum(count_versions(tmp_path).values()) == 9


def test_it_does_not_work_beside_a_server(run, studies: Path, tmp_path: Path) -> None:
    run()
    store = open_store(tmp_path)
    answer = run()
    store.close()
    assert "Only one server can work on" in str(answer.exception)


def test_a_wrong_option_is_refused_for_every_scan(run, tmp_path: Path) -> None:
    answer = run("--set", "threshold_rule=wrong")
    assert answer.exit_code == 1
    assert "threshold_rule must be one of" in str(answer.exception)
    assert set(count_versions(tmp_path).values()) == {0}
