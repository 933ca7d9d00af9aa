"""The voxels of a DICOM series, or of one slice.

Through ITK (GDCM), which decodes every transfer syntax, with the order of `sort_slices`; MONAI's
`PydicomReader` is not used because it sorts slices by InstanceNumber. Files of many frames are
read by `heatmask.data.readers.dicom_frames`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ITKReader

from heatmask.data.readers.dicom_frames import measure_frames, read_frames
from heatmask.data.readers.dicom_series import (
    describe_numbering,
    read_only_series,
    read_only_slice,
    sort_slices,
)
from heatmask.data.readers.raw import RawScan, check_affine
from heatmask.data.readers.ultrasound import is_ultrasound, read_ultrasound
from heatmask.errors import InputError


def read_dicom(path: Path) -> RawScan:
    """Read the only series of a folder, a slice or an ultrasound image, rescaled to intensities.

    Raises
    ------
    InputError
        Files are damaged, cannot be decoded, or make no regular grid.
    """
    series = read_only_series(path) if path.is_dir() else read_only_slice(path)
    if is_ultrasound(series):
        return read_ultrasound(series)
    slices = sort_slices(series)
    if series.slices[0].frame is not None:
        array, affine = read_frames(slices), measure_frames(slices)
    else:
        array, affine = _read_voxels([str(one.path) for one in slices])
    check_affine(affine, path)
    thickness_mm = float(series.header.get("SliceThickness") or 0)
    if len(slices) == 1 and thickness_mm > 0:  # ITK takes the distance to slices that are not there
        affine[:3, 2] *= thickness_mm / np.linalg.norm(affine[:3, 2])
    fill_padding(array, [one.header for one in slices])
    warnings = describe_numbering(series) if path.is_dir() else []
    return RawScan(array, affine, series.header, warnings)


def fill_padding(array: np.ndarray, headers: list[Any]) -> None:
    """Make pixels outside the image background, in place.

    PixelPaddingValue (DICOM PS3.3, C.7.5.1.1.2) marks them with a value that is often far below
    any intensity. They get what a stored 0 stands for, or the lowest intensity if that is lower.

    Parameters
    ----------
    array
        Intensities (X, Y, Z).
    headers
        Of each slice.
    """
    pairs = zip(array.T, headers, strict=True)
    padded = np.stack([_find_padding(plane, header) for plane, header in pairs]).T
    if not padded.any() or padded.all():
        return
    lowest = float(array[~padded].min())
    for index, header in enumerate(headers):
        background = min(lowest, float(header.get("RescaleIntercept") or 0))
        array[:, :, index][padded[:, :, index]] = background


def _find_padding(plane: np.ndarray, header: Any) -> np.ndarray:
    """Where the intensities of a slice are those of padding."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return np.zeros(plane.shape, bool)
    last = header.get("PixelPaddingRangeLimit")
    ends = np.array([first, first if last is None else last], np.int64)
    # By the sign of the pixels: the value may have come with the other one.
    kind = "int" if header.get("PixelRepresentation") else "uint"
    ends = ends.astype(f"{kind}{header.BitsAllocated}").astype(np.int64)
    slope = float(header.get("RescaleSlope") or 1)
    ends = np.sort(ends * slope + float(header.get("RescaleIntercept") or 0))
    half = abs(slope) / 2
    return (plane > ends[0] - half) & (plane < ends[1] + half)


def _read_voxels(files: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Intensities (X, Y, Z) and affine (4, 4) to RAS mm."""
    import itk

    try:
        # Float from the start: ITK would give all slices the type that the first one needs,
        # and cut off the fractions of slices with another RescaleSlope.
        view, meta = ITKReader().get_data(itk.imread(files, itk.F))
    except RuntimeError as error:  # whatever ITK raises
        raise InputError(_name_undecodable(files)) from error
    # A copy: contiguous, and independent of the ITK image.
    return np.array(view, np.float32, order="C"), np.array(meta["affine"], np.float64)


def _name_undecodable(files: list[str]) -> str:
    """Say which files ITK cannot read."""
    import itk

    bad = []
    for file in files:
        try:
            itk.imread(file, itk.F)
        except RuntimeError:
            bad.append(file)
    named = ", ".join(f"'{file}'" for file in bad[:3] or files[:1])
    return (
        f"{len(bad) or len(files)} of {len(files)} DICOM slices cannot be decoded: {named}. Copy "
        "or export the series again."
    )
