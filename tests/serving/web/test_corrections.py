"""Scribbles and Smart Edit as 3D Slicer's panels send them, with MONAI Label's own client."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
from monailabel.client.client import MONAILabelClient, MONAILabelClientException

from helpers.server import MODEL, SLICER
from helpers.serving_stub import tilt_affine, write_scan
from helpers.waiting import PATIENCE_S
from helpers.web import SLOW, Web

SCRIBBLES, CLICKS = f"{MODEL}_scribbles", f"{MODEL}_clicks"
SEGMENTS = ("tumour", "background_scribbles", "foreground_scribbles", "oedema")
SHAPE = (14, 60, 52)
INSIDE, BESIDE = (5, 38, 14), (8, 14, 36)  # in the bundle's mask; in the head


@pytest.fixture
def slicer(web: Web, tmp_path: Path) -> MONAILabelClient:
    """Somebody's own Slicer."""
    return MONAILabelClient(web.url, tmpdir=str(tmp_path), client_id=tmp_path.name)


def send_segments(
    client: MONAILabelClient, painted: dict[str, Any], image: str = "p1-flair", **params: Any
) -> np.ndarray:
    """Send segments as the panel of scribbles does; return the segment that is to replace one.

    `painted` maps names to voxels or masks; `affine` is that of the volume, by default the scan's.
    """
    affine, shape = params.pop("affine", tilt_affine()), params.pop("shape", SHAPE)
    volume = np.zeros(shape, np.uint8)
    for value, name in enumerate(SEGMENTS, start=1):
        where = painted.get(name)
        if where is not None:
            where = np.asarray(where)
            volume[where if where.dtype == bool else tuple(where.T)] = value
    file = Path(client._tmpdir) / "segments.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), file)
    info = [{"name": name, "id": value} for value, name in enumerate(SEGMENTS, start=1)]
    request = {"label_info": info, "selected_label_name": "tumour", "roi": [], **SLICER, **params}
    answer, facts = client.infer(SCRIBBLES, image, request, str(file))
    assert facts["label_names"] == {request["selected_label_name"]: 1}
    return nrrd.read(answer)[0]


def send_clicks(client: MONAILabelClient, image: str = "p1-flair", **params: Any) -> np.ndarray:
    request = {"label": "tumour", "foreground": [], "background": [], **SLICER, **params}
    answer, _ = client.infer(CLICKS, image, request)
    return nrrd.read(answer)[0]


def run_bundle(client: MONAILabelClient, image: str = "p1-flair") -> np.ndarray:
    return nrrd.read(client.infer(MODEL, image, dict(SLICER))[0])[0]


def test_the_panels_appear_and_run_is_still_the_first_model(web: Web) -> None:
    models = web.client.info()["models"]
    assert next(iter(models)) == MODEL
    assert [models[name]["type"] for name in (MODEL, SCRIBBLES, CLICKS)] == [
        "segmentation", "scribbles", "deepgrow",
    ]  # fmt: skip
    assert models[CLICKS]["dimension"] == 3
    assert models[SCRIBBLES]["labels"] == {"tumour": 1}


def test_scribbles_begin_with_the_bundles_mask(slicer: MONAILabelClient) -> None:
    own = run_bundle(slicer) == 1
    first = send_segments(slicer, {"foreground_scribbles": [BESIDE]})
    assert first[own].all()
    assert first[BESIDE] == 1
    second = send_segments(
        slicer,
        {"tumour": first == 1, "foreground_scribbles": [BESIDE], "background_scribbles": [INSIDE]},
    )
    assert second[INSIDE] == 0
    assert second[BESIDE] == 1
    other = send_segments(slicer, {"tumour": second == 1, "oedema": [(9, 30, 30)]},
                          selected_label_name="oedema")  # fmt: skip
    assert other.sum() == 1, "a label of the user's own, of which the bundle knows nothing"


def test_a_painted_mask_is_corrected_not_replaced(slicer: MONAILabelClient) -> None:
    mine = np.zeros(SHAPE, bool)
    mine[9:11, 12:20, 30:40] = True
    np.testing.assert_array_equal(send_segments(slicer, {"tumour": mine}), mine)
    roi = send_segments(slicer, {"tumour": mine}, roi=[9, 9, 0, 59, 51, 0])
    np.testing.assert_array_equal(roi[9], mine[9])
    assert not roi[10].any(), "outside the region of interest"
    after = send_segments(slicer, {"tumour": mine, "background_scribbles": [(10, 16, 31)]})
    assert after[10, 16, 31] == 0
    assert not (after.astype(bool) & ~mine).any()


