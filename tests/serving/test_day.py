"""A day of a person with real scans, through HTTP: from connecting to a mask by the new weights."""

import shutil
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from heatmask.experiments.simulated_user import place_stroke
from helpers.learning import write_unsure_bundle
from helpers.server import Server, run_server

MODEL = "brain_mri_gp_unet_segmentation"
LEARNED = f"{MODEL}_learned"
PATIENTS = ("TCGA-DU-6404", "TCGA-HT-8113")
QUICK = {"way": "joint", "max_epochs": 3, "slices_per_epoch": 512}
SEGMENTS = ("tumour", "background_scribbles", "foreground_scribbles")


def measure_dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * float(((mask > 0) & truth).sum()) / float((mask > 0).sum() + truth.sum())


def scribble(server: Server, image: str, mask: np.ndarray, truth: np.ndarray, scan: Any) -> Any:
    """Stroke along the largest error."""
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0).tolist()
    stroke = place_stroke(mask > 0, truth, spacing)
    painted = mask.astype(np.uint8)
    painted[tuple(stroke.voxels.T)] = 3 if stroke.positive else 2
    file = server.work / "segments.nii.gz"
    nib.save(nib.Nifti1Image(painted, scan.affine), file)
    info = [{"name": name, "id": value} for value, name in enumerate(SEGMENTS, start=1)]
    request = {"label_info": info, "selected_label_name": "tumour", "roi": []}
    return server.infer(image, f"{MODEL}_scribbles", options=request, label_in=str(file))[0]


def wait_for_training(server: Server) -> dict[str, Any]:
    deadline = time.monotonic() + 900
    while (status := server.client.train_status(False))["status"] == "RUNNING":
        assert time.monotonic() < deadline, status
        time.sleep(1)
    return status


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_connect_next_infer_tune_scribble_submit_train_and_infer_again(
    lgg: Path, tmp_path: Path
) -> None:
    studies, bundles = tmp_path / "studies", tmp_path / "bundles"
    truths = {}
    for patient in PATIENTS:
        (studies / patient).mkdir(parents=True)
        for name in (f"{patient}-t2f.nii.gz", f"{patient}-seg.nii.gz"):
            shutil.copy(lgg / patient / name, (studies / patient if "t2f" in name else tmp_path))
        truths[patient] = nib.load(tmp_path / f"{patient}-seg.nii.gz")
    write_unsure_bundle(MODEL, bundles / MODEL)
    with run_server(studies, bundles, tmp_path) as server:
        client = server.client
        info = client.info()
        assert (list(info["trainers"]), next(iter(info["models"]))) == ([MODEL], MODEL)
        assert {"most_disagreement", "most_different"} < set(info["strategies"])

        sample = client.next_sample("first", {})
        image = sample["id"]
        patient = image.removesuffix("-t2f")
        truth = np.asarray(truths[patient].dataobj) > 0
        first, _, said = server.infer(image, MODEL)
        assert said["text"].startswith("No tumour predicted")
        assert not first.any()

        tuned, _, said = server.infer(image, MODEL, options={"gate": False})
        assert "but the gate is off: pseudo-mask of" in said["text"]
        before = measure_dice(tuned, truth)
        scribbled = scribble(server, image, tuned, truth, truths[patient])
        assert measure_dice(scribbled, truth) > before

        named = {"label_info": [{"name": "tumour", "idx": 1}], "model": MODEL}
        for name in PATIENTS:  # which the person has corrected to the last voxel
            label = str(tmp_path / f"{name}-seg.nii.gz")
            client.save_label(f"{name}-t2f", label, params=named)
        assert client.next_sample("first", {}) == {}

        client.train_start(MODEL, {**info["trainers"][MODEL]["config"], **QUICK})
        ended = wait_for_training(server)
        assert ended["status"] == "DONE", ended
        assert "Published as" in ended["result"], ended

        assert list(client.info()["models"])[:2] == [LEARNED, MODEL]
        again, _, said = server.infer(image, LEARNED)
        assert said["version"].endswith("+1")
        assert measure_dice(again, truth) > 0.3
