"""A work folder with three small studies and corrected masks, and bundles to learn with."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from heatmask.bundle import find_bundle
from heatmask.networks.weights import save_weights
from heatmask.serving.store import Store
from heatmask.serving.studies import index_studies
from helpers.serving_stub import plant_network, tilt_affine, write_bundle, write_scan

PATIENTS = ("p1", "p2", "p3")
NAMED = {"label_info": [{"name": "tumour", "idx": 1}]}
SMALL = {
    "max_epochs": 2, "start_epochs": 1, "slices_per_epoch": 64, "batch_size": 8,
    "features": [4, 8], "image_size": [64, 64], "learning_rate": 0.02, "averaging": 0.2,
}  # fmt: skip
"""Options of a training that takes seconds."""


AXIAL = np.diag([4.0, 1.25, 1.5, 1.0])
"""Of scans whose third axis is axial, as tables of slice labels want it."""


def write_studies(
    folder: Path, patients: tuple[str, ...] = PATIENTS, affine: np.ndarray | None = None
) -> Path:
    """Write a scan with a lesion for each patient; return their folder."""
    for patient in patients:
        write_scan(folder / patient / f"{patient}-flair.nii.gz", affine=affine)
    return folder


def write_blind_bundle(folder: Path) -> Path:
    """Write the planted bundle with a network that just misses every lesion."""
    return write_blind_weights(write_bundle(folder))


def write_blind_weights(bundle: Path) -> Path:
    """Replace the weights of the planted bundle by such that just miss every lesion."""
    network = plant_network()
    with torch.no_grad():
        network.head.bias.fill_(-14.6)
    save_weights(network.state_dict(), bundle / "models/model.pt")
    return bundle


def write_mask(path: Path, value: int = 1, affine: np.ndarray | None = None) -> Path:
    """Write the lesion of `write_scan` as a label."""
    mask = write_scan(path.with_name("scan.nii.gz")).astype(np.uint8) * value
    nib.save(nib.Nifti1Image(mask, tilt_affine() if affine is None else affine), path)
    return path


def make_work_folder(
    tmp_path: Path, corrected: tuple[str, ...] = PATIENTS, affine: np.ndarray | None = None
) -> Path:
    """Index the studies as a server does and submit corrected masks; return the work folder."""
    work = tmp_path / "work"
    flat = index_studies(write_studies(tmp_path / "studies", affine=affine), work)
    store = Store(flat, flat / "store")
    try:
        for patient in corrected:
            mask = write_mask(tmp_path / f"{patient}_mask.nii.gz", affine=affine)
            store.submit(f"{patient}-flair", mask, NAMED, "ann", "ann/1", "stub")
    finally:
        store.close()
    return work


def write_unsure_bundle(name: str, folder: Path) -> None:
    """Write a bundle with a classifier that misses a tumour, as on another scanner's images."""
    shutil.copytree(find_bundle(name), folder)
    weights = folder / "models/model.pt"
    state = torch.load(weights, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for value in state.values():
        if value.ndim == 4:  # of a convolution
            value *= 1 + 0.4 * torch.randn(value.shape, generator=generator)
    torch.save(state, weights)