def test_segments_may_be_stored_in_another_order(slicer: MONAILabelClient) -> None:
    """As a viewer may write them: axes swapped, one mirrored."""
    change = np.array([[2.0, 1], [0, -1], [1, 1]])
    affine = tilt_affine() @ nib.orientations.inv_ornt_aff(change, SHAPE)
    turned = nib.apply_orientation(np.ones(SHAPE), change).shape
    point = nib.orientations.inv_ornt_aff(change, SHAPE)
    voxel = np.rint(np.linalg.inv(point) @ [*BESIDE, 1])[:3].astype(int)
    answer = send_segments(slicer, {"foreground_scribbles": [voxel]}, affine=affine, shape=turned)
    assert answer[BESIDE] == 1
    assert answer[INSIDE] == 1


@pytest.mark.parametrize(
    ("painted", "params", "text"),
    [
        ({}, {"shape": (14, 60, 50)}, "must lie on the voxels of its scan"),
        ({}, {"affine": np.eye(4)}, "Its affine is the identity"),
        ({}, {"selected_label_name": "liver"}, "one of the segments tumour, oedema, got 'liver'"),
        ({}, {"selected_label_name": None}, "one of the segments tumour, oedema, got 'None'"),
        ({"oedema": [BESIDE]}, {"label_info": [{"name": "tumour", "id": 1}]}, "every value"),
        ({}, {"label_info": "tumour"}, "label_info must list the segments"),
        ({}, {"roi": [1, 2]}, "roi must be six voxel numbers"),
    ],
    ids=["shape", "affine", "name", "none", "unnamed", "no list", "roi"],
)  # fmt: skip
def test_wrong_scribbles_are_refused_with_what_is_wrong(
    slicer: MONAILabelClient, painted: dict[str, Any], params: dict[str, Any], text: str
) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        send_segments(slicer, painted, **params)
    assert text in str(caught.value.msg), caught.value.msg


def test_scribbles_without_their_segments_are_refused(web: Web) -> None:
    info = {"label_info": [{"name": "tumour", "id": 1}], "selected_label_name": "tumour"}
    with pytest.raises(MONAILabelClientException) as caught:
        web.client.infer(SCRIBBLES, "p1-flair", info)
    assert "must come with the segments" in caught.value.msg


def test_clicks_begin_with_the_bundles_mask_and_are_taken_back(slicer: MONAILabelClient) -> None:
    own = run_bundle(slicer)
    np.testing.assert_array_equal(send_clicks(slicer), own)
    added = send_clicks(slicer, foreground=[list(BESIDE)])
    assert added[own == 1].all()
    assert added[BESIDE] == 1
    removed = send_clicks(slicer, foreground=[list(BESIDE)], background=[list(INSIDE)])
    assert removed[INSIDE] == 0
    np.testing.assert_array_equal(send_clicks(slicer, foreground=[list(BESIDE)]), added)
    np.testing.assert_array_equal(send_clicks(slicer), own)
    again = send_clicks(slicer, background=[list(INSIDE)], reset_state=True)
    assert again[INSIDE] == 0


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([[14, 0, 0]], "14 x 60 x 52 voxels"),
        ([[1, 2]], "must be a list of voxels"),
        ([[1.5, 2, 3]], "must be a list of voxels"),
        ("[[1, 2, 3]]", "must be a list of voxels"),
    ],
    ids=["outside", "two", "between", "text"],
)
def test_wrong_clicks_are_refused_and_the_right_ones_stay(
    slicer: MONAILabelClient, points: Any, text: str
) -> None:
    before = send_clicks(slicer, foreground=[list(BESIDE)])
    with pytest.raises(MONAILabelClientException) as caught:
        send_clicks(slicer, foreground=points)
    assert text in caught.value.msg
    np.testing.assert_array_equal(send_clicks(slicer, foreground=[list(BESIDE)]), before)


def test_a_scan_that_was_replaced_between_two_clicks_is_another_scan(own_web: Web) -> None:
    client = own_web.client
    assert send_clicks(client, "p1-flair", foreground=[list(BESIDE)])[INSIDE] == 1
    write_scan(own_web.studies / "p1" / "p1-flair.nii.gz", lesion=False)
    after = send_clicks(client, "p1-flair", foreground=[list(BESIDE)])
    assert after[BESIDE] == 1
    assert not after[INSIDE], "the lesion of the former scan"


