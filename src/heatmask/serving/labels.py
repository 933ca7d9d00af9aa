"""What a client submits as a label: refused unless it is one, for it takes the last one's place."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heatmask.data.reference import read_reference
from heatmask.errors import InputError
from heatmask.evaluation.segmentation import match_voxels

_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def check_label(label: Path, image: Path) -> None:
    """Refuse a label that cannot be read, is no label map, or lies on other voxels than its image.

    A label that marks nothing is one too: "no tumour". Places are compared as ITK reads them, and
    so the viewer.

    Raises
    ------
    InputError
        With the reason; what is stored stays.
    """
    try:
        mask, _ = read_reference(label)
        match_voxels(mask, _read_grid(label)[1], *_read_grid(image))
    except InputError as error:
        raise InputError(f"This label was not stored, an earlier one is kept. {error}") from error


def _read_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return the shape (X, Y, Z) of a file and its affine to RAS, from the header."""
    import itk

    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path))
    try:
        reader.UpdateOutputInformation()
    except RuntimeError as error:
        reason = " ".join(str(error).split("ITK ERROR:")[-1].split())
        raise InputError(f"'{path.name}' cannot be read by the viewer ({reason}).") from error
    image = reader.GetOutput()
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return tuple(image.GetLargestPossibleRegion().GetSize()), _RAS @ affine
