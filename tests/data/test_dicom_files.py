"""Every file of a DICOM folder is used, known to hold no image, or refused by name."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from heatmask.data.finding.scans import find_scans
from heatmask.data.readers.dicom_files import is_dicom_folder
from heatmask.data.readers.read import read_scan
from heatmask.errors import InputError
from helpers.scan_files import write_dicom_series

pytestmark = pytest.mark.fault("A")

ARRAY = np.random.default_rng(0).permutation(9 * 7 * 6).reshape(9, 7, 6)
AFFINE = np.diag([-0.8, -1.1, 4.0, 1.0])
PIXEL_BYTES = 9 * 7 * 2


def write_series(folder: Path, **attributes: Any) -> list[Path]:
    """Six slices; files in the order of space."""
    write_dicom_series(folder, ARRAY, AFFINE, **attributes)
    return sorted(folder.iterdir(), key=lambda path: -int(path.stem.split("_")[1]))


def strip_marker(path: Path) -> None:
    """Leave the data set alone, with implicit types, as ACR-NEMA software wrote it."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)


def test_slices_without_the_marker_are_read(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    for path in files[4:]:
        strip_marker(path)
    np.testing.assert_array_equal(read_scan(tmp_path).array, ARRAY)
    for path in files[:4]:
        strip_marker(path)
    assert is_dicom_folder(tmp_path)
    np.testing.assert_array_equal(read_scan(tmp_path).array, ARRAY)


@pytest.mark.parametrize("has_marker", [True, False])
def test_a_slice_cut_anywhere_is_refused_by_name(tmp_path: Path, has_marker: bool) -> None:
    path = write_series(tmp_path)[3]
    if not has_marker:
        strip_marker(path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 23), len(content) - 2]:
        path.write_bytes(content[:length])
        with pytest.raises(
            InputError, match=rf"1 of 6 DICOM slices in '.*' cannot be used: {path.name} \("
        ) as caught:
            read_scan(tmp_path)
        assert "\n" not in str(caught.value)


def test_the_message_says_what_is_wrong_with_each(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:140])
    files[2].write_bytes(files[2].read_bytes()[:600])
    files[3].write_text("Error 404")
    with pytest.raises(InputError) as caught:
        read_scan(tmp_path)
    for path, reason in zip(
        files,
        ["0 bytes", "its header is cut off or damaged", "it ends before the pixels", "no DICOM"],
        strict=False,
    ):
        assert f"{path.name} ({reason})" in str(caught.value)
    assert "4 of 6 DICOM slices in" in str(caught.value)


