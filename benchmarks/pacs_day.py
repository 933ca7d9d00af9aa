"""Take two synthetic heads through a day with the PACS, and draw what came out of each step.

Run as ``PYTHONPATH=tests python benchmarks/pacs_day.py docs/images``. Needs Orthanc with its
DICOMweb plugin, Chromium, and npm for the OHIF viewer. The first head is that of the demo; the
known lesions play the corrections. The classifier is made worse than it is, as it would be on the
images of another scanner, so that there is something to correct and to learn.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import nrrd
import numpy as np
from dicomweb_client import DICOMwebClient
from matplotlib.figure import Figure
from monailabel.client.client import MONAILabelClient
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from phantom import DEMO_SEED, STUDY_SEEDS, Phantom, make_phantom
from pydicom import Dataset

from heatmask.experiments.simulated_user import place_stroke
from helpers.chromium import run_chromium
from helpers.learning import write_unsure_bundle
from helpers.ohif import count_coloured, fetch_viewer, run_ohif, scroll_to, show_seg
from helpers.orthanc import PASSWORD, USER, Orthanc, run_orthanc
from helpers.scan_files import write_dicom_series
from helpers.server import SLICER, Server, run_server

MODEL = "brain_mri_gp_unet_segmentation"
LEARNED = f"{MODEL}_learned"
SEEDS = {"synthetic-1": DEMO_SEED, "synthetic-2": STUDY_SEEDS[0]}
"""The heads by patient; the first one is drawn."""
TRAINING = {"way": "joint", "max_epochs": 3, "slices_per_epoch": 512}
NAMED = {"label_info": [{"name": "tumour", "idx": 1}], "model": MODEL}
SEGMENTS = ("tumour", "background_scribbles", "foreground_scribbles")
PATIENCE_S = 900


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="docs/images")
    arguments = parser.parse_args()
    os.environ |= {"HEATMASK_DICOMWEB_USER": USER, "HEATMASK_DICOMWEB_PASSWORD": PASSWORD}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "orthanc").mkdir()
        with run_orthanc(folder / "orthanc") as orthanc:
            heads = {patient: add_head(orthanc, folder, patient) for patient in SEEDS}
            write_unsure_bundle(MODEL, folder / "bundles" / MODEL)
            with run_server(orthanc.dicomweb, folder / "bundles", folder) as server:
                day = Day(server, orthanc, heads, folder)
                masks = day.correct()
                first = heads["synthetic-1"]
                photograph_ohif(orthanc, first, arguments.folder / "pacs_ohif.png", folder)
                masks |= day.learn()
    for step, mask in masks.items():
        overlap = 2 * int((mask * first.lesion).sum()) / int(mask.sum() + first.lesion.sum())
        print(f"{step}: {int(mask.sum())} voxels, Dice {overlap:.2f} against the known lesion")
    draw(first, masks).savefig(arguments.folder / "pacs_day.png", dpi=110)
    return 0


def add_head(orthanc: Orthanc, folder: Path, patient: str) -> Phantom:
    """Put a head into the PACS."""
    head = make_phantom(SEEDS[patient])
    uid = f"1.2.826.0.1.3680043.8.498.{SEEDS[patient]}"
    about = {
        "PatientID": patient, "PatientName": f"Head^{patient}", "StudyInstanceUID": uid,
        "FrameOfReferenceUID": f"{uid}.1", "SeriesNumber": 3, "StudyDate": "20260101",
        "SeriesDescription": "t2_tirm_tra_dark-fluid", "WindowCenter": 110, "WindowWidth": 220,
    }  # fmt: skip
    orthanc.add(write_dicom_series(folder / patient, head.image, head.affine, **about))
    return head


class Day:
    """What a person does, through MONAI Label's own client; the known lesions play the person."""

    def __init__(
        self, server: Server, orthanc: Orthanc, heads: dict[str, Phantom], folder: Path
    ) -> None:
        self.server, self.orthanc, self.heads, self.folder = server, orthanc, heads, folder
        self.client, self.samples = server.client, dict[str, str]()

    def correct(self) -> dict[str, NDArray]:
        """Return the first head's mask (X, Y, Z) after each step until all are submitted."""
        samples = self.samples
        while len(samples) < len(self.heads):  # each is leased to another client
            client = MONAILabelClient(self.client._server_url, client_id=str(len(samples)))
            sample = client.next_sample("first", {})
            samples[sample["PatientID"]] = sample["id"]
        head, image = self.heads["synthetic-1"], samples["synthetic-1"]
        masks = {"Run": self.run(MODEL, image)}
        masks["Stricter: multi_otsu"] = self.run(MODEL, image, threshold_rule="multi_otsu")
        masks["One scribble"] = self.scribble(image, masks["Run"], head)
        for patient, other in samples.items():
            self.submit(other, self.heads[patient])
        masks["DICOM SEG from the PACS"] = place(fetch_seg(self.orthanc, image), head)
        return masks

    def learn(self) -> dict[str, NDArray]:
        """Train, and return the first head's mask by the new weights."""
        self.train()
        if LEARNED not in self.client.info()["models"]:
            raise SystemExit("The new weights were not published.")
        return {"Run again, after training": self.run(LEARNED, self.samples["synthetic-1"])}

    def run(self, model: str, image: str, **options: str) -> NDArray:
        """Press Run."""
        file, facts = self.client.infer(model, image, {**SLICER, **options})
        print(f"{model}, version {facts['version']}: {facts['text']}")
        return nrrd.read(file)[0]

    def scribble(self, image: str, mask: NDArray, head: Phantom) -> NDArray:
        """Stroke along the largest error; return the mask that comes back."""
        spacing = np.linalg.norm(head.affine[:3, :3], axis=0).tolist()
        stroke = place_stroke(mask > 0, head.lesion > 0, spacing)
        if stroke is None:
            raise SystemExit("There is nothing to correct.")
        painted = mask.astype(np.uint8)
        painted[tuple(stroke.voxels.T)] = 3 if stroke.positive else 2
        file = self.folder / "segments.nii.gz"
        nib.save(nib.Nifti1Image(painted, head.affine), file)
        info = [{"name": name, "id": value} for value, name in enumerate(SEGMENTS, start=1)]
        request = {"label_info": info, "selected_label_name": "tumour", "roi": [], **SLICER}
        answer, _ = self.client.infer(f"{MODEL}_scribbles", image, request, str(file))
        return nrrd.read(answer)[0]

    def submit(self, image: str, head: Phantom) -> None:
        """Submit the known lesion as the corrected mask."""
        file = self.folder / "corrected.nii.gz"
        nib.save(nib.Nifti1Image(head.lesion, head.affine), file)
        self.client.save_label(image, str(file), params=NAMED)

    def train(self) -> None:
        """Train from the panel, and wait for its end."""
        config = self.client.info()["trainers"][MODEL]["config"]
        self.client.train_start(MODEL, {**config, **TRAINING})
        status = wait_for(
            lambda: (s := self.client.train_status(False))["status"] != "RUNNING" and s
        )
        print(status["status"], *status["details"], sep="\n")


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what comes of looking once it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SystemExit("It did not happen in time.")
        time.sleep(0.5)
    return found


