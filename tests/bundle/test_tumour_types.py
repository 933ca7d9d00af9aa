"""The bundles of tumour types on real slices and volumes, through their inference configs."""

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
from heatmask.pipeline import Pipeline
from helpers.planted import make_affine
from helpers.project import PROJECT
from helpers.scan_files import write_dicom_series

TYPES = PROJECT / "bundles" / "brain_t1ce_tumour_type_segmentation"
SELF_TRAINED = PROJECT / "bundles" / "brain_t1ce_tumour_type_selftrained_segmentation"
both = pytest.mark.parametrize("bundle", [TYPES, SELF_TRAINED], ids=["gated", "selftrained"])
NAMES = {"meningioma": 0, "glioma": 1, "pituitary": 2}


@pytest.fixture(scope="module")
def figshare(shared_data: Path) -> Path:
    return shared_data / "figshare"


@pytest.fixture(scope="module")
def samples(figshare: Path) -> list[dict[str, str]]:
    """Every sixteenth slice of the test fold."""
    with (figshare / "labels.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"][::16]


def segment(scan: Path, output: Path, bundle: Path = TYPES, **options: Any) -> dict[str, Any]:
    """Return the report, and the mask as stored."""
    options = {"input": str(scan), "output_dir": str(output), "device": "cpu", **options}
    (report,) = run_bundle(read_bundle(bundle, options=options), "evaluator").run()
    (mask,) = (output / report["case"]).glob("*_mask.nii.gz")
    return {**report, "mask": nib.load(mask)}


def list_probabilities(report: dict[str, Any]) -> list[float]:
    return [entry["probability"] for entry in report["classes"]]


@both
def test_slices_of_the_test_fold(bundle: Path, figshare: Path, samples: list) -> None:
    """A sample of what docs/results.md tells of all 613."""
    pipeline = Pipeline.from_bundle(bundle, device="cpu")
    right, dice = [], []
    for row in samples:
        result = pipeline(str(figshare / row["image"]))
        predicted = int(np.argmax(result.probabilities))
        right.append(predicted == NAMES[row["label"]])
        reference = (np.asarray(Image.open(figshare / row["mask"])) > 0).T
        mask = np.asarray(result.mask).squeeze()
        assert mask.shape == reference.shape
        assert set(np.unique(mask)) <= {0, 1 + predicted}
        overlap = 2 * ((mask > 0) & reference).sum()
        dice.append(overlap / ((mask > 0).sum() + reference.sum()))
    assert len(right) == 39
    assert np.mean(right) > 0.8
    assert np.mean(dice) > {TYPES: 0.15, SELF_TRAINED: 0.4}[bundle]


@both
@pytest.mark.parametrize("axcodes", ["LPS", "LIP", "PIR"], ids=["axial", "coronal", "sagittal"])
def test_a_dicom_slice_of_any_plane_is_what_its_picture_is(
    bundle: Path, figshare: Path, samples: list, axcodes: str, tmp_path: Path
) -> None:
    """Same pixels, same answer, and the mask where the slice lies."""
    row = samples[5]
    picture = np.asarray(Image.open(figshare / row["image"]).convert("L"))
    affine = make_affine((1.0, 1.0, 1.0), axcodes)  # as thick as the header says
    folder = write_dicom_series(tmp_path / "series", picture.T[..., None].astype(np.int16), affine)
    (file,) = folder.iterdir()
    told = segment(file, tmp_path / "dicom", bundle)
    seen = segment(figshare / row["image"], tmp_path / "picture", bundle)
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


def test_the_network_for_single_slices_refuses_volumes(lgg: Path, tmp_path: Path) -> None:
    scan = min(lgg.glob("*/*-t1c.nii.gz"))
    count = nib.load(scan).shape[2]
    with pytest.raises(InputError, match=f"would see one in each of the {count} slices"):
        segment(scan, tmp_path, SELF_TRAINED)
    assert not list(tmp_path.rglob("*mask*"))


def test_flair_alone_is_refused(lgg: Path, tmp_path: Path) -> None:
    scan = min(lgg.glob("*/*-t2f.nii.gz"))
    with pytest.raises(InputError, match="needs a T1-Gd scan; got FLAIR by the file name"):
        segment(scan, tmp_path)
    done = CliRunner().invoke(
        app, ["segment", str(scan), "--bundle", TYPES.name, "-o", str(tmp_path), "--device", "cpu"]
    )
    assert isinstance(done.exception, InputError)
    assert not list(tmp_path.rglob("*mask*"))