def test_pixels_shorter_than_the_header_says(tmp_path: Path) -> None:
    (path, *_) = write_series(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[: PIXEL_BYTES // 3]
    dataset.save_as(path)
    with pytest.raises(InputError, match=rf"{path.name} \(42 of 126 bytes of pixels\)"):
        read_scan(tmp_path)


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_other_files_beside_the_slices_are_passed_over(tmp_path: Path, suffix: str) -> None:
    files = write_series(tmp_path, suffix=suffix)
    for name, content in {
        "README": b"", "VERSION": b"1.2", "Thumbs.db": b"\xd0\xcf\x11\xe0", ".DS_Store": b"",
        "series.json": b"{}", "IM001.jpg": b"\xff\xd8", "notes 2.txt": b"",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    report = pydicom.dcmread(files[0])
    report.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComprehensiveSRStorage
    report.SOPClassUID = pydicom.uid.ComprehensiveSRStorage
    report.SeriesInstanceUID = "1.2.3"
    segmentation = pydicom.dcmread(files[0])
    segmentation.file_meta.MediaStorageSOPClassUID = pydicom.uid.SegmentationStorage
    segmentation.SeriesInstanceUID = "1.2.4"
    del report.PixelData, report.Rows
    report.save_as(tmp_path / "report")
    segmentation.save_as(tmp_path / "segmentation")
    np.testing.assert_array_equal(read_scan(tmp_path).array, ARRAY)


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_files_with_the_names_of_slices_are_refused(tmp_path: Path, suffix: str) -> None:
    write_series(tmp_path, suffix=suffix)
    for name in (f"IM777_9{suffix}", f"1.2.840.10008.7{suffix}"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=rf"1 of 7 DICOM slices in .*{name} \(0 bytes\)"):
            read_scan(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_what_stands_for_a_slice_is_refused(tmp_path: Path, suffix: str) -> None:
    """Compressed, or still on its way."""
    path = write_series(tmp_path, suffix=suffix)[3]
    (tmp_path / f"{path.name}.gz").write_bytes(b"\x1f\x8b")
    np.testing.assert_array_equal(read_scan(tmp_path).array, ARRAY)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match=rf"1 of 6 DICOM slices in .*{path.name}.gz \(no DICOM\)"):
        read_scan(tmp_path)
    (tmp_path / f"{path.name}.gz").unlink()
    (tmp_path / f".{path.name}.Xa3f9").write_bytes(content[:-9])
    with pytest.raises(InputError, match=r"1 of 6 DICOM slices in .*Xa3f9 \("):
        read_scan(tmp_path)


def test_hashes_for_names(tmp_path: Path) -> None:
    for index, path in enumerate(write_series(tmp_path)):
        path.rename(tmp_path / hashlib.md5(bytes([index])).hexdigest())
    last = max(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:90])
    with pytest.raises(InputError, match=rf"1 of 6 DICOM slices in .*{last.name} \(no DICOM\)"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("attribute", "match"),
    [
        ({"PatientID": ["a", "a", "b", "a", "a", "a"]}, "of another patient than"),
        ({"PixelSpacing": [[0, 0]] * 6}, "The PixelSpacing of"),
    ],
)
def test_slices_that_do_not_belong_together(
    tmp_path: Path, attribute: dict[str, Any], match: str
) -> None:
    write_series(tmp_path, **attribute)
    with pytest.raises(InputError, match=match):
        read_scan(tmp_path)


def test_a_slice_of_fewer_bits_than_it_holds(tmp_path: Path) -> None:
    path = write_series(tmp_path)[2]
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.save_as(path)
    with pytest.raises(InputError, match="BitsAllocated is 8"):
        read_scan(tmp_path)


def test_a_series_in_several_folders_is_said_to_be_one(tmp_path: Path) -> None:
    for path in write_series(tmp_path)[:3]:
        (tmp_path / "rest").mkdir(exist_ok=True)
        path.rename(tmp_path / "rest" / path.name)
    scans, (note,) = find_scans(tmp_path)
    assert len(scans) == 2
    assert note.startswith("One DICOM series lies in 2 folders (")


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_series_without_any_bytes(tmp_path: Path, suffix: str) -> None:
    write_series(tmp_path / "a")
    for path in write_series(tmp_path / "b", suffix=suffix):
        path.write_bytes(b"")
    assert "6 of 0 bytes" in find_scans(tmp_path).notes[0]
    with pytest.raises(InputError, match="6 of 0 bytes"):
        find_scans(tmp_path / "b")


def test_links_to_slices_that_are_not_there(tmp_path: Path) -> None:
    """As git-annex and DataLad leave them where the content was not fetched."""
    files = write_series(tmp_path / "a")
    content = files[2].rename(tmp_path / "MD5E-s134--0f3a")
    files[2].symlink_to(content)
    np.testing.assert_array_equal(read_scan(tmp_path / "a").array, ARRAY)
    content.unlink()
    (tmp_path / "a" / "notes").symlink_to(content)
    reason = f"1 of 6 DICOM slices in .*{files[2].name} .a link to a file that is not there"
    with pytest.raises(InputError, match=reason):
        read_scan(tmp_path / "a")


def test_in_an_archive_a_damaged_series_is_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    files = write_series(tmp_path / "b")
    files[5].write_bytes(b"")
    (scan,), (note,) = find_scans(tmp_path)
    assert scan.path.name == "a"
    assert f"{files[5].name} (0 bytes)" in note


def test_compressed_slices_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_scan(tmp_path).array, ARRAY)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(path)
    with pytest.raises(
        InputError, match=rf"1 of 6 DICOM slices cannot be decoded: '.*{path.name}'"
    ):
        read_scan(tmp_path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=path.name):
        read_scan(tmp_path)


def drop(files: list[Path], *numbers: int) -> None:
    for path in files:
        if int(path.stem.split("_")[1]) in numbers:
            path.unlink()


@pytest.mark.parametrize("total", ["ImagesInAcquisition", "NumberOfSeriesRelatedInstances"])
@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda files: None, None),
        (lambda files: drop(files, 2, 4, 6), None),  # thinned
        (lambda files: drop(files, 1, 2), "holds numbers 3 to 6."),
        (lambda files: drop(files, 6), "holds numbers 1 to 5 of 6."),
        (lambda files: drop(files, 1, 6), "holds numbers 2 to 5 of 6."),
    ],
)
def test_numbers_tell_that_slices_are_missing(
    tmp_path: Path, change: Callable[[list[Path]], None], warning: str | None, total: str
) -> None:
    of = {total: 6} if warning and "of 6" in warning else {}
    change(write_series(tmp_path, **of))
    warnings = read_scan(tmp_path).warnings
    if warning is None:
        assert warnings == []
    else:
        (said,) = warnings
        assert said.startswith("Slices may be missing")
        assert warning in said


