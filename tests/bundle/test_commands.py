"""Every bundle with every command, in process; `test_entry_points.py` starts processes."""

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.serving.bundle import ServedBundle
from heatmask.serving.task import HeatmapInferTask
from helpers.phantom import Phantom, make_phantom, write_phantom
from helpers.project import PROJECT

BUNDLES = sorted(path.parents[1] for path in PROJECT.glob("bundles/*/configs/inference.json"))
TYPES = "brain_t1ce_tumour_type_segmentation"
SLICES = "brain_t1ce_tumour_type_selftrained_segmentation"
LABELS = {
    TYPES: ("meningioma", "glioma", "pituitary"),
    SLICES: ("meningioma", "glioma", "pituitary"),
    "breast_us_lesion_segmentation": ("lesion", "none", "lesion"),
}
"""Of pictures, for the bundles that take them."""


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda folder: folder.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1003, shape=(96, 112, 12), spacing_mm=(2.0, 2.0, 8.0))


@pytest.fixture(scope="module")
def study(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient of the layout that `evaluate` reads, and a training patient."""
    root = tmp_path_factory.mktemp("study")
    for patient in ("P1", "P2"):
        (root / patient).mkdir()
        files = [root / patient / f"{patient}-{kind}.nii.gz" for kind in ("t2f", "seg")]
        write_phantom(phantom, *files)
    labels = [
        (p, i, int(label)) for p in ("P1", "P2") for i, label in enumerate(phantom.slice_labels)
    ]
    write_csv(root / "slice_labels.csv", ("patient", "slice", "tumour"), labels)
    write_csv(root / "patients.csv", ("patient", "split"), [("P1", "test"), ("P2", "train")])
    return root


@pytest.fixture(scope="module")
def slices(bundle: Path, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices with the lesion as pictures, in the layout that `evaluate` reads."""
    root = tmp_path_factory.mktemp("slices")
    rows = []
    for label, number in zip(
        LABELS.get(bundle.name, ()), np.flatnonzero(phantom.slice_labels), strict=False
    ):
        scan = phantom.image[:, :, number].T / phantom.image.max()
        lesion = phantom.lesion[:, :, number].T
        for turns, split in enumerate(("test", "train", "val")):  # each picture in one split
            names = [f"{split}_{number}_{kind}.png" for kind in ("image", "mask")]
            for name, pixels in zip(names, (scan, lesion), strict=True):
                picture = (255 * np.rot90(pixels, turns)).astype(np.uint8)
                Image.fromarray(picture).save(root / name)
            mask = names[1] if label != "none" else ""
            rows.append((names[0], mask, label, split, f"{split} {number}"))
    write_csv(root / "labels.csv", ("image", "mask", "label", "split", "group"), rows)
    return root


def write_csv(path: Path, head: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def find_scan(bundle: Path, study: Path, folder: Path) -> Path:
    """The phantom under the name of the sequence that the bundle takes."""
    scan = study / "P1" / "P1-t2f.nii.gz"
    if bundle.name == SLICES:
        whole = nib.load(scan)
        nib.save(whole.slicer[..., 5:6], folder / "P1_T1Gd.nii.gz")
        return folder / "P1_T1Gd.nii.gz"
    if bundle.name != TYPES:
        return scan
    (folder / "P1-t1c.nii.gz").symlink_to(scan)  # its own name counts for less
    copied = folder / "P1_T1Gd.nii.gz"
    copied.write_bytes(scan.read_bytes())
    return copied


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_segment_and_serve_give_one_mask(bundle: Path, study: Path, tmp_path: Path) -> None:
    scan = find_scan(bundle, study, tmp_path)
    run("segment", scan, "--bundle", bundle, "-o", tmp_path / "out", "--device", "cpu")
    (folder,) = (tmp_path / "out").iterdir()
    (path,) = folder.glob("*_mask.nii.gz")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    request = {"image": str(scan), "device": "cpu", "result_extension": ".nii.gz"}
    served, facts = HeatmapInferTask(ServedBundle(bundle))(request)
    masks = [np.asarray(nib.load(file).dataobj) for file in (path, served)]
    os.unlink(served)
    np.testing.assert_array_equal(*masks)
    for name in ("finding", "classes", "warnings", "sequences", "weights_sha256"):
        assert facts[name] == report[name], name


@pytest.mark.parametrize(
    "bundle",
    [
        # The network of the other self-trained bundle: a minute for the same checks.
        pytest.param(folder, marks=[pytest.mark.slow] * folder.name.startswith("breast_us"))
        for folder in BUNDLES
    ],
    ids=lambda folder: folder.name,
)
def test_check(bundle: Path) -> None:
    assert ": sound" in run("check", bundle, "--device", "cpu")


def test_evaluate(bundle: Path, study: Path, slices: Path, tmp_path: Path) -> None:
    data = slices if bundle.name in LABELS else study
    run("evaluate", data, "--bundle", bundle, "-o", tmp_path, "--device", "cpu")
    (table,) = tmp_path.glob("per_*.csv")
    with table.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 1
    assert (tmp_path / "evaluation.md").read_text(encoding="utf-8").startswith("| method")
