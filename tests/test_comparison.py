"""`heatmask compare`, from a folder of scans to a page, and every rule that it scores by."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from scan_files import write_nifti
from heatmask.cli import app
from heatmask.comparison import floors, retraining
from heatmask.comparison.gather import Request, compare
from heatmask.comparison.results import Comparison
from heatmask.comparison.work import Place
from heatmask.data.phantom import make_phantom
from heatmask.errors import HeatmaskError, InputError

SPLITS = ("train", "train", "train", "val", "val", "test", "test", "test")
METHODS = ("inherent", "grad_cam", "guided_backprop")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small heads with slice labels; the last five with reference masks."""
    folder = tmp_path_factory.mktemp("heads")
    slices, patients = ["patient,slice,tumour"], ["patient,split"]
    for seed, split in enumerate(SPLITS):
        phantom = make_phantom(40 + seed, shape=(52, 62, 12), spacing_mm=(4.0, 4.0, 12.0))
        name = f"P{seed}"
        (folder / name).mkdir()
        write_nifti(folder / name / f"{name}-t2f.nii.gz", phantom.image, phantom.affine)
        if split != "train":
            mask = phantom.lesion
            write_nifti(folder / name / f"{name}-seg.nii.gz", mask, phantom.affine)
        patients.append(f"{name},{split}")
        slices += [f"{name},{i},{label}" for i, label in enumerate(phantom.slice_labels)]
    (folder / "slice_labels.csv").write_text("\n".join(slices) + "\n", encoding="utf-8")
    (folder / "patients.csv").write_text("\n".join(patients) + "\n", encoding="utf-8")
    return folder


def run(heads: Path, output: Path, *words: str) -> str:
    bundles = ("gp_unet", "resnet_attribution")
    named = [w for b in bundles for w in ("--bundle", f"brain_mri_{b}_segmentation")]
    chosen = [word for method in METHODS for word in ("--method", method)]
    command = ["compare", str(heads), "-o", str(output), *named, *chosen, "--jobs", "1"]
    done = CliRunner().invoke(app, [*command, "--seeds", "1", "--device", "cpu", *words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


@pytest.fixture(scope="module")
def report(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floors, "FEW_MASKS_SLICES", 200)
        patch.setattr(retraining, "EPOCHS", 1)
        patch.setattr(retraining, "QUANTILES", (0.1,))
        run(heads, folder)
    return folder


def test_one_page_tells_everything(report: Path) -> None:
    assert (report / "report.html").stat().st_size > 50_000
