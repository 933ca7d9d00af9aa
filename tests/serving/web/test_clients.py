"""MONAI Label's own client, as 3D Slicer's panels drive it, and what once went wrong for people."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from monailabel.client.client import MONAILabelClient, MONAILabelClientException

from helpers.server import MODEL, SLICER
from helpers.serving_stub import tilt_affine, write_scan
from helpers.web import Web

MASK = np.zeros((14, 60, 52), np.uint8)
MASK[4, 5, 6] = 1


def connect(web: Web, name: str) -> MONAILabelClient:
    """Return a client of somebody's own, as Slicer makes one: "user-xyz"."""
    folder = Path(web.client._tmpdir) / name
    folder.mkdir(exist_ok=True)
    return MONAILabelClient(web.url, tmpdir=str(folder), client_id=name)


def write_label(path: Path, mask: np.ndarray = MASK, affine: np.ndarray | None = None) -> str:
    nib.save(nib.Nifti1Image(mask, tilt_affine() if affine is None else affine), path)
    return str(path)


INFO = {"label_info": [{"name": "tumour", "idx": 1}], "model": MODEL}


def test_the_clients_calls_in_slicers_order(own_web: Web, tmp_path: Path) -> None:
    client = connect(own_web, "user-1")
    assert client.auth_enabled() is False
    info = client.info()
    assert next(iter(info["models"])) == MODEL
    assert info["models"][MODEL]["type"] == "segmentation"
    assert not client.train_status(check_if_running=True)
    sample = client.next_sample("first", {})
    assert sample["id"] == "p1-flair"
    scan = own_web.send("GET", f"/datastore/image?image={sample['id']}")
    path = own_web.studies / "p1/p1-flair.nii.gz"
    assert scan.content == path.read_bytes() == Path(sample["path"]).read_bytes()
    assert 'filename="p1-flair.nii.gz"' in scan.headers["Content-Disposition"]
    checked = own_web.send(
        "HEAD", f"/datastore/image?image=p1-flair&check_sum={sample['checksum']}"
    )
    assert checked.status_code == 200
    config = info["models"][MODEL]["config"]
    file, params = client.infer(MODEL, sample["id"], {**config, **SLICER})
    mask, header = nrrd.read(file)
    assert mask.any()
    assert params["label_names"] == {"tumour": 1}
    assert params["warnings"] == []
    mask[:2] = 1
    nrrd.write(str(tmp_path / "corrected.nrrd"), mask, header)
    saved = client.save_label(sample["id"], str(tmp_path / "corrected.nrrd"), params=dict(INFO))
    assert (saved["image"], saved["label"], saved["version"]) == ("p1-flair", "p1-flair", 1)
    back, _ = nrrd.read(client.download_label("p1-flair", "final"))
    np.testing.assert_array_equal(back, mask)
    stored = client.datastore()["objects"]["p1-flair"]["labels"]["final"]["info"]
    assert stored["label_info"] == INFO["label_info"]
    assert (stored["person"], stored["model"], stored["conflict"]) == ("anonymous", MODEL, None)
    assert client.info()["datastore"]["completed"] == 1
    assert client.next_sample("random", {})["id"] == "p2-flair"
    client.save_label("p2-flair", write_label(tmp_path / "l.nii.gz"), params=dict(INFO))
    assert client.next_sample("random", {}) == {}


@pytest.mark.parametrize("name", ["6: t2_flair", "MR (5)", "Größe/2", "a%2Fb", "..", "p1-flair"])
def test_a_volume_that_is_open_already_is_run_under_its_own_name(
    own_web: Web, scan: Path, name: str, tmp_path: Path
) -> None:
    client = connect(own_web, "user-1")
    for _ in range(2):  # the same name again, after the volume was opened again
        sent = client.upload_image(str(scan), name)["image"]
        _, params = client.infer(MODEL, name, dict(SLICER))
        assert params["finding"].startswith("Tumour")
        label = write_label(tmp_path / "label.nii.gz")
        assert client.save_label(name, label, params=dict(INFO))["label"] == sent
    assert set(client.datastore()["objects"]) == {"p1-flair", "p2-flair"}
    assert connect(own_web, "user-2").next_sample("first", {})["id"] == "p1-flair"
    if name != "p1-flair":
        with pytest.raises(MONAILabelClientException, match="404"):
            connect(own_web, "user-2").infer(MODEL, name, dict(SLICER))
    assert own_web.send("DELETE", f"/datastore/image?id={sent}&client_id=user-1").ok
    before = (own_web.studies / "p1/p1-flair.nii.gz").read_bytes()
    own_web.send("PUT", "/datastore/image?image=p1-flair.nii.gz", files={"file": ("x.gz", b"x")})
    assert (own_web.studies / "p1/p1-flair.nii.gz").read_bytes() == before


