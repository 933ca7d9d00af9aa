"""The bundle of tumour types on real slices and volumes, through its inference config."""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from heatmask.bundle import read_bundle, run_bundle
from heatmask.cli import app
from heatmask.errors import InputError
from helpers.planted import make_affine
from helpers.project import PROJECT
from helpers.scan_files import write_dicom_series

TYPES = PROJECT / "bundles" / "brain_t1ce_tumour_type_segmentation"
NAMES = {"meningioma": 0, "glioma": 1, "pituitary": 2}


@pytest.fixture(scope="module")
def figshare(shared_data: Path) -> Path:
    return shared_data / "figshare"


@pytest.fixture(scope="module")
def samples(figshare: Path) -> list[dict[str, str]]:
    """Every sixteenth slice of the test fold."""
    with (figshare / "labels.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"][::16]


def segment(scan: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Return the report, and the mask as stored."""
    options = {"input": str(scan), "output_dir": str(output), "device": "cpu", **options}
    (report,) = run_bundle(read_bundle(TYPES, options=options), "evaluator").run()
    (mask,) = (output / report["case"]).glob("*_mask.nii.gz")
    return {**report, "mask": nib.load(mask)}


def list_probabilities(report: dict[str, Any]) -> list[float]:
    return [entry["probability"] for entry in report["classes"]]


def test_slices_of_the_test_fold(figshare: Path, samples: list, tmp_path: Path) -> None:
    """A sample of what docs/results.md tells of all 613."""
    right, dice = [], []
    for row in samples:
        report = segment(figshare / row["image"], tmp_path)
        right.append(int(np.argmax(list_probabilities(report))) == NAMES[row["label"]])
        picture = np.asarray(Image.open(figshare / row["mask"]))
        reference = (picture > 0).T
        mask = np.asarray(report["mask"].dataobj)[..., 0]
        assert mask.shape == reference.shape
        assert set(np.unique(mask)) <= {0, 1 + int(np.argmax(list_probabilities(report)))}
        overlap = 2 * ((mask > 0) & reference).sum()
        dice.append(overlap / ((mask > 0).sum() + reference.sum()))
    assert len(right) == 39
    assert np.mean(right) > 0.8
    assert np.mean(dice) > 0.15


@pytest.mark.parametrize("axcodes", ["LPS", "LIP", "PIR"], ids=["axial", "coronal", "sagittal"])
def test_a_dicom_slice_of_any_plane_is_what_its_picture_is(
    figshare: Path, samples: list, axcodes: str, tmp_path: Path
) -> None:
    """Same pixels, same answer, and the mask where the slice lies."""
    row = samples[5]
    picture = np.asarray(Image.open(figshare / row["image"]).convert("L"))
    affine = make_affine((1.0, 1.0, 1.0), axcodes)  # as thick as the header says
    folder = write_dicom_series(tmp_path / "series", picture.T[..., None].astype(np.int16), affine)
    (file,) = folder.iterdir()
    told = segment(file, tmp_path / "dicom")
    seen = segment(figshare / row["image"], tmp_path / "picture")
    np.testing.assert_allclose(list_probabilities(told), list_probabilities(seen), atol=1e-5)
    mask = np.asarray(told["mask"].dataobj)
    assert mask.any()
    ours = nib.as_closest_canonical(nib.Nifti1Image(mask, told["mask"].affine))
    wanted = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(seen["mask"].dataobj), affine))
    np.testing.assert_allclose(ours.affine, wanted.affine, atol=1e-4)
    assert (np.asarray(ours.dataobj) == np.asarray(wanted.dataobj)).mean() > 0.999
    assert told["slices"]["count"] == 1


def test_a_volume_shows_one_type_where_the_gate_is_open(lgg: Path, tmp_path: Path) -> None:
    scan = min(lgg.glob("*/*-t1c.nii.gz"))
    report = segment(scan, tmp_path, gate_probability=0.3)
    mask = np.asarray(report["mask"].dataobj)
    assert mask.shape == nib.load(scan).shape
    assert len(set(np.unique(mask)) - {0}) <= 1
    present = np.sum([entry["slice_probabilities"] for entry in report["classes"]], axis=0)
    assert not mask[..., present < 0.3].any()
    with_flair = segment(scan.parent, tmp_path / "both")
    assert with_flair["sequences"] == ["T1-Gd", "FLAIR"]


def test_flair_alone_is_refused(lgg: Path, tmp_path: Path) -> None:
    scan = min(lgg.glob("*/*-t2f.nii.gz"))
    with pytest.raises(InputError, match="needs a T1-Gd scan; got FLAIR by the file name"):
        segment(scan, tmp_path)
    done = CliRunner().invoke(
        app, ["segment", str(scan), "--bundle", TYPES.name, "-o", str(tmp_path), "--device", "cpu"]
    )
    assert isinstance(done.exception, InputError)
    assert not list(tmp_path.rglob("*mask*"))
