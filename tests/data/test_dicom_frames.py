"""Multi-frame (enhanced) MR: one file, frames in any order."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from heatmask.data.finding.scans import find_scans
from heatmask.data.readers.read import read_scan
from heatmask.errors import InputError
from helpers.scan_files import RAS_TO_LPS, write_enhanced_mr

SHAPE, ORDER = (5, 7, 6), [3, 0, 5, 1, 4, 2]
SLOPES = [1.0, 0.5, 2.0, 1.0, 1.5, 0.25]


@pytest.fixture
def affine() -> np.ndarray:
    """Oblique, anisotropic, right-handed."""
    turn = np.deg2rad(20.0)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([-1.25, -0.75, 3.0])
    matrix[:3, 3] = (31.0, -17.0, 8.0)
    return matrix


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)


def test_frames_are_read_by_their_place_not_by_their_order(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray
) -> None:
    path = write_enhanced_mr(tmp_path / "series" / "IM1", array, affine, ORDER, SLOPES)
    expected = array * np.array(SLOPES, np.float32)
    for scan in (path, path.parent):
        raw = read_scan(scan)
        np.testing.assert_allclose(raw.array, expected, rtol=1e-6)
        np.testing.assert_allclose(raw.affine, affine, atol=1e-6)
        assert raw.warnings == []


def test_white_is_bright_however_it_is_stored(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray
) -> None:
    path = write_enhanced_mr(tmp_path / "IM1", array.max() - array, affine, ORDER, [1.0] * 6)
    header = dcmread(path)
    header.PhotometricInterpretation = "MONOCHROME1"
    header.save_as(path)
    np.testing.assert_allclose(read_scan(path).array, array - array.min())


def test_highdicom_puts_the_voxels_in_the_same_places(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray
) -> None:
    path = write_enhanced_mr(tmp_path / "IM1.dcm", array, affine, ORDER, SLOPES)
    raw, volume = read_scan(path), hd.imread(path).get_volume()
    to_index = np.linalg.inv(RAS_TO_LPS @ raw.affine) @ volume.affine
    for theirs in np.ndindex(volume.array.shape[:3]):
        ours = tuple(np.rint(to_index @ [*theirs, 1])[:3].astype(int))
        assert raw.array[ours] == pytest.approx(float(volume.array[theirs]), rel=1e-6)


def test_its_sequence_is_recognised(tmp_path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    write_enhanced_mr(tmp_path / "case" / "IM1", array, affine, ORDER, SLOPES)
    (scan,) = find_scans(tmp_path).scans
    assert scan.clue.sequence == "FLAIR"
    assert float(scan.header.get("EchoTime")) == 90.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("a frame is missing", "seem to be missing"),
        ("a place twice", "several slices at one position"),
        ("no places", "does not say where each of them lies"),
        ("cut off", "bytes of pixels"),
    ],
)
def test_bad_frames_are_refused(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray, damage: str, message: str
) -> None:
    order = {"a frame is missing": [0, 1, 2, 4, 5], "a place twice": [*ORDER, 2]}.get(damage, ORDER)
    path = write_enhanced_mr(tmp_path / "case" / "IM1.dcm", array, affine, order, SLOPES)
    dataset = dcmread(path)
    if damage == "no places":
        del dataset.PerFrameFunctionalGroupsSequence
    if damage == "cut off":
        dataset.PixelData = dataset.PixelData[:-2]
    dataset.save_as(path)
    for scan in (path, path.parent):
        with pytest.raises(InputError, match=message):
            read_scan(scan)


def test_several_such_files_are_no_single_scan(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray
) -> None:
    first = write_enhanced_mr(tmp_path / "IM1.dcm", array, affine, ORDER, SLOPES)
    second = write_enhanced_mr(tmp_path / "IM2.dcm", array, affine, ORDER, SLOPES)
    dataset = dcmread(second)
    dataset.SeriesInstanceUID = dcmread(first).SeriesInstanceUID
    dataset.save_as(second)
    with pytest.raises(InputError, match="several files, and more than one slice in a file"):
        read_scan(tmp_path)
