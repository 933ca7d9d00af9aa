"""A synthetic head as a DICOM study, for the planted model of `helpers.serving_stub`."""

from pathlib import Path
from typing import Any

import numpy as np

from helpers.scan_files import write_dicom_series

FLAIR = "t2_tirm_tra_dark-fluid"


def draw_head(lesion: bool = True, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a head (a box of 100) with a lesion, its affine to RAS mm, and the lesion's mask.

    Oblique, anisotropic, right-handed; axes in the order left, posterior, superior.
    """
    array = np.zeros((52, 60, 14), np.int16)
    noise = np.random.default_rng(seed).normal(0, 3, (42, 48, 12))
    array[5:47, 6:54, 1:13] = 100 + noise
    mask = np.zeros(array.shape, bool)
    mask[8:20, 30:46, 4:8] = lesion
    array[mask] += 250
    turn = np.deg2rad(9.0)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1.5, -1.25, 4.0])
    affine[:3, 3] = (31.0, -17.0, 8.0)
    return array, affine, mask


def write_study(
    folder: Path, patient: str = "synthetic-1", lesion: bool = True, seed: int = 0, **given: Any
) -> Path:
    """Write a FLAIR series of a head; `given` are further DICOM attributes of its slices."""
    array, affine, _ = draw_head(lesion, seed)
    uid = f"1.2.826.0.1.3680043.8.498.{sum(map(ord, patient))}"
    about = {
        "PatientID": patient, "PatientName": "Synthetic^Head", "PatientBirthDate": "",
        "PatientSex": "", "StudyInstanceUID": uid, "StudyID": "1", "StudyDate": "20260101",
        "StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": "",
        "SeriesDescription": FLAIR, "SeriesNumber": 3, "FrameOfReferenceUID": f"{uid}.1",
    }  # fmt: skip
    return write_dicom_series(folder, array, affine, **about | given)
