"""The files in which volumes go to viewers: on the grid on which a viewer shows the scan.

Viewers built on ITK lay out some NIfTI otherwise than nibabel does; see `find_shown_affine`.
"""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monailabel.transform.writer import write_itk
from torch import Tensor

from heatmask.data.readers.nifti import read_itk_grid
from heatmask.errors import InputError, OptionError, OutputError
from heatmask.report.writer import save_volume

RESULT_EXTENSIONS = (".nrrd", ".nii.gz", ".nii")
RESULT_DTYPES = ("uint8", "uint16")


def read_result_format(request: Mapping[str, Any]) -> tuple[str, str]:
    """Return the file extension and the data type that a request wants its mask in.

    Raises
    ------
    OptionError
        The mask is not written like that.
    """
    extension = request.get("result_extension") or RESULT_EXTENSIONS[0]
    dtype = request.get("result_dtype") or RESULT_DTYPES[0]
    for name, value, choices in (
        ("result_extension", extension, RESULT_EXTENSIONS),
        ("result_dtype", dtype, RESULT_DTYPES),
    ):
        if value not in choices:
            raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
    return str(extension), str(dtype)


def write_volume(
    volume: Tensor, scan: MetaTensor, extension: str, dtype: str, folder: Path | None = None
) -> str:
    """Write a volume (1, X, Y, Z) to a new temporary file, compressed, and return its path.

    It lies where the client's viewer shows the scan: a NIfTI carries the scan's own forms, an
    NRRD the affine that ITK takes for the scan.

    Raises
    ------
    TypeError
        It is a plain tensor: without its affine it would land in a wrong place.
    OutputError
        The folder for temporary files cannot be written.
    """
    if not isinstance(volume, MetaTensor):
        raise TypeError(f"The volume must be a MetaTensor, got {type(volume).__name__}.")
    try:
        with tempfile.NamedTemporaryFile(suffix=extension, dir=folder, delete=False) as file:
            if extension == ".nrrd":
                affine = find_shown_affine(scan, volume)
                write_itk(volume[0].numpy(force=True), file.name, affine, np.dtype(dtype), True)
            else:
                save_volume(volume, scan, Path(file.name), np.dtype(dtype))
    except (OSError, RuntimeError) as error:  # ITK raises the latter
        raise OutputError(
            f"The folder '{folder or tempfile.gettempdir()}' must be writable, got: {error}. "
            "Free some space there."
        ) from error
    return file.name


def warm_up() -> None:
    """Write and read a mask: ITK loads its parts when they are first used, which takes seconds."""
    mask = MetaTensor(torch.zeros(1, 2, 2, 2), torch.eye(4))
    for extension in RESULT_EXTENSIONS:
        file = Path(write_volume(mask, mask, extension, RESULT_DTYPES[0]))
        read_itk_grid(file)
        file.unlink()


def find_shown_grid(image: Path, scan: MetaTensor) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape (X, Y, Z) and affine (4, 4) of an image as a viewer built on ITK shows it.

    Of a DICOM series it gets a copy, which lies as the scan was read.
    """
    if image.is_dir():
        return tuple(scan.shape[1:]), np.asarray(scan.affine)
    return read_itk_grid(image)


def find_shown_affine(scan: MetaTensor, mask: MetaTensor) -> np.ndarray:
    """Return the affine (4, 4) with which a viewer built on ITK shows a scan and its mask."""
    if "nifti_header" in scan.meta:
        with suppress(InputError):  # the viewer does not show this scan
            shape, affine = read_itk_grid(Path(scan.meta["filename_or_obj"]))
            if shape == tuple(mask.shape[1:]):
                return affine
    return np.asarray(mask.affine)
