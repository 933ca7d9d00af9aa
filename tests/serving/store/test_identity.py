"""A label is of one scan: another one in its place, on the same grid, does not take it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.serving.store import Store
from heatmask.serving.store.labels import FINAL, ORIGINAL
from helpers.dicom_studies import draw_head, write_study
from helpers.scan_files import write_nifti
from helpers.serving_stub import tilt_affine
from helpers.store_files import NAMED, SHAPE, write_label, write_studies


def replace_scan(flat: Path) -> Path:
    """Put another scan on the same grid in the place of p1; return the earlier one."""
    scan = (flat / "p1.nii.gz").resolve()
    earlier = scan.with_name("earlier.nii.gz")
    shutil.copy2(scan, earlier)
    voxels = np.random.default_rng(1).normal(100, 9, SHAPE).astype(np.float32)
    write_nifti(scan, voxels, tilt_affine())
    return earlier


def open_store(flat: Path) -> Store:
    return Store(flat, flat / "store")


def test_another_scan_in_its_place_has_no_label(tmp_path: Path) -> None:
    flat, label = write_studies(tmp_path), write_label(tmp_path / "label.nii.gz", 7)
    store = open_store(flat)
    store.submit("p1", label, NAMED, "ann", "ann/1")
    store.prelabel("p1", label, {}, "model", {})
    assert store.list_current("p1").keys() == {FINAL, ORIGINAL}
    earlier = replace_scan(flat)
    assert store.list_current("p1") == {}
    assert store.get_unlabeled_images() == ["p1", "p2"]
    store.close()
    store = open_store(flat)
    assert store.get_label_uri("p1", FINAL) == ""
    assert [v.number for v in store.list_versions("p1", FINAL)] == [1]
    shutil.move(earlier, (flat / "p1.nii.gz").resolve())
    assert store.list_current("p1").keys() == {FINAL, ORIGINAL}
    store.close()


def test_each_scan_has_its_own_newest_version(tmp_path: Path) -> None:
    flat, label = write_studies(tmp_path), write_label(tmp_path / "label.nii.gz", 7)
    store = open_store(flat)
    first = store.submit("p1", label, NAMED, "ann", "ann/1")
    earlier = replace_scan(flat)
    second = store.submit("p1", label, NAMED, "bob", "bob/1")
    assert store.list_current("p1") == {FINAL: second}
    shutil.move(earlier, (flat / "p1.nii.gz").resolve())
    assert store.list_current("p1") == {FINAL: first}
    store.close()


def test_a_copy_with_another_date_is_the_same_scan(tmp_path: Path) -> None:
    flat, label = write_studies(tmp_path), write_label(tmp_path / "label.nii.gz", 7)
    store = open_store(flat)
    version = store.submit("p1", label, NAMED, "ann", "ann/1")
    os.utime((flat / "p1.nii.gz").resolve(), (1, 1))
    assert store.list_current("p1") == {FINAL: version}
    store.close()


def test_restoring_says_that_the_label_fits_this_scan_too(tmp_path: Path) -> None:
    flat, label = write_studies(tmp_path), write_label(tmp_path / "label.nii.gz", 7)
    store = open_store(flat)
    store.submit("p1", label, NAMED, "ann", "ann/1")
    replace_scan(flat)
    restored = store.restore("p1", 1, "bob")
    assert store.list_current("p1") == {FINAL: restored}
    store.close()


def test_the_command_line_says_of_which_scan_a_label_is_and_exports_none_of_another(
    tmp_path: Path,
) -> None:
    flat, label = write_studies(tmp_path), write_label(tmp_path / "label.nii.gz", 7)
    store = open_store(flat)
    store.submit("p1", label, NAMED, "ann", "ann/1")
    store.submit("p2", label, NAMED, "ann", "ann/1")
    store.close()
    replace_scan(flat)
    listed = CliRunner().invoke(app, ["labels", str(flat)]).output
    assert "by ann, of a scan that was replaced" in listed.split("p2")[0]
    assert "current" in listed.split("p2")[1]
    exported = CliRunner().invoke(app, ["labels", str(flat), "--export", str(tmp_path / "out")])
    assert exported.exit_code == 0, exported.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"p2.nii.gz", "labels.csv"}


@pytest.mark.parametrize("same", [True, False])
def test_a_series_is_known_by_its_instances(tmp_path: Path, same: bool) -> None:
    series = write_study(tmp_path / "scans" / "p1")
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "p1.series").symlink_to(series)
    label = write_nifti(tmp_path / "label.nii.gz", draw_head()[2].astype(np.uint8), draw_head()[1])
    store = open_store(flat)
    store.submit("p1", label, NAMED, "ann", "ann/1")
    shutil.copytree(series, tmp_path / "copy")
    shutil.rmtree(series)
    if same:
        (tmp_path / "copy").rename(series)
    else:
        write_study(series, seed=1)
    assert (store.list_current("p1") == {}) is not same
    store.close()
