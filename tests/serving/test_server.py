"""A real server process, driven by MONAI Label's own client as 3D Slicer drives it."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from heatmask.bundle import list_bundles, list_sequences
from heatmask.errors import DeviceError, InputError, OptionError
from heatmask.serving.server import start_server
from helpers.project import PROJECT
from helpers.server import MODEL, Server, find_free_port, run_server
from helpers.serving_stub import tilt_affine, write_bundle, write_scan
from helpers.waiting import PATIENCE_S, wait_until

host_client = pytest.importorskip("monailabel.client.client", reason="needs the extra 'serve'")
MONAILabelClientException = host_client.MONAILabelClientException

SHIPPED = sorted(path.name for path in PROJECT.glob("bundles/brain_*"))
VOLUMES = [name for name in SHIPPED if "type_self" not in name]
"""Of bundles for heads as a whole."""


@pytest.fixture(scope="module")
def lesion() -> np.ndarray:
    mask = np.zeros((14, 60, 52), bool)
    mask[4:8, 30:46, 8:20] = True
    return mask


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    write_bundle(folder / "bundles" / MODEL)
    for patient in ("p1", "p2"):
        write_scan(folder / "studies" / patient / f"{patient}-flair.nii.gz", patient == "p1")
        write_scan(folder / "studies" / patient / f"{patient}-t1c.nii.gz")
        write_scan(folder / "studies" / patient / f"{patient}-seg.nii.gz")
    with run_server(folder / "studies", folder / "bundles", folder) as running:
        yield running


def check_mask(data: np.ndarray, header: dict, lesion: np.ndarray) -> None:
    """The mask is uint8, on the scan's own grid, and right."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ tilt_affine()
    assert data.dtype == np.uint8
    np.testing.assert_allclose(header["space directions"], lps[:3, :3].T, atol=1e-4)
    np.testing.assert_allclose(header["space origin"], lps[:3, 3], atol=1e-4)
    overlap = np.count_nonzero(lesion & (data == 1))
    assert 2 * overlap / (lesion.sum() + data.astype(bool).sum()) > 0.95


def test_info_lists_the_model_for_slicer(server):
    info = server.client.info()
    assert info["name"] == "Heatmask"
    model = info["models"][MODEL]
    assert model["type"] == "segmentation"
    assert model["labels"] == {"tumour": 1}
    assert list(model["config"]) == [
        "preset", "threshold_rule", "threshold_level", "warm_level", "min_volume_mm3", "snap",
        "slice_axis", "gate", "gate_probability", "amp", "device",
    ]  # fmt: skip
    assert model["config"]["device"][0] == "cpu"
    assert info["labels"] == ["tumour"]
    assert info["datastore"]["total"] == 2


def test_the_log_states_the_licence_of_the_weights(server):
    log = server.log.read_text()
    assert f"Licence of the weights of {MODEL}: Nobody's data: free, non-commercial." in log


def test_infer_by_image_id(server, lesion):
    data, header, params = server.infer("p1-flair")
    check_mask(data, header, lesion)
    assert params["label_names"] == {"tumour": 1}
    assert params["probabilities"]["tumour"] > 0.9
    assert params["device"] == "cpu"
    assert params["seconds"]["total"] > 0
    assert params["sequences"] == ["FLAIR"]
    assert params["warnings"] == ["Left out, the network takes FLAIR: T1-Gd."]
    assert params["finding"].startswith("Tumour predicted")


def test_infer_says_when_there_is_no_tumour(server):
    data, _, params = server.infer("p2-flair")
    assert not data.any()
    assert params["finding"].startswith("No tumour predicted (p = ")


def test_options_reach_the_model(server):
    options = {"threshold_level": "0.25", "min_volume_mm3": 1e6, "slice_axis": "coronal"}
    data, _, params = server.infer("p1-flair", options=options)
    assert not data.any()
    assert params["options"]["threshold_level"] == 0.25
    assert params["slices"]["count"] == 52


def test_the_server_writes_nothing_beside_the_studies(server):
    assert {p.name for p in server.studies.iterdir()} == {"p1", "p2"}
    assert len(list(server.studies.rglob("*.nii.gz"))) == 6


SLOW = """
import time, heatmask.inferer as inferer, heatmask.progress as progress
def explain_slowly(self, volume, network):
    while True:
        time.sleep(0.1)
        progress.advance(0)
inferer.HeatmapInferer._explain_volume = explain_slowly
"""


