"""Take a synthetic head through a day with the PACS, and draw what came out of each step.

Run as ``PYTHONPATH=tests python benchmarks/pacs_day.py docs/images/pacs_day.png``. Needs Orthanc
with its DICOMweb plugin. The head is that of the demo; its known lesion plays the correction.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import highdicom as hd
import nibabel as nib
import nrrd
import numpy as np
from dicomweb_client import DICOMwebClient
from matplotlib.figure import Figure
from numpy.typing import NDArray
from phantom import draw_demo
from pydicom import Dataset

from helpers.orthanc import PASSWORD, USER, Orthanc, run_orthanc
from helpers.scan_files import write_dicom_series
from helpers.server import SLICER, Server, run_server

MODEL = "brain_mri_gp_shuffle_unet_segmentation"
STUDY = {
    "PatientID": "synthetic", "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.12",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.12.1", "SeriesNumber": 3,
    "SeriesDescription": "t2_tirm_tra_dark-fluid",
}  # fmt: skip
PATIENCE_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    os.environ |= {"HEATMASK_DICOMWEB_USER": USER, "HEATMASK_DICOMWEB_PASSWORD": PASSWORD}
    phantom = draw_demo()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = write_dicom_series(folder / "series", phantom.image, phantom.affine, **STUDY)
        (folder / "orthanc").mkdir()
        with run_orthanc(folder / "orthanc") as orthanc:
            orthanc.add(series)
            with run_server(orthanc.dicomweb, None, folder) as server:
                masks = work_through(server, orthanc, phantom.lesion, phantom.affine, folder)
    for step, mask in masks.items():
        overlap = 2 * int((mask * phantom.lesion).sum()) / int(mask.sum() + phantom.lesion.sum())
        print(f"{step}: {int(mask.sum())} voxels, Dice {overlap:.2f} against the known lesion")
    draw(phantom.image, masks).savefig(arguments.picture, dpi=110)
    return 0


def work_through(
    server: Server, orthanc: Orthanc, lesion: NDArray, affine: NDArray, folder: Path
) -> dict[str, NDArray]:
    """Return the mask after each step (X, Y, Z)."""
    image = server.client.next_sample("random", {})["id"]
    masks = {}
    for step, options in (("Run", {}), ("Stricter: multi_otsu", {"threshold_rule": "multi_otsu"})):
        file, _ = server.client.infer(MODEL, image, {**SLICER, **options})
        masks[step] = nrrd.read(file)[0]
    corrected = folder / "corrected.nii.gz"
    nib.save(nib.Nifti1Image(lesion, affine), corrected)
    about = {"label_info": [{"name": "tumour", "idx": 1}], "model": MODEL}
    server.client.save_label(image, str(corrected), params=about)
    masks["Corrected, submitted"] = lesion
    masks["DICOM SEG from the PACS"] = place(fetch_seg(orthanc), affine, lesion.shape)
    return masks


def fetch_seg(orthanc: Orthanc) -> hd.Volume:
    """Return the mask that came back to the PACS."""
    client = DICOMwebClient(orthanc.dicomweb)
    client._session.auth = (USER, PASSWORD)
    deadline = time.monotonic() + PATIENCE_S
    while not (found := client.search_for_series(search_filters={"Modality": "SEG"})):
        if time.monotonic() > deadline:
            raise SystemExit("The SEG did not come to the PACS.")
        time.sleep(0.2)
    about = Dataset.from_json(found[0])
    (seg,) = client.retrieve_series(about.StudyInstanceUID, about.SeriesInstanceUID)
    return hd.seg.Segmentation.from_dataset(seg).get_volume(
        combine_segments=True, allow_missing_positions=True
    )


def place(volume: hd.Volume, affine: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Return a DICOM volume on the grid (X, Y, Z) of a scan."""
    to_scan = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ affine) @ volume.affine
    marked = np.argwhere(volume.array)
    indices = np.rint(nib.affines.apply_affine(to_scan, marked)).astype(int)
    mask = np.zeros(shape, np.uint8)
    mask[tuple(indices.T)] = volume.array[tuple(marked.T)]
    return mask


def draw(image: NDArray, masks: dict[str, NDArray]) -> Figure:
    """Return a row of pictures of one slice: the scan, and the mask after each step."""
    shown = int(masks["Corrected, submitted"].sum(axis=(0, 1)).argmax())
    figure = Figure(figsize=(2.5 * (len(masks) + 1), 3.2), facecolor="white", layout="constrained")
    for axis, (title, mask) in zip(
        figure.subplots(1, len(masks) + 1), {"Next Sample": None, **masks}.items(), strict=True
    ):
        axis.imshow(image[:, :, shown].T, cmap="gray")
        if mask is not None and mask[:, :, shown].any():
            axis.contour(mask[:, :, shown].T > 0, levels=[0.5], colors="#35d0ff", linewidths=1.4)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=10)
    figure.supxlabel("A synthetic head, not a patient", fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
