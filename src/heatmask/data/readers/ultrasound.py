"""Ultrasound as DICOM: one picture, in grey or colour, that says at most how large its pixels are.

It has no place in the patient, so it lies as any picture does (`heatmask.data.readers.pictures`).
Through pydicom, which brings colours to RGB; ITK would take the first of them for the whole.
"""

from typing import Any

import numpy as np

from heatmask.data.readers.dicom_series import DicomSeries
from heatmask.data.readers.pictures import NOMINAL_WIDTH_MM, to_grey
from heatmask.data.readers.raw import RawScan
from heatmask.errors import InputError

_CENTIMETRES = 3
"""Physical units of a region (DICOM PS3.3, C.8.5.5.1.15)."""


def is_ultrasound(series: DicomSeries) -> bool:
    """Whether a series is of ultrasound images without a place in space."""
    header = series.header
    return header.get("Modality") == "US" and not header.get("ImagePositionPatient")


def read_ultrasound(series: DicomSeries) -> RawScan:
    """Read the only image of a series.

    Raises
    ------
    InputError
        There are several, or the pixels cannot be decoded.
    """
    from pydicom import dcmread
    from pydicom.pixels import apply_color_lut, pixel_array

    path = series.slices[0].path
    if len(series.slices) > 1:
        raise InputError(
            f"'{path.parent}' holds {len(series.slices)} ultrasound images, which make no volume. "
            "Give one of the files."
        )
    header = dcmread(path)
    try:
        pixels = pixel_array(header)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, header)
    except Exception as error:  # the decoders raise whatever the bytes lead to
        raise InputError(f"The pixels of '{path}' cannot be decoded. Export it again.") from error
    if header.PhotometricInterpretation == "MONOCHROME1":  # 0 is white
        pixels = pixels.max() - pixels
    array = np.ascontiguousarray(to_grey(pixels).T[:, :, None], np.float32)
    pixel_mm, warnings = _find_pixel_mm(header), []
    if pixel_mm is None:
        pixel_mm = NOMINAL_WIDTH_MM / max(array.shape)
        warnings = [
            f"'{path.name}' does not say how large its pixels are; it counts as "
            f"{NOMINAL_WIDTH_MM:g} mm wide."
        ]
    affine = np.diag([-pixel_mm, -pixel_mm, 1.0, 1.0])
    return RawScan(array, affine, None, warnings)


def _find_pixel_mm(header: Any) -> float | None:
    """Return the edge of a pixel, if all regions of the image name the same, and it is square."""
    edges = set()
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        across, down = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY")
        if units != {_CENTIMETRES} or not across or not np.isclose(across, down, rtol=0.01):
            return None
        edges.add(round(10 * across, 6))
    return edges.pop() if len(edges) == 1 else None