def test_what_a_client_calls_itself_is_text_on_the_page(own_web: Web) -> None:
    client = connect(own_web, "user")
    client._client_id = "<script>x</script>"
    client.next_sample("first", {})
    page = own_web.send("GET", "/").text
    assert "<script" not in page
    assert "anonymous/&lt;script&gt;x&lt;/script&gt;: p1-flair" in page


def test_an_image_is_shared_when_asked_for(own_web: Web, scan: Path) -> None:
    sent = connect(own_web, "user-1").upload_image(str(scan), "mine", {"shared": True})["image"]
    assert sent in connect(own_web, "user-2").datastore()["objects"]


def test_two_people_get_two_studies_and_both_labels_are_kept(own_web: Web, tmp_path: Path) -> None:
    """Finding 4."""
    a, b = connect(own_web, "a"), connect(own_web, "b")
    assert a.next_sample("first", {})["id"] == "p1-flair"
    assert b.next_sample("first", {})["id"] == "p2-flair"
    assert a.next_sample("first", {})["id"] == "p1-flair"
    assert connect(own_web, "c").next_sample("random", {}) == {}
    assert "anonymous/a: p1-flair" in own_web.send("GET", "/").text
    a.save_label("p1-flair", write_label(tmp_path / "a.nii.gz"), params=dict(INFO))
    other = nib.load(write_label(tmp_path / "b.nii.gz", MASK[::-1]))
    nrrd.write(str(tmp_path / "b.nrrd"), np.asarray(other.dataobj), {
        "space": "left-posterior-superior",
        "space directions": (np.diag([-1.0, -1, 1, 1]) @ tilt_affine())[:3, :3].T,
        "space origin": (np.diag([-1.0, -1, 1, 1]) @ tilt_affine())[:3, 3],
    })  # fmt: skip
    saved = b.save_label("p1-flair", str(tmp_path / "b.nrrd"), params=dict(INFO))
    assert (saved["version"], saved["conflict"]) == (2, "anonymous")
    versions = own_web.send("GET", "/datastore/label/versions?image=p1-flair").json()
    assert [v["version"] for v in versions] == [1, 2]
    own_web.send("POST", "/datastore/label/restore?image=p1-flair&number=1").raise_for_status()
    back = nib.load(a.download_label("p1-flair", "final"))
    np.testing.assert_array_equal(np.asarray(back.dataobj), MASK)
    assert own_web.send("DELETE", "/datastore/label?id=p1-flair&tag=final").ok
    assert own_web.send("HEAD", "/datastore/label?image=p1-flair&tag=final").status_code == 404


