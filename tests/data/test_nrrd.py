"""NRRD of any voxel type, with or without an axis of channels, anywhere."""

from pathlib import Path
from typing import Any

import itk
import nrrd
import numpy as np
import pytest

from heatmask.data.readers.read import read_scan
from heatmask.data.scan import load_scan
from heatmask.errors import InputError

SHAPE = (6, 7, 5)
CHANNELS = np.random.default_rng(0).permutation(840).reshape(4, *SHAPE)
DIRECTIONS = np.array([[0.9, 0.1, 0], [0, 0.2, 1.2], [0.3, 4, -0.5]])
ORIGIN = np.array([-30.0, 12, 7])
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = DIRECTIONS.T, ORIGIN
AFFINE = np.diag([-1, -1, 1, 1]) @ AFFINE


def write(path: Path, array: np.ndarray, channel_axis: int | None = None, **header: Any) -> Path:
    directions = DIRECTIONS
    if channel_axis is not None:
        directions = np.insert(directions, channel_axis, np.nan, axis=0)
    place = {"space": "left-posterior-superior", "space directions": directions,
             "space origin": ORIGIN}  # fmt: skip
    nrrd.write(str(path), array, {**place, **header})
    return path


@pytest.mark.fault("F")
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "u8", "f4", "f8"])
@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("kind", ["list", "vector", None])
def test_channels(tmp_path: Path, dtype: str, axis: int, kind: str | None) -> None:
    array = np.moveaxis(CHANNELS, 0, axis).astype(dtype)
    kinds = ["domain"] * 3
    header = {"kinds": [*kinds[:axis], kind, *kinds[axis:]]} if kind else {}
    scan = read_scan(write(tmp_path / "a.nrrd", array, axis, **header))
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, np.moveaxis(CHANNELS, 0, -1).astype(dtype))
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.warnings == []


@pytest.mark.fault("B")
def test_without_a_voxel_size_there_is_a_warning(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), CHANNELS[0])
    place, size = read_scan(tmp_path / "a.nrrd").warnings
    assert "how it lies in space" in place
    assert "they count as 1 mm" in size


@pytest.mark.fault("F")
@pytest.mark.parametrize("axis", [0, 3])
def test_one_channel_is_a_plain_scan(tmp_path: Path, axis: int) -> None:
    array = np.moveaxis(CHANNELS[:1], 0, axis).astype(np.int16)
    ((_, volume),) = load_scan(write(tmp_path / "a.nrrd", array, axis))
    np.testing.assert_array_equal(volume.numpy(), CHANNELS[:1])
    np.testing.assert_allclose(volume.affine, AFFINE)


@pytest.mark.fault("F")
@pytest.mark.parametrize("kind", ["RGBA-color", "complex", "time"])
def test_channels_that_are_no_sequences(tmp_path: Path, kind: str) -> None:
    header = {"kinds": [kind, "domain", "domain", "domain"]}
    path = write(tmp_path / "a.nrrd", CHANNELS.astype(np.int16), 0, **header)
    with pytest.raises(InputError, match=f"are of the kind '{kind.lower()}'"):
        read_scan(path)


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior", ""])
def test_the_affine_is_that_of_itk(tmp_path: Path, space: str) -> None:
    path = write(tmp_path / "a.nrrd", CHANNELS[0].astype(np.int16), space=space or "RAS")
    if not space:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"space: RAS", b"space dimension: 3"))
    scan, image = read_scan(path), itk.imread(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.asarray(image.GetDirection()) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(scan.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-6)
    np.testing.assert_array_equal(scan.array, CHANNELS[0])
    assert bool(scan.warnings) == (space == "")


def test_spacings_without_a_space(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), CHANNELS[0], {"spacings": [0.5, 2, 3]})
    scan = read_scan(tmp_path / "a.nrrd")
    np.testing.assert_allclose(scan.affine, np.diag([-0.5, -2, 3, 1]))
    assert "does not say how it lies in space" in scan.warnings[0]


@pytest.mark.fault("A")
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_cut_files(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.nrrd", CHANNELS[0].astype(np.int16), encoding=encoding)
    content = path.read_bytes()
    for length in (len(content) - 30, 250, 20, 0):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"'.*a.nrrd' is (cut off|damaged)") as caught:
            read_scan(path)
        assert str(caught.value).count("\n") == 0


@pytest.mark.fault("A")
def test_a_header_without_its_voxels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nhdr", CHANNELS[0].astype(np.int16), encoding="raw")
    np.testing.assert_array_equal(read_scan(path).array, CHANNELS[0])
    voxels = tmp_path / "a.raw"
    voxels.write_bytes(voxels.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"'.*a.nhdr' is cut off"):
        read_scan(path)
    voxels.unlink()
    with pytest.raises(InputError, match=r"'.*a.nhdr' should be in 'a.raw', which is not there"):
        read_scan(path)
