"""Scans written to disk for tests, by other code than the code that reads them.

All take the voxels (X, Y, Z) and the affine (4, 4) from voxel indices to RAS mm.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write with sform and qform set."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def write_raw_nifti(path: Path, array: np.ndarray, sform: np.ndarray) -> Path:
    """Write an sform that nibabel would refuse to write."""
    header = nib.Nifti1Image(array, np.eye(4)).header
    header["sform_code"], header["qform_code"] = 1, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = sform[:3]
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes("F"))
    return path


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray, space: str = "LPS") -> Path:
    """Write a raw NRRD by hand; `space` is "LPS" or "RAS"."""
    names = {"LPS": "left-posterior-superior", "RAS": "right-anterior-superior"}
    world = RAS_TO_LPS @ affine if space == "LPS" else affine
    lines = [
        "NRRD0004",
        "type: float",
        f"dimension: {array.ndim}",
        f"space: {names[space]}",
        f"sizes: {' '.join(map(str, array.shape))}",
        "space directions: " + " ".join(_vector(column) for column in world[:3, :3].T),
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(world[:3, 3])}",
    ]
    header = "\n".join(lines) + "\n\n"
    path.write_bytes(header.encode() + array.astype("<f4").tobytes("F"))
    return path


def write_dicom_series(
    folder: Path, array: np.ndarray, affine: np.ndarray, suffix: str = ".dcm", **attributes: Any
) -> Path:
    """Write one file per slice, whole numbers only, with names and numbers in another order.

    The affine must be right-handed. `attributes` are DICOM keywords for all slices, or
    lists with one value per slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series_uid, n_slices = generate_uid(), array.shape[2]
    for index in range(n_slices):
        dataset = _make_slice(array[:, :, index], RAS_TO_LPS @ affine, index)
        dataset.SeriesInstanceUID = series_uid
        dataset.InstanceNumber = n_slices - index
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value[index] if isinstance(value, list) else value)
        name = f"IM{(3 * index + 1) % n_slices:03d}_{n_slices - index}{suffix}"
        dataset.save_as(folder / name, enforce_file_format=True)
    return folder


def _make_slice(plane: np.ndarray, affine_lps: np.ndarray, index: int) -> Dataset:
    spacing_mm = np.linalg.norm(affine_lps[:3, :3], axis=0)
    directions = affine_lps[:3, :3] / spacing_mm
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "MR"
    dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = "1.2.3"
    # PS3.3 C.7.6.2.1.1: rows run along the first three cosines, columns down the others.
    dataset.ImageOrientationPatient = [f"{v:.9f}" for v in directions[:, :2].T.ravel()]
    dataset.ImagePositionPatient = [
        f"{v:.9f}" for v in affine_lps[:3, :3] @ [0, 0, index] + affine_lps[:3, 3]
    ]
    dataset.PixelSpacing = [f"{spacing_mm[1]:.10g}", f"{spacing_mm[0]:.10g}"]
    dataset.SpacingBetweenSlices = 99  # a wrong value, as in thinned series
    dataset.SliceThickness = 1
    dataset.Columns, dataset.Rows = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = plane.astype("<i2").T.tobytes()
    return dataset


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(f"{value:.12g}" for value in values) + ")"


def write_enhanced_mr(
    path: Path, array: np.ndarray, affine: np.ndarray, order: list[int], slopes: list[float]
) -> Path:
    """Write one multi-frame file, its frames stored in `order`, each with a slope of its own.

    Whole numbers only, as `write_dicom_series`; the scan's intensities are slope times them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    enhanced = _make_slice(array[:, :, 0], lps, 0)
    spacing, directions = enhanced.PixelSpacing, enhanced.ImageOrientationPatient
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        del enhanced[keyword]
    enhanced.file_meta.MediaStorageSOPClassUID = enhanced.SOPClassUID = EnhancedMRImageStorage
    enhanced.SeriesInstanceUID, enhanced.InstanceNumber = generate_uid(), 1
    enhanced.SeriesDescription = "t2_tirm_tra_dark-fluid"
    enhanced.SharedFunctionalGroupsSequence = [Dataset()]
    (shared,) = enhanced.SharedFunctionalGroupsSequence
    _add_macro(shared, "PixelMeasuresSequence", PixelSpacing=spacing, SliceThickness=1)
    _add_macro(shared, "PlaneOrientationSequence", ImageOrientationPatient=directions)
    _add_macro(shared, "MREchoSequence", EffectiveEchoTime=90.0)
    frames = []
    for index in order:
        frame = Dataset()
        position = _make_slice(array[:, :, index], lps, index).ImagePositionPatient
        _add_macro(frame, "PlanePositionSequence", ImagePositionPatient=position)
        _add_macro(
            frame, "PixelValueTransformationSequence",
            RescaleSlope=slopes[index], RescaleIntercept=0, RescaleType="US",
        )  # fmt: skip
        frames.append(frame)
    enhanced.PerFrameFunctionalGroupsSequence = frames
    enhanced.NumberOfFrames = len(order)
    enhanced.PixelData = b"".join(array[:, :, i].astype("<i2").T.tobytes() for i in order)
    enhanced.save_as(path, enforce_file_format=True)
    return path


def _add_macro(group: Dataset, name: str, **attributes: Any) -> None:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    setattr(group, name, [item])


def write_us(path: Path, pixels: np.ndarray, frames: int = 1, **attributes: Any) -> Path:
    """Write pixels ([frames,] rows, columns [, 3]) as an ultrasound image without a place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    file.SeriesInstanceUID, file.PatientID = attributes.pop("uid", generate_uid()), "P"
    file.Modality, file.ImageType = "US", ["ORIGINAL", "PRIMARY"]
    has_colours = pixels.shape[-1] == 3
    file.Rows, file.Columns = pixels.shape[frames > 1 :][:2]
    file.SamplesPerPixel = 3 if has_colours else 1
    file.PhotometricInterpretation = "RGB" if has_colours else "MONOCHROME2"
    if has_colours:
        file.PlanarConfiguration = 0
    if frames > 1:
        file.NumberOfFrames = frames
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    for name, value in attributes.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path