@pytest.mark.parametrize(
    ("numbers", "warning"),
    [
        ([1, 1, 1, 1, 1, 1], "numbered twice"),
        ([1, 2, 3, 7, 8, 9], "from 1 to 9, and there are 6"),
        ([None] * 6, None),
        ([0, 1, 2, 3, 4, 5], None),
    ],
)
def test_odd_numbers(tmp_path: Path, numbers: list[int | None], warning: str | None) -> None:
    write_series(tmp_path, InstanceNumber=numbers)
    said = " ".join(read_scan(tmp_path).warnings)
    assert (warning in said) if warning else not said


@pytest.mark.parametrize("padding", [-2000, 63536, 5000, 0])
def test_padding_becomes_background(tmp_path: Path, padding: int) -> None:
    """Also where the value came as an unsigned one though the pixels are signed."""
    stored = np.abs(ARRAY) + 30
    stored[:3] = np.int64(padding).astype(np.int16)
    write_dicom_series(
        tmp_path, stored, AFFINE,
        RescaleSlope=[1.0, 0.5, 2.0, 1.0, 1.0, 0.25], RescaleIntercept=10,
    )  # fmt: skip
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00280120, "US" if padding > 6000 else "SS", padding)
        dataset.save_as(path)
    array = read_scan(tmp_path).array
    assert (array[:3] == 10).all()  # what a stored 0 means
    np.testing.assert_allclose(array[3:, :, 1], stored[3:, :, 1] * 0.5 + 10)


def test_signed_padding_of_unsigned_pixels(tmp_path: Path) -> None:
    stored = (np.abs(ARRAY) + 30).astype(np.uint16)
    stored[:3] = 63536
    write_dicom_series(tmp_path, stored, AFFINE)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00280120, "SS", -2000)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_scan(tmp_path).array[:3], 0)


def test_a_range_of_padding(tmp_path: Path) -> None:
    stored = ARRAY - 40  # -40 is the lowest
    stored[:2], stored[2:4] = -1000, -900
    write_dicom_series(
        tmp_path, stored, AFFINE, PixelPaddingValue=-1000, PixelPaddingRangeLimit=-900
    )
    array = read_scan(tmp_path).array
    assert set(np.unique(array[:4])) == {stored[4:].min()}
    np.testing.assert_array_equal(array[4:], stored[4:])
