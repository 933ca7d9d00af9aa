"""A real server process, driven by MONAI Label's own client as 3D Slicer drives it."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests

from heatmask.bundle import list_bundles
from heatmask.errors import DeviceError, InputError, OptionError
from heatmask.serving.server import list_sequences, start_server
from helpers.planted import store_as
from helpers.project import PROJECT
from helpers.server import MODEL, START_S, Server, find_free_port, run_server
from helpers.serving_stub import tilt_affine, write_bundle, write_scan

host_client = pytest.importorskip("monailabel.client.client", reason="needs the extra 'serve'")
MONAILabelClientException = host_client.MONAILabelClientException

SHIPPED = sorted(path.name for path in PROJECT.glob("bundles/brain_*"))


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
        "preset", "threshold_rule", "threshold_level", "min_volume_mm3", "snap",
        "slice_axis", "gate", "gate_probability", "amp", "device",
    ]  # fmt: skip
    assert model["config"]["device"][0] == "cpu"
    assert info["labels"] == ["tumour"]
    assert info["datastore"]["total"] == 2


def test_the_log_states_the_licence_of_the_weights(server):
    assert "Licence of its weights: Nobody's data: free, non-commercial." in server.log.read_text()


def test_next_sample_is_an_unlabelled_study(server):
    for strategy in ("random", "first", "random"):
        sample = server.client.next_sample(strategy, {})
        assert sample["id"] in ("p1-flair", "p2-flair")
        assert Path(sample["path"]).is_relative_to(server.studies)


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


def test_infer_by_uploaded_file(server, lesion, tmp_path):
    path = tmp_path / "my scan.nii.gz"
    write_scan(path)
    data, header, _ = server.infer("", file=str(path))
    check_mask(data, header, lesion)


def test_infer_by_session(server, lesion, tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_scan(path)
    session = server.client.create_session(str(path))["session_id"]
    assert server.client.get_session(session)["name"] == session
    data, header, _ = server.infer("", session_id=session)
    check_mask(data, header, lesion)
    server.client.remove_session(session)
    with pytest.raises(MONAILabelClientException):
        server.client.get_session(session)
    with pytest.raises(MONAILabelClientException) as failure:
        server.infer("", session_id=session)
    assert "open a new session" in failure.value.msg


def test_options_reach_the_model(server):
    options = {"threshold_rule": "level", "threshold_level": "50", "slice_axis": "coronal"}
    data, _, params = server.infer("p1-flair", options=options)
    assert not data.any()
    assert params["options"]["threshold_level"] == 50.0
    assert params["slices"]["count"] == 52


def test_a_corrected_label_is_stored_and_read_back(server, tmp_path):
    data, header, _ = server.infer("p1-flair")
    data[:2] = 1
    path = tmp_path / "corrected.nrrd"
    nrrd.write(str(path), data, header)
    info = {"label_info": [{"name": "tumour", "idx": 1}]}
    assert server.client.save_label("p1-flair", str(path), "final", info)["label"] == "p1-flair"
    back, _ = nrrd.read(server.client.download_label("p1-flair", "final"))
    np.testing.assert_array_equal(back, data)
    stored = server.client.datastore()["objects"]["p1-flair"]["labels"]["final"]
    assert stored["info"]["label_info"] == info["label_info"]
    assert list(server.work.glob("*/labels/final/p1-flair.nrrd"))
    assert server.client.next_sample("random", {})["id"] == "p2-flair"


def put_label(server, content: bytes, name: str) -> tuple[int, str]:
    """Submit a file as the label of p1-flair; return the status and the text."""
    url = f"{server.client.get_server_url()}/datastore/label?image=p1-flair&tag=final"
    answer = requests.put(url, files={"label": (name, content)}, timeout=60)
    return answer.status_code, answer.text


@pytest.mark.fault("E")
def test_no_label_is_lost_to_a_file_that_is_none(server, tmp_path):
    def save(array: np.ndarray, affine: np.ndarray) -> bytes:
        nib.save(nib.Nifti1Image(array, affine), tmp_path / "label.nii.gz")
        return (tmp_path / "label.nii.gz").read_bytes()

    mask = np.zeros((14, 60, 52), np.uint8)
    mask[4, 5, 6] = 1
    good, moved = save(mask, tilt_affine()), tilt_affine()
    moved[0, 3] += 5
    assert put_label(server, good, "label.nii.gz")[0] == 200
    for content, name, text in (
        (b"", "empty.nii.gz", "cannot be read"),
        (b"", "empty.nrrd", "cannot be read"),
        (good[: len(good) // 2], "cut.nii.gz", "cannot be read"),
        (b"NRRD0004\n", "cut.nrrd", "cannot be read"),
        (save(mask[:, ::2], tilt_affine()), "coarse.nii.gz", "14 x 30 x 52 voxels"),
        (save(mask, moved), "moved.nii.gz", "5 mm apart"),
        (save(mask * 0.3, tilt_affine()), "heatmap.nii.gz", "probability map"),
        (good, "label.txt", "cannot be read"),
    ):
        status, answer = put_label(server, content, name)
        assert (status, text in answer) == (400, True), (name, answer)
        assert "an earlier one is kept" in answer
        kept = server.client.download_label("p1-flair", "final")
        assert Path(kept).read_bytes() == good, name
    flipped, stored = store_as(mask, tilt_affine(), "LPS")
    assert put_label(server, save(flipped, stored), "flipped.nii.gz")[0] == 200
    nothing = save(np.zeros_like(mask), tilt_affine())
    assert put_label(server, nothing, "healthy.nii.gz")[0] == 200, "no tumour is a label"
    assert Path(server.client.download_label("p1-flair", "final")).read_bytes() == nothing
    (folder,) = {path.parent for path in server.work.glob("*/labels/final/*")}
    assert not list(folder.glob("*.partial"))


@pytest.mark.fault("E")
def test_batch_inference_stores_original_labels_and_names_a_damaged_scan(server, tmp_path):
    """It runs in a process of its own, which has to find settings, app and bundles too."""
    whole = tmp_path / "whole.nii.gz"
    write_scan(whole)
    store = f"{server.client.get_server_url()}/datastore/image"
    cut = {"file": ("a-cut.nii.gz", whole.read_bytes()[:9000])}
    requests.put(store, params={"image": "a-cut"}, files=cut, timeout=60).raise_for_status()
    url = f"{server.client.get_server_url()}/batch/infer/"
    requests.post(url + MODEL, json={"label_tag": "original"}, timeout=60).raise_for_status()
    deadline, status = time.monotonic() + START_S, {}
    while time.monotonic() < deadline and status.get("status") not in ("DONE", "ERROR"):
        time.sleep(0.5)
        status = requests.get(url, timeout=60).json()
    requests.delete(store, params={"id": "a-cut"}, timeout=60).raise_for_status()
    assert status["status"] == "DONE", status
    names = {path.name for path in server.work.glob("*/labels/original/*")}
    assert names == {"p1-flair.nrrd", "p2-flair.nrrd"}
    end = next(line for line in status["details"] if "images failed" in line)
    assert "1 of 3 images failed, the labels of the others are stored. a-cut: " in end
    assert "is cut off or damaged" in end


@pytest.mark.parametrize(
    ("image", "options", "text"),
    [
        ("p1-flair", {"threshold_level": "$1"}, "threshold_level must not start with"),
        ("p1-flair", {"gate": "maybe"}, "gate must be true or false"),
        ("nobody", {}, "must be one of the 2 that the server lists, got 'nobody'"),
        ("", {}, "Neither Image nor File"),
    ],
)
def test_errors_reach_the_client_as_text(server, image, options, text):
    with pytest.raises(MONAILabelClientException) as failure:
        server.infer(image, options=options)
    assert text in failure.value.msg
    assert "Traceback" not in failure.value.msg


def test_a_path_of_the_machine_is_no_image(server):
    with pytest.raises(MONAILabelClientException) as error:
        server.infer(str(Path(__file__).resolve()))
    assert "must be one of the 2 that the server lists" in error.value.msg


def test_an_unknown_model_is_said(server):
    with pytest.raises(MONAILabelClientException) as failure:
        server.infer("p1-flair", model="other")
    assert "no model 'other'" in failure.value.msg


def test_a_bad_scan_is_said(server, tmp_path):
    path = tmp_path / "text.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(MONAILabelClientException) as failure:
        server.infer("", file=str(path))
    assert "Status: 400" in failure.value.msg
    assert "Internal Server Error" not in failure.value.msg


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_weights_cannot_be_changed_over_the_network(server, method):
    url = f"{server.client.get_server_url()}/model/{MODEL}"
    boundary = "Content-Disposition: form-data; name=file; filename=model.pt"
    body = f"--x\r\n{boundary}\r\n\r\nbad\r\n--x--\r\n".encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(url, body, headers, method=method)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request)
    server.infer("p1-flair")


def test_studies_cannot_be_deleted_over_the_network(server):
    url = f"{server.client.get_server_url()}/datastore/image?id=p2-flair"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"))
    assert (server.studies / "p2/p2-flair.nii.gz").is_file()


def test_other_web_pages_may_not_read_scans(server):
    url = f"{server.client.get_server_url()}/info/"
    request = urllib.request.Request(url, headers={"Origin": "http://elsewhere.example"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") is None


def test_the_server_writes_nothing_beside_the_studies(server):
    assert {p.name for p in server.studies.iterdir()} == {"p1", "p2"}
    assert len(list(server.studies.rglob("*.nii.gz"))) == 6


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


def test_the_shipped_bundles_are_served_with_their_licence(lgg_server, lgg):
    log, info = lgg_server.log.read_text(), lgg_server.client.info()
    assert log.count("Licence of its weights") == log.count("CC BY-NC-SA 4.0") == len(SHIPPED)
    assert set(SHIPPED) <= set(info["models"])
    assert info["datastore"]["total"] == len(list(lgg.glob("*/*-t2f.nii.gz")))


@pytest.mark.parametrize("model", SHIPPED)
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
    assert set(params["sequences"]) == {"FLAIR", "T1-Gd"}
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