def test_two_people_correct_one_scan_each_alone(web: Web, tmp_path: Path) -> None:
    one, other = (
        MONAILabelClient(web.url, tmpdir=str(tmp_path), client_id=name) for name in ("ann", "bea")
    )
    send_clicks(one, background=[list(INSIDE)])
    assert send_clicks(other, foreground=[list(BESIDE)])[INSIDE] == 1
    assert send_clicks(one, background=[list(INSIDE)])[INSIDE] == 0


def test_a_correction_does_not_wait_for_a_run(web: Web, slicer: MONAILabelClient) -> None:
    before = send_clicks(slicer)

    def run() -> None:
        with pytest.raises(MONAILabelClientException):
            slicer.infer(SLOW, "p2-flair", {**SLICER, "job": "endless"})

    with web.slow.hold():
        running = threading.Thread(target=run)
        running.start()
        assert web.slow.running.wait(PATIENCE_S)
        assert send_clicks(slicer, foreground=[list(BESIDE)])[before == 1].all()
        assert web.send("GET", "/jobs/endless").json()["state"] == "running"
        web.send("DELETE", "/jobs/endless")
        running.join()


def test_scribbles_on_a_scan_that_was_replaced_keep_the_mask_that_the_viewer_has(
    own_web: Web,
) -> None:
    """What the user has done is in the viewer's mask, which comes with every edit."""
    client, scan = own_web.client, own_web.studies / "p1" / "p1-flair.nii.gz"
    mine = send_segments(client, {"foreground_scribbles": [BESIDE]}) == 1
    write_scan(scan, lesion=False)
    after = send_segments(client, {"tumour": mine, "background_scribbles": [INSIDE]})
    assert not after[INSIDE]
    assert not (after.astype(bool) & ~mine).any()
    head = np.asarray(nib.load(scan).dataobj)
    nib.save(nib.Nifti1Image(head[..., :50], tilt_affine()), scan)
    with pytest.raises(MONAILabelClientException) as caught:
        send_segments(client, {"tumour": mine, "foreground_scribbles": [BESIDE]})
    assert "must lie on the voxels of its scan" in caught.value.msg


def test_an_edit_in_a_session_that_has_expired_says_what_to_do(own_web: Web) -> None:
    client, scan = own_web.client, own_web.studies / "p1" / "p1-flair.nii.gz"
    points = {"label": "tumour", "foreground": [list(BESIDE)], "background": []}

    def click(session: str) -> np.ndarray:
        return nrrd.read(client.infer(CLICKS, "", {**points, **SLICER}, session_id=session)[0])[0]

    session = client.create_session(str(scan))["session_id"]
    first = click(session)
    own_web.serving.sessions._sessions[session].used -= 10**6
    with pytest.raises(MONAILabelClientException) as caught:
        click(session)
    assert "Status: 404" in caught.value.msg
    assert "open a new session" in caught.value.msg
    np.testing.assert_array_equal(click(client.create_session(str(scan))["session_id"]), first)


def test_people_who_correct_one_scan_at_once_get_what_each_alone_gets(
    own_web: Web, tmp_path: Path
) -> None:
    voxels = [(8, 14, 20 + 3 * n) for n in range(4)]
    kinds = ("foreground_scribbles", "background_scribbles")

    def correct(name: str, voxel: tuple[int, int, int]) -> np.ndarray:
        folder = tmp_path / name
        folder.mkdir()
        client = MONAILabelClient(own_web.url, tmpdir=str(folder), client_id=name)
        first = send_segments(client, {kinds[0]: [voxel]})
        return send_segments(client, {"tumour": first == 1, kinds[0]: [voxel], kinds[1]: [INSIDE]})

    alone = [correct(f"alone {n}", voxel) for n, voxel in enumerate(voxels)]
    with ThreadPoolExecutor(4) as pool:
        names = [f"at once {n}" for n in range(4)]
        for one, other in zip(alone, pool.map(correct, names, voxels), strict=True):
            np.testing.assert_array_equal(one, other)
    for voxel, mask in zip(voxels, alone, strict=True):
        assert mask[voxel] == 1


def test_an_edit_of_a_scan_that_is_being_explained_waits_and_is_made(own_web: Web) -> None:
    """The first run of a scan and an edit of it may come together."""
    with ThreadPoolExecutor(3) as pool:
        run = pool.submit(run_bundle, own_web.client)
        edits = [
            pool.submit(
                send_clicks, MONAILabelClient(own_web.url, client_id=name), foreground=[voxel]
            )
            for name, voxel in (("ann", list(BESIDE)), ("bea", list(INSIDE)))
        ]
        mask = run.result()
        for edit, voxel in zip(edits, (BESIDE, INSIDE), strict=True):
            assert edit.result()[voxel] == 1
            assert edit.result()[mask == 1].all()