def test_ctrl_c_ends_the_server_beside_work_that_has_no_end(tmp_path: Path) -> None:
    """How soon, docs/results/reliability.md says: here others share the processor."""
    write_bundle(tmp_path / "bundles" / MODEL)
    write_scan(tmp_path / "studies/p1-flair.nii.gz")
    with (
        run_server(tmp_path / "studies", tmp_path / "bundles", tmp_path, prelude=SLOW) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        url = server.client.get_server_url()
        answers = [
            pool.submit(requests.post, f"{url}/infer/{MODEL}?image=p1-flair", timeout=300)
            for _ in range(2)
        ]
        at_work = {"heatmask_jobs_running 1.0", "heatmask_jobs_queued 1.0"}
        wait_until(lambda: at_work <= set(requests.get(f"{url}/metrics").text.splitlines()))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0
        for answer in answers:
            error = answer.exception()
            assert error is not None or answer.result().status_code == 503
    assert "Traceback" not in server.log.read_text()
    assert not list(server.work.glob("*/store/tmp/*"))


def test_a_second_server_on_the_same_work_is_refused(server: Server) -> None:
    with pytest.raises(InputError, match="server"):
        start_server(
            server.studies, port=find_free_port(), workdir=server.work,
            bundles=server.studies.parent / "bundles",
        )  # fmt: skip


def test_the_start_is_said_in_a_few_lines(server: Server) -> None:
    log = server.log.read_text()
    lines = [line for line in log.splitlines() if " 200 in " not in line]
    for text in (server.client.get_server_url(), MODEL, "Studies: 2 from", str(server.work)):
        assert text in log
    assert "p1-flair" not in log
    assert len(lines) < 12, log


def test_a_taken_port_is_an_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"able to listen on 127.0.0.1:{port}"):
            start_server(tmp_path, port=port, workdir=tmp_path / "work")


def test_missing_studies_and_gpu_are_errors(tmp_path):
    with pytest.raises(InputError, match="STUDIES must name a folder"):
        start_server(tmp_path / "missing", port=find_free_port(), workdir=tmp_path / "work")
    with pytest.raises(DeviceError, match="needs a CUDA GPU"):
        start_server(tmp_path, port=find_free_port(), device="cuda:99")


@pytest.fixture(scope="module")
def lgg_server(lgg: Path, tmp_path_factory) -> Iterator[Server]:
    """`make serve STUDIES=../shared/data/lgg`, as it is."""
    with run_server(lgg, None, tmp_path_factory.mktemp("lgg")) as running:
        yield running


STARTED = """
import time, uvicorn
startup = uvicorn.Server.startup
async def say_when(self, sockets=None):
    await startup(self, sockets)
    print(f"listens after {time.process_time()} s", flush=True)
uvicorn.Server.startup = say_when
"""


def test_the_server_listens_soon(lgg: Path, tmp_path: Path) -> None:
    """In seconds of the processor, as tests run beside each other."""
    with run_server(lgg, None, tmp_path, prelude=STARTED) as server:
        (seconds,) = re.findall(r"listens after (\S+) s", server.log.read_text())
    assert float(seconds) < 8


def test_what_the_server_leaves_out_is_there_afterwards() -> None:
    code = (
        "from heatmask.serving.compat import leave_out\n"
        "with leave_out('torchvision', 'json'):\n"
        "    import heatmask.serving.web, sys, json\n"
        "    assert sys.modules['torchvision'] is None\n"
        "import torchvision, ignite, zennit, monai.handlers\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_bundles_are_served_with_their_licence(lgg_server, lgg):
    log, info = lgg_server.log.read_text(), lgg_server.client.info()
    licences = [line for line in log.splitlines() if "Licence of the weights of " in line]
    assert len(licences) < len(SHIPPED)
    for line in licences:
        assert "CC BY-NC-SA 4.0" in line or "breast_us" in line or "CC BY 4.0" in line
    assert all(any(name in line for line in licences) for name in SHIPPED)
    assert set(SHIPPED) <= set(info["models"])
    assert info["datastore"]["total"] == len(list(lgg.glob("*/*-t2f.nii.gz")))


@pytest.mark.parametrize("model", VOLUMES)
def test_every_shipped_bundle_segments_a_real_study(lgg_server, lgg, model):
    """Both sequences of a study are taken, and the mask lies on the first one's grid."""
    scan = min(lgg.glob("*/*-t1c.nii.gz"))
    scan = scan.with_name(scan.name.replace("-t1c", "-t2f"))
    name = scan.name.removesuffix(".nii.gz")
    file, params = lgg_server.client.infer(model, name, {"result_extension": ".nii.gz"})
    mask, image = nib.load(file), nib.load(scan)
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    taken = {"FLAIR"} if "selftrained" in model else {"FLAIR", "T1-Gd"}
    assert set(params["sequences"]) == taken
    assert all(0 <= p <= 1 for p in params["probabilities"].values())
    assert bool(np.any(mask.dataobj)) == ("pseudo-mask of" in params["finding"])


def test_studies_are_what_any_bundle_takes(tmp_path: Path) -> None:
    assert list_sequences([]) == ["FLAIR"]
    for name, config in {
        "a": {"sequences": ["FLAIR", "T1-Gd"]},
        "b": {},
        "c": {"sequences": ["T2", "FLAIR"]},
    }.items():
        (tmp_path / name / "configs").mkdir(parents=True)
        path = tmp_path / name / "configs" / "inference.json"
        path.write_text(json.dumps(config), encoding="utf-8")
    assert list_sequences(list_bundles([tmp_path])) == ["FLAIR", "T1-Gd", "T2"]
