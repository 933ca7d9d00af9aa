"""Ultrasound as DICOM: one picture, grey or in colour, with or without a pixel size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from heatmask.data.finding.scans import find_scans
from heatmask.data.readers.read import read_scan
from heatmask.errors import InputError
from helpers.scan_files import write_us


def draw(rows: int = 40, columns: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (rows, columns), dtype=np.uint8)


def make_region(edge_cm: float, down_cm: float | None = None, unit: int = 3) -> Dataset:
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = unit
    region.PhysicalDeltaX, region.PhysicalDeltaY = edge_cm, down_cm or edge_cm
    return region


def test_it_lies_as_the_same_picture_does(tmp_path: Path) -> None:
    pixels = draw()
    Image.fromarray(pixels).save(tmp_path / "one.png")
    picture, dicom = (
        read_scan(tmp_path / "one.png"),
        read_scan(write_us(tmp_path / "a.dcm", pixels)),
    )
    np.testing.assert_array_equal(dicom.array, picture.array)
    np.testing.assert_allclose(dicom.affine, picture.affine)
    assert "counts as 256 mm wide" in dicom.warnings[0]


def test_colours_become_their_brightness(tmp_path: Path) -> None:
    grey = draw()
    scan = read_scan(write_us(tmp_path / "a.dcm", np.stack([grey] * 3, -1)))
    np.testing.assert_allclose(scan.array[..., 0], grey.T, atol=0.01)
    red = np.zeros((*grey.shape, 3), np.uint8)
    red[..., 0] = 200
    assert read_scan(write_us(tmp_path / "b.dcm", red)).array.max() == pytest.approx(42.5, abs=0.5)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "PALETTE COLOR"])
def test_white_is_bright_however_it_is_stored(tmp_path: Path, kind: str) -> None:
    grey = draw()
    path = write_us(tmp_path / "a.dcm", grey.max() - grey)
    header = dcmread(path)
    header.PhotometricInterpretation = kind
    if kind == "PALETTE COLOR":
        table = (np.arange(256)[::-1] - (255 - int(grey.max()))).clip(0).astype(np.uint16) << 8
        for colour in range(3):
            header.add_new((0x0028, 0x1101 + colour), "US", [256, 0, 16])
            header.add_new((0x0028, 0x1201 + colour), "OW", table.tobytes())
    header.save_as(path)
    array = read_scan(path).array[..., 0]
    assert np.corrcoef(array.ravel(), grey.T.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("regions", "edge_mm"),
    [
        ([(0.01,)], 0.1),
        ([(0.01,), (0.01,)], 0.1),
        ([(0.01,), (0.02,)], None),
        ([(0.01, 0.02)], None),
        ([(0.01, None, 4)], None),
    ],
)
def test_the_pixel_size_is_that_of_all_regions(tmp_path: Path, regions, edge_mm) -> None:
    sequence = [make_region(*region) for region in regions]
    scan = read_scan(write_us(tmp_path / "a.dcm", draw(), SequenceOfUltrasoundRegions=sequence))
    expected = edge_mm or 256 / 60
    np.testing.assert_allclose(np.diag(scan.affine), [-expected, -expected, 1, 1])
    assert bool(scan.warnings) == (edge_mm is None)


def test_clips_and_several_images_are_refused(tmp_path: Path) -> None:
    clip = write_us(tmp_path / "clip.dcm", np.stack([draw()] * 4), frames=4)
    with pytest.raises(InputError, match=r"clip\.dcm' holds 4 frames and does not say"):
        read_scan(clip)
    folder, uid = tmp_path / "two", generate_uid()
    folder.mkdir()
    for name in ("a.dcm", "b.dcm"):
        write_us(folder / name, draw(), uid=uid)
    with pytest.raises(InputError, match=r"holds 2 ultrasound images, which make no volume"):
        read_scan(folder)


def test_pixels_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = write_us(tmp_path / "a.dcm", draw(), PhotometricInterpretation="PALETTE COLOR", Rows=41)
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_scan(path)


def test_it_is_found_by_its_path_and_as_the_only_file_of_a_folder(tmp_path: Path) -> None:
    path = write_us(tmp_path / "a.dcm", draw())
    for place in (path, tmp_path):
        (scan,) = find_scans(place).scans
        assert read_scan(scan.path).array.shape == (60, 40, 1)