@pytest.mark.fault("E")
def test_no_label_is_lost_to_a_file_that_is_none(own_web: Web, tmp_path: Path) -> None:
    """Finding 6; and a label in another place than its image."""
    client = connect(own_web, "user-1")
    path = write_label(tmp_path / "good.nii.gz")
    good, moved = Path(path).read_bytes(), tilt_affine()
    client.save_label("p1-flair", path, params=dict(INFO))
    moved[0, 3] += 5

    def save(array: np.ndarray, affine: np.ndarray) -> bytes:
        return Path(write_label(tmp_path / "label.nii.gz", array, affine)).read_bytes()

    for content, name, text in (
        (b"", "empty.nii.gz", "empty.nii.gz"),
        (b"", "empty.nrrd", "NRRD"),
        (good[: len(good) // 2], "cut.nii.gz", "cut off"),
        (b"NRRD0004\n", "cut.nrrd", "NRRD"),
        (save(MASK[:, ::2].copy(), tilt_affine()), "coarse.nii.gz", "14 x 30 x 52 voxels"),
        (save(np.zeros((10, 10, 4), np.uint8), tilt_affine()), "small.nii.gz", "10 x 10 x 4"),
        (save(MASK, np.eye(4)), "identity.nii.gz", "mm"),
        (save(MASK, moved), "moved.nii.gz", "5 mm apart"),
        (save(MASK * np.float32(0.3), tilt_affine()), "heatmap.nii.gz", "probability map"),
        (save(MASK * np.uint8(3), tilt_affine()), "unnamed.nii.gz", "name every value"),
        (good, "label.txt", "cannot be read"),
    ):
        answer = own_web.send(
            "PUT", "/datastore/label?image=p1-flair",
            files={"label": (name, content)}, data={"params": json.dumps(INFO)},
        )  # fmt: skip
        assert (answer.status_code, text in answer.text or text == name) == (400, True), answer.text
        kept = client.download_label("p1-flair", "final")
        assert Path(kept).read_bytes() == good, name
    for wrong in ('{"label_info": 5}', '{"label_info": [{"name": 1, "idx": 1}]}', "{"):
        answer = own_web.send(
            "PUT", "/datastore/label?image=p1-flair",
            files={"label": ("a.nii.gz", good)}, data={"params": wrong},
        )  # fmt: skip
        assert answer.status_code == 422
    healthy = write_label(tmp_path / "healthy.nii.gz", np.zeros_like(MASK))
    assert client.save_label("p1-flair", healthy, params=dict(INFO))["version"] == 2


def test_an_inference_never_replaces_what_a_person_submitted(own_web: Web, tmp_path: Path) -> None:
    """Finding 5."""
    client = connect(own_web, "user-1")
    client.save_label("p1-flair", write_label(tmp_path / "l.nii.gz"), params=dict(INFO))
    final = Path(client.download_label("p1-flair", "final")).read_bytes()
    client.infer(MODEL, "p1-flair", {"save_label": True})
    with pytest.raises(MONAILabelClientException, match="422"):
        client.infer(MODEL, "p1-flair", {"save_label": True, "label_tag": "final"})
    assert Path(client.download_label("p1-flair", "final")).read_bytes() == final
    stored = client.datastore()["objects"]["p1-flair"]["labels"]
    assert stored["original"]["info"]["params"]["finding"].startswith("Tumour")


def test_what_is_said_of_an_image_changes_neither_its_name_nor_its_place(own_web: Web) -> None:
    """Finding 8."""
    path = "/datastore/image/info?image=p1-flair"
    said = {"id": "p2-flair", "name": "../../..", "path": "/etc/passwd", "remark": "blurred",
            "strategy": {"first": 5}}  # fmt: skip
    own_web.send("PUT", path, data={"info": json.dumps(said)}).raise_for_status()
    info = own_web.send("GET", path).json()
    assert (info["remark"], info["name"]) == ("blurred", "p1-flair.nii.gz")
    assert "path" not in info
    sample = connect(own_web, "user-1").next_sample("first", {})
    assert (sample["id"], sample["name"]) == ("p1-flair", "p1-flair.nii.gz")
    assert Path(sample["path"]) == own_web.studies / "p1/p1-flair.nii.gz"
    for strategy in ({"random": "x"}, {"random": {"ts": "x"}}, [1]):
        own_web.send("PUT", path, data={"info": json.dumps({"strategy": strategy})})
        assert connect(own_web, "user-1").next_sample("random", {})["id"]


def test_a_session_is_a_scan_for_a_while(own_web: Web, scan: Path) -> None:
    client = connect(own_web, "user-1")
    opened = client.create_session(str(scan))
    session = opened["session_id"]
    assert client.get_session(session)["name"] == session
    assert str(own_web.serving.folder) not in json.dumps(opened)
    _, params = client.infer(MODEL, "", dict(SLICER), session_id=session)
    assert params["finding"].startswith("Tumour")
    assert own_web.send("GET", f"/session/{session}?image=true").content == scan.read_bytes()
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException):
        client.get_session(session)
    with pytest.raises(MONAILabelClientException, match="open a new session"):
        client.infer(MODEL, "", dict(SLICER), session_id=session)
    assert not list(own_web.serving.folder.glob("sent/*"))


def test_a_session_expires(own_web: Web, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = own_web.serving.sessions.create(scan, "scan", "anonymous", 5)
    session.used -= 6
    own_web.serving.expire()
    assert own_web.send("GET", f"/session/{session.id}").status_code == 404
    assert not list(own_web.serving.folder.glob("sent/*"))


def test_a_session_names_no_folder(own_web: Web, tmp_path: Path) -> None:
    """Findings 2 and 3."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/meta.info").write_text(json.dumps({"image": "/missing"}))
    for name in (str(tmp_path / "victim"), "../victim", "%2e%2e"):
        answer = own_web.send(
            "POST", f"/infer/{MODEL}", params={"image": "p1-flair", "session_id": name}
        )
        assert answer.status_code in (404, 422)
    assert (tmp_path / "victim/meta.info").is_file()


def test_a_file_alone_is_enough(own_web: Web, scan: Path) -> None:
    client = connect(own_web, "user-1")
    _, params = client.infer(MODEL, "", dict(SLICER), file=str(scan))
    assert params["finding"].startswith("Tumour")
    assert set(client.datastore()["objects"]) == {"p1-flair", "p2-flair"}


def test_scribbles_may_come_with_an_inference(own_web: Web, tmp_path: Path) -> None:
    strokes = write_label(tmp_path / "strokes.nii.gz")
    _, params = connect(own_web, "u").infer(MODEL, "p1-flair", dict(SLICER), label_in=strokes)
    assert params["finding"].startswith("Tumour")


def test_the_answer_comes_in_the_form_asked_for(own_web: Web) -> None:
    path = f"/infer/{MODEL}?image=p1-flair&output="
    mask = own_web.send("POST", path + "image", data={"params": '{"result_extension": ".nii.gz"}'})
    assert nib.Nifti1Image.from_bytes(gzip.decompress(mask.content)).shape == MASK.shape
    facts = own_web.send("POST", path + "json").json()
    assert facts["finding"].startswith("Tumour")
    whole = own_web.send("POST", path + "all")
    assert whole.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="params"' in whole.content
    assert b'name="image"; filename="' in whole.content


def test_errors_name_the_scan_and_what_is_allowed(own_web: Web, tmp_path: Path) -> None:
    client = connect(own_web, "user-1")
    for options, text in (
        ({"threshold_level": "$1"}, "p1-flair: threshold_level must not start with"),
        ({"gate": "maybe"}, "p1-flair: gate must be true or false"),
        ({"threshold_level": "nan"}, "threshold_level must be"),
        ({"threshold_level": "1e999"}, "threshold_level must be"),
        ({"threshold_rule": [["otsu"]]}, "threshold_rule must be one of"),
        ({"device": "cuda:99"}, "device"),
    ):
        with pytest.raises(MONAILabelClientException) as failure:
            client.infer(MODEL, "p1-flair", options)
        assert "Status: 400" in failure.value.msg
        assert text in failure.value.msg
    _, params = client.infer(MODEL, "p1-flair", {"unknown": {"a": [1]}})
    assert "Ignored what is no option of this model: unknown" in params["warnings"][0]


def test_a_damaged_study_is_said_without_its_place(own_web: Web) -> None:
    path = own_web.studies / "p1/p1-flair.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:9000])
    with pytest.raises(MONAILabelClientException) as failure:
        connect(own_web, "user-1").infer(MODEL, "p1-flair", {})
    assert "p1-flair: 'p1-flair.nii.gz' is cut off or damaged" in failure.value.msg
    assert str(own_web.studies) not in failure.value.msg
    os.unlink(path)
    assert own_web.send("GET", "/datastore/image?image=p1-flair").status_code == 404
    with pytest.raises(MONAILabelClientException, match="p1-flair"):
        connect(own_web, "user-1").infer(MODEL, "p1-flair", {})
    assert connect(own_web, "user-1").next_sample("first", {})["id"] == "p2-flair"


def test_studies_are_not_written(own_web: Web, tmp_path: Path) -> None:
    """Finding 1."""
    before = {p: p.read_bytes() for p in own_web.studies.rglob("*") if p.is_file()}
    other = tmp_path / "other.nii.gz"
    write_scan(other, lesion=False)
    content = other.read_bytes()
    for name in ("p1-flair.nii", "p1-flair.nii.gz", "p1-flair", "../p1-flair"):
        for file in ("x.gz", "x", "x.nii.gz", "p1-flair.nii.gz"):
            own_web.send(
                "PUT", "/datastore/image", params={"image": name}, files={"file": (file, content)}
            )
    assert {p: p.read_bytes() for p in own_web.studies.rglob("*") if p.is_file()} == before
    assert own_web.send("GET", "/datastore/image?image=p2-flair&client_id=z").content in (
        before.values()
    )


def test_a_study_that_is_gone_or_a_pipe_is_said_to_be_gone_and_holds_up_nothing(
    own_web: Web, scan: Path
) -> None:
    study = own_web.studies / "p1/p1-flair.nii.gz"
    for replace in (lambda: None, lambda: os.mkfifo(study)):
        if study.exists():
            study.unlink()
        replace()
        for method, path, files in (
            ("GET", "/datastore/image?image=p1-flair", None),
            ("POST", f"/infer/{MODEL}?image=p1-flair", None),
            ("PUT", "/datastore/label?image=p1-flair", {"label": ("a.nii.gz", scan.read_bytes())}),
        ):
            answer = own_web.http.request(method, own_web.url + path, files=files, timeout=60)
            assert (answer.status_code, "is gone" in answer.text) == (404, True), (method, path)
