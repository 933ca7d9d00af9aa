"""A small flat folder of studies and labels on their grid, for tests of the store."""

from pathlib import Path

import numpy as np
import pytest

from helpers.scan_files import write_nifti
from helpers.serving_stub import tilt_affine

pytest.importorskip("monailabel", reason="needs the extra 'serve'")

SHAPE = (5, 7, 6)
NAMED = {"label_info": [{"name": "tumour", "idx": 1}]}


def write_studies(folder: Path, names: tuple[str, ...] = ("p1", "p2")) -> Path:
    """Write scans and a flat folder of links to them; return the latter."""
    flat, scans = folder / "flat", folder / "scans"
    for name in names:
        (scans / name).mkdir(parents=True)
        flat.mkdir(exist_ok=True)
        scan = write_image(scans / name / "scan.nii.gz")
        (flat / f"{name}.nii.gz").symlink_to(scan)
    return flat


def write_image(path: Path) -> Path:
    """Write a scan."""
    voxels = np.random.default_rng(0).normal(100, 9, SHAPE).astype(np.float32)
    return write_nifti(path, voxels, tilt_affine())


def write_label(path: Path, *marked: int, value: int = 1, dtype: type = np.uint8) -> Path:
    """Write a label in which some voxels, by their flat index, have a value."""
    mask = np.zeros(SHAPE, dtype)
    mask.flat[list(marked)] = value
    return write_nifti(path, mask, tilt_affine())


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
