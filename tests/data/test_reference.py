"""One rule for what a reference mask marks, whoever reads it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from heatmask.data.readers.reference import read_reference
from heatmask.data.tables.derive import derive_slice_labels
from heatmask.errors import InputError
from helpers.planted import make_affine

AFFINE = make_affine((1.5, 2.0, 5.0), "LAS", (10.0, 0.0, 5.0))
MASK = np.zeros((6, 5, 4), bool)
MASK[1:4, 2, 1:3] = True


def write(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


@pytest.mark.fault("E")
@pytest.mark.parametrize(
    "stored",
    [
        MASK.astype(np.uint8),
        MASK * np.int16(4),
        MASK[..., None].astype(np.uint8),
        MASK[None].astype(np.uint8),
        MASK[:, :, None].astype(np.uint8),
        np.where(MASK, 0.99999998, 0.0),
        np.where(MASK, 2.0004, -1e-7).astype(np.float32),
    ],
    ids=["labels", "label 4", "4D", "1xyz", "xy1z", "0.99999998", "rounded"],
)
def test_what_is_not_nought_is_marked(tmp_path: Path, stored: np.ndarray) -> None:
    mask, affine = read_reference(write(tmp_path / "a-seg.nii.gz", stored))
    np.testing.assert_array_equal(mask, MASK)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


@pytest.mark.fault("E")
def test_a_parcellation_is_a_mask_too(tmp_path: Path) -> None:
    """Many labels, each in one patch."""
    labels = np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5).repeat(5, axis=0)
    assert read_reference(write(tmp_path / "a.nii", labels))[0].all()


def test_a_mask_may_mark_nothing(tmp_path: Path) -> None:
    assert not read_reference(write(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8)))[0].any()


@pytest.mark.fault("E")
@pytest.mark.parametrize(
    "stored",
    [
        np.linspace(0, 1, 60).reshape(3, 4, 5),
        np.full((3, 4, 5), np.nan),
        np.zeros((3, 4, 5, 2), np.uint8),
        np.full((3, 4, 5), -1, np.int16),
        np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10),
        np.random.default_rng(0).integers(0, 256, (8, 9, 10)).astype(np.uint8),
    ],
    ids=["probabilities", "NaN", "two channels", "negative", "a scan", "a scan of 8 bits"],
)
def test_what_is_no_label_map_is_refused(tmp_path: Path, stored: np.ndarray) -> None:
    path = write(tmp_path / "p1_seg.nii.gz", stored)
    for read in (read_reference, lambda path: derive_slice_labels(path, tmp_path / "labels.csv")):
        with pytest.raises(InputError, match=r"p1_seg.*3D label map of whole numbers from 0"):
            read(path)


@pytest.mark.fault("E")
@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "missing"])
def test_a_file_that_cannot_be_read_is_a_plain_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a-seg.nii.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"The mask cannot be read\. .*a-seg\.nii\.gz"):
        read_reference(path)


def test_a_picture_marks_what_is_not_black(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1, 2:5] = (200, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask, _ = read_reference(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask[..., 0], (pixels.any(axis=2)).T)
    Image.fromarray(pixels).save(tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="is a JPEG"):
        read_reference(tmp_path / "mask.jpg")
