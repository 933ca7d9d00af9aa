"""The frames of a multi-frame file, each as a slice of its own.

Enhanced MR and CT keep in functional groups (DICOM PS3.3, C.7.6.16) what other files have in their
header: some for all frames, the rest for each. Flattened, a frame passes the same checks as a file
of one slice.
"""

from typing import TYPE_CHECKING

import numpy as np

from heatmask.data.readers.dicom_files import DicomSlice
from heatmask.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_OTHER_NAMES = {"EffectiveEchoTime": "EchoTime", "InversionTimes": "InversionTime"}
"""What functional groups call attributes that other files have too."""
_OF_FILE = (
    "NumberOfFrames", "InstanceNumber", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


def list_frames(one: DicomSlice) -> list[DicomSlice]:
    """Return a slice for each frame of a file; the slice itself if the file has only one.

    Raises
    ------
    InputError
        The file has several frames, and does not say where each of them lies.
    """
    header = one.header
    count = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups and count == 1:
        return [one]
    if len(groups) != count:
        raise InputError(
            f"'{one.path.name}' holds {count} frames and does not say where each of them lies. "
            "Export it as enhanced MR, or as a file for each slice."
        )
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [
        DicomSlice(one.path, _flatten(header, [*shared, group]), index)
        for index, group in enumerate(groups)
    ]


def read_frames(slices: list[DicomSlice]) -> np.ndarray:
    """Return the intensities (X, Y, Z) of frames of one file, in the order given.

    By pydicom: ITK stacks frames as they are stored, and rescales all of them as the first.

    Raises
    ------
    InputError
        They are compressed in a way that pydicom cannot decode here.
    """
    from pydicom import dcmread

    path = slices[0].path
    try:
        header = dcmread(path, force=True)
        stored = header.pixel_array
    except Exception as error:  # pydicom and its decoders raise whatever their parts do
        raise InputError(
            f"The frames of '{path}' cannot be decoded. Export the series uncompressed "
            "(explicit little endian), or copy it again."
        ) from error
    stored = stored[None] if stored.ndim == 2 else stored
    if header.PhotometricInterpretation == "MONOCHROME1":  # 0 is white, as ITK turns it too
        stored = stored.max() - stored
    return np.stack([_rescale(stored[one.frame or 0], one.header) for one in slices], axis=2)


def measure_frames(slices: list[DicomSlice]) -> np.ndarray:
    """Return the affine (4, 4) to RAS mm of sorted frames (DICOM PS3.3, C.7.6.2.1.1)."""
    first, last = slices[0].header, slices[-1].header
    along_row, down_column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    rows_mm, columns_mm = map(float, first.PixelSpacing)
    start, end = (np.array(header.ImagePositionPatient, float) for header in (first, last))
    normal = np.cross(along_row, down_column)
    step = (end - start) / (len(slices) - 1) if len(slices) > 1 else normal
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * columns_mm, down_column * rows_mm, step, start])
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _flatten(header: "Dataset", groups: list["Dataset"]) -> "Dataset":
    """Return the header of a file with the attributes of one of its frames."""
    from pydicom import Dataset

    flat = Dataset()
    flat.update({element.tag: element for element in header if element.keyword not in _OF_FILE})
    flat.file_meta = header.file_meta
    macros = (element.value for group in groups for element in group if element.VR == "SQ")
    for element in (element for items in macros for item in items[:1] for element in item):
        name = _OTHER_NAMES.get(element.keyword)
        if name is None:
            flat[element.tag] = element
        elif element.value not in (None, ""):
            first = element.value if element.VM == 1 else element.value[0]
            setattr(flat, name, first)
    return flat


def _rescale(plane: np.ndarray, header: "Dataset") -> np.ndarray:
    slope = float(header.get("RescaleSlope") or 1)
    values = plane.astype(np.float64) * slope + float(header.get("RescaleIntercept") or 0)
    return values.astype(np.float32).T