def photograph_ohif(orthanc: Orthanc, head: Phantom, picture: Path, folder: Path) -> None:
    """Open a head's study in OHIF, on its slice with most of the lesion, and photograph it."""
    study = f"1.2.826.0.1.3680043.8.498.{head.seed}"
    count = head.image.shape[2]
    with run_ohif(fetch_viewer(folder), orthanc) as url, run_chromium(folder) as page:
        show_seg(page, url, study, find_segs(orthanc, study)[0].SeriesInstanceUID)
        scroll_to(page, f"{count - find_slice(head)}/{count}")  # numbered from the top
        page.photograph(picture)
    print(f"OHIF: {count_coloured(picture)} coloured pixels")


def find_slice(head: Phantom) -> int:
    """Return the slice with most of the lesion."""
    return int(head.lesion.sum(axis=(0, 1)).argmax())


def find_segs(orthanc: Orthanc, study: str | None = None) -> list[Dataset]:
    """Return what the PACS says of its series of masks."""
    filters = {"Modality": "SEG"} | ({"StudyInstanceUID": study} if study else {})
    found = connect(orthanc).search_for_series(search_filters=filters)
    return [Dataset.from_json(one) for one in found]


def connect(orthanc: Orthanc) -> DICOMwebClient:
    """Return another client of the PACS than ours."""
    client = DICOMwebClient(orthanc.dicomweb)
    client._session.auth = (USER, PASSWORD)
    return client


def fetch_seg(orthanc: Orthanc, series: str) -> hd.Volume:
    """Return the mask of a series that came back to the PACS."""

    def look() -> hd.seg.Segmentation | None:
        for about in find_segs(orthanc):
            uids = about.StudyInstanceUID, about.SeriesInstanceUID
            (seg,) = connect(orthanc).retrieve_series(*uids)
            if seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series:
                return hd.seg.Segmentation.from_dataset(seg)
        return None

    seg = wait_for(look)
    return seg.get_volume(combine_segments=True, allow_missing_positions=True)


def place(volume: hd.Volume, head: Phantom) -> NDArray:
    """Return a DICOM volume on the grid (X, Y, Z) of a head."""
    to_scan = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ head.affine) @ volume.affine
    marked = np.argwhere(volume.array)
    indices = np.rint(apply_affine(to_scan, marked)).astype(int)
    mask = np.zeros(head.lesion.shape, np.uint8)
    mask[tuple(indices.T)] = volume.array[tuple(marked.T)]
    return mask


def draw(head: Phantom, masks: dict[str, NDArray]) -> Figure:
    """Return pictures of one slice: the scan, and the mask after each step."""
    shown = find_slice(head)
    figure = Figure(figsize=(8, 6.6), facecolor="white", layout="constrained")
    steps = {"Next Sample": None, **masks}
    for axis, (title, mask) in zip(figure.subplots(2, 3).flat, steps.items(), strict=True):
        axis.imshow(head.image[:, :, shown].T, cmap="gray")
        if mask is not None and mask[:, :, shown].any():
            axis.contour(mask[:, :, shown].T > 0, levels=[0.5], colors="#35d0ff", linewidths=1.4)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=10)
    figure.supxlabel("A synthetic head, not a patient", fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
