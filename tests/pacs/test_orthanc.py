"""A day with a real PACS: series come from Orthanc by DICOMweb, masks go back as DICOM SEG."""

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import nrrd
import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import InputError, OptionError
from heatmask.pacs import Pacs, PacsError, PacsStudies
from helpers.chromium import run_chromium
from helpers.dicom_studies import draw_head, write_study
from helpers.ohif import count_coloured, fetch_viewer, run_ohif, scroll_to, show_seg
from helpers.orthanc import PASSWORD, USER, Orthanc, run_orthanc
from helpers.server import MODEL, SLICER
from helpers.serving_stub import write_bundle
from helpers.waiting import wait_until
from helpers.web import Web, run_web

NAMED = {"label_info": [{"name": "tumour", "idx": 1}], "model": MODEL}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture
def orthanc(running: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    """An empty Orthanc, and its credentials where Heatmask looks for them."""
    running.clear()
    monkeypatch.setenv("HEATMASK_DICOMWEB_USER", USER)
    monkeypatch.setenv("HEATMASK_DICOMWEB_PASSWORD", PASSWORD)
    return running


@pytest.fixture
def series(orthanc: Orthanc, tmp_path: Path) -> Path:
    """A FLAIR series, on disk and in Orthanc."""
    folder = write_study(tmp_path / "series")
    orthanc.add(folder)
    return folder


def read_uids(folder: Path) -> tuple[str, str]:
    header = dcmread(next(folder.iterdir()), stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


def fetch_segs(orthanc: Orthanc) -> list[Dataset]:
    """Return every SEG in Orthanc, through DICOMweb by another client than ours."""
    client = DICOMwebClient(orthanc.dicomweb)
    client._session.auth = (USER, PASSWORD)
    found = client.search_for_series(search_filters={"Modality": "SEG"})
    uids = [(d.StudyInstanceUID, d.SeriesInstanceUID) for d in map(Dataset.from_json, found)]
    return [seg for pair in uids for seg in client.retrieve_series(*pair)]


def scribble(
    web: Web, image: str, mask: np.ndarray, affine: np.ndarray, folder: Path
) -> np.ndarray:
    """Paint background on a voxel of the mask; return the segment that comes back."""
    painted = mask.astype(np.uint8)
    painted[10, 32, 5] = 2
    nib.save(nib.Nifti1Image(painted, affine), folder / "segments.nii.gz")
    named = [{"name": "tumour", "id": 1}, {"name": "background_scribbles", "id": 2}]
    request = {"label_info": named, "selected_label_name": "tumour", "roi": [], **SLICER}
    segments = str(folder / "segments.nii.gz")
    file, _ = web.client.infer(f"{MODEL}_scribbles", image, request, segments)
    return nrrd.read(file)[0]


def sample(web: Web) -> dict[str, Any]:
    return web.client.next_sample("random", {})


class TestADay:
    def test_next_sample_infer_submit_and_the_mask_is_in_the_pacs(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        study, uid = read_uids(series)
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            given = sample(web)
            assert given["id"] == uid
            assert given["name"] == f"{uid}.nii.gz"
            assert (given["PatientID"], given["StudyInstanceUID"]) == ("synthetic-1", study)
            content = web.send("GET", f"/datastore/image?image={uid}").content
            scan = nib.Nifti1Image.from_bytes(_unpack(content))
            array, affine, lesion = draw_head()
            np.testing.assert_allclose(np.asarray(scan.dataobj), array, atol=1e-4)
            np.testing.assert_allclose(scan.affine, affine, atol=1e-3)

            file, params = web.client.infer(MODEL, uid, SLICER)
            mask, _ = nrrd.read(file)
            assert params["sequence"] == "FLAIR"
            assert 2 * (mask * lesion).sum() / (mask.sum() + lesion.sum()) > 0.9

            corrected = scribble(web, uid, mask, affine, tmp_path)
            assert corrected[10, 32, 5] == 0 < mask[10, 32, 5]
            assert 0 < corrected.sum() < mask.sum()
            mask = corrected
            nib.save(nib.Nifti1Image(mask, affine), tmp_path / "corrected.nii.gz")
            web.client.save_label(uid, str(tmp_path / "corrected.nii.gz"), params=NAMED)
            (seg,) = wait_until(lambda: fetch_segs(orthanc))
            assert web.serving.store.get_unlabeled_images() == []
        seg = hd.seg.Segmentation.from_dataset(seg)
        assert (seg.StudyInstanceUID, seg.PatientID) == (study, "synthetic-1")
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == uid
        segment = seg.get_segment_description(1)
        assert (segment.segment_label, segment.algorithm_type.value) == ("tumour", "SEMIAUTOMATIC")
        assert segment.algorithm_identification[0].AlgorithmName == MODEL
        assert segment.algorithm_identification[0].AlgorithmVersion == "0.0.1"
        stored = seg.get_volume(combine_segments=True, allow_missing_positions=True).array
        assert stored.sum() == mask.sum() > 0

    def test_a_mask_is_sent_once_also_by_the_next_server(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            file, _ = web.client.infer(MODEL, sample(web)["id"], SLICER)
            web.client.save_label(read_uids(series)[1], file, params=NAMED)
            wait_until(lambda: fetch_segs(orthanc))
            web.serving.outbox.send_waiting()
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            web.serving.outbox.send_waiting()
        assert len(fetch_segs(orthanc)) == 1

    def test_sequences_of_a_study_go_to_the_model_together(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        write_study(tmp_path / "flair", SeriesNumber=3)
        write_study(tmp_path / "t2", SeriesNumber=4, SeriesDescription="t2_tse_tra")
        for name in ("flair", "t2"):
            orthanc.add(tmp_path / name)
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            assert web.serving.store.list_images() == [read_uids(tmp_path / "flair")[1]]
            _, params = web.client.infer(MODEL, sample(web)["id"], SLICER)
        assert any("T2" in warning for warning in params["warnings"])


class TestTrouble:
    def test_a_pacs_that_is_down_is_said_and_the_mask_waits(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        other = write_study(tmp_path / "other", "synthetic-2")
        orthanc.add(other)
        uids = {read_uids(series)[1], read_uids(other)[1]}
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            uid = sample(web)["id"]
            (absent,) = uids - {uid}
            pacs = web.serving.store._source.pacs
            address, pacs._client.base_url = pacs._client.base_url, "http://127.0.0.1:9/dicom-web"
            file, _ = web.client.infer(MODEL, uid, SLICER)  # its series is here already
            refused = web.send("POST", f"/infer/{MODEL}?image={absent}")
            assert refused.status_code == 503
            assert "cannot be reached. Check the address" in refused.text
            web.client.save_label(uid, file, params=NAMED)
            wait_until(lambda: "cannot be reached" in web.serving.outbox.waiting.get(uid, ""))
            assert fetch_segs(orthanc) == []
            said = "1 submitted mask is not in the PACS yet: "
            assert said in web.client.info()["warning"]
            assert said in web.send("GET", "/").text
            assert said in web.client.infer(MODEL, uid, SLICER)[1]["warnings"][-1]
            pacs._client.base_url = address
            web.serving.outbox.wake()
            wait_until(lambda: fetch_segs(orthanc))
            assert wait_until(lambda: web.serving.outbox.waiting == {})
            assert "warning" not in web.client.info()
            assert "PACS" not in web.send("GET", "/").text

    def test_a_pacs_that_hangs_is_not_waited_for(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        _, uid = read_uids(series)
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            client = web.serving.store._source.pacs._client
            patient, client._timeout = client._timeout, (2.0, 1.0)
            orthanc.process.send_signal(signal.SIGSTOP)
            try:
                refused = web.send("POST", f"/infer/{MODEL}?image={uid}")
            finally:
                orthanc.process.send_signal(signal.SIGCONT)
                client._timeout = patient
            assert refused.status_code == 503
            assert "did not answer in time" in refused.text
            assert web.client.infer(MODEL, uid, SLICER)[1]["sequence"] == "FLAIR"

    def test_a_series_with_missing_slices_is_no_sample_and_says_why(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        _, uid = read_uids(series)
        (third,) = (p for p in series.iterdir() if dcmread(p).InstanceNumber == 5)
        (instance,) = orthanc.find("Instance", SOPInstanceUID=str(dcmread(third).SOPInstanceUID))
        orthanc.ask("DELETE", f"/instances/{instance}")
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            for answer in (
                web.send("POST", "/activelearning/random"),
                web.send("POST", f"/infer/{MODEL}?image={uid}"),
            ):
                assert answer.status_code == 400
                assert "seem to be missing: the gaps between them range from 4" in answer.text
            whole = write_study(tmp_path / "whole", "synthetic-2")
            orthanc.add(whole)
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            assert sample(web)["id"] == read_uids(whole)[1]

    def test_a_label_does_not_pass_to_another_scan_under_the_same_series(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        _, uid = read_uids(series)
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            file, _ = web.client.infer(MODEL, sample(web)["id"], SLICER)
            web.client.save_label(uid, file, params=NAMED)
            wait_until(lambda: fetch_segs(orthanc))
        orthanc.clear()
        orthanc.add(write_study(tmp_path / "second", seed=1, SeriesInstanceUID=uid))
        with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
            web.client.infer(MODEL, uid, SLICER)  # which brings the new series
            store = web.serving.store
            assert store.get_unlabeled_images() == [uid]
            assert web.send("GET", f"/datastore/label?label={uid}&tag=final").status_code == 404
            assert [version.number for version in store.list_versions(uid)] == [1]
            web.serving.outbox.send_waiting()
        assert fetch_segs(orthanc) == []

    def test_a_wrong_password_is_said(
        self, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HEATMASK_DICOMWEB_PASSWORD", "wrong")
        with pytest.raises(PacsError, match=r"\(status 401\). Set HEATMASK_DICOMWEB_USER"):
            PacsStudies(Pacs(orthanc.dicomweb), tmp_path)

    def test_netrc_knows_the_password_too(
        self, orthanc: Orthanc, series: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("HEATMASK_DICOMWEB_USER")
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        monkeypatch.setenv("NETRC", str(netrc))
        assert len(Pacs(orthanc.dicomweb).list_series({"Modality": "MR"})) == 1

    def test_a_filter_that_finds_nothing_is_said(
        self, orthanc: Orthanc, series: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=r"no series with Modality CT\. Check the filter"):
            PacsStudies(Pacs(orthanc.dicomweb), tmp_path, {"Modality": "CT"})

    def test_a_wrong_address_is_said(self, orthanc: Orthanc, tmp_path: Path) -> None:
        with pytest.raises(PacsError, match=r"\(404\)"):
            PacsStudies(Pacs(f"{orthanc.url}/nothing"), tmp_path)
        with pytest.raises(OptionError, match="Leave name and password out"):
            Pacs("http://me:secret@127.0.0.1/dicom-web")


def test_segment_takes_a_study_and_sends_the_mask_back(
    orthanc: Orthanc, series: Path, tmp_path: Path
) -> None:
    study, uid = read_uids(series)
    bundle = write_bundle(tmp_path / MODEL)
    arguments = ["segment", "--dicomweb", orthanc.dicomweb, "--study", study, "--send-seg"]
    arguments += ["-o", str(tmp_path / "out"), "--bundle", str(bundle)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    report = json.loads((tmp_path / "out" / uid / "report.json").read_text())
    assert report["sequence"] == "FLAIR"
    (seg,) = fetch_segs(orthanc)
    written = dcmread(tmp_path / "out" / uid / f"{uid}_mask.dcm")
    assert seg.SOPInstanceUID == written.SOPInstanceUID
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


@pytest.mark.slow
def test_a_submitted_mask_is_seen_in_ohif(orthanc: Orthanc, tmp_path: Path) -> None:
    (tmp_path / "viewer").mkdir()
    viewer = fetch_viewer(tmp_path / "viewer")
    series = write_study(tmp_path / "series", WindowCenter=200, WindowWidth=400)
    orthanc.add(series)
    study, uid = read_uids(series)
    with run_web(tmp_path, pacs=orthanc.dicomweb) as web:
        file, _ = web.client.infer(MODEL, uid, SLICER)
        web.client.save_label(uid, file, params=NAMED)
        (seg,) = wait_until(lambda: fetch_segs(orthanc))
    counts = {}
    with run_ohif(viewer, orthanc) as url, run_chromium(tmp_path) as page:
        show_seg(page, url, study, seg.SeriesInstanceUID)
        for number in (9, 13):  # with the lesion and without, numbered from the top
            scroll_to(page, f"{number}/14")
            page.photograph(tmp_path / "page.png")
            counts[number] = count_coloured(tmp_path / "page.png")
    assert counts[9] > 1000
    assert counts[13] < counts[9] / 20


def _unpack(content: bytes) -> bytes:
    import gzip

    return gzip.GzipFile(fileobj=io.BytesIO(content)).read()
