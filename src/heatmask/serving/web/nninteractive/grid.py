"""Where an array lies that came without an affine.

nnInteractive's clients send voxels and, most of them, the spacing along the array's axes. A model
looks at slices in one direction, so an orientation has to be assumed; whoever knows better sends
``image_properties={"affine": ...}``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from heatmask.errors import InputError


def place_image(
    array: NDArray[Any],
    spacing_mm: Sequence[float] | None = None,
    affine: Sequence[Sequence[float]] | None = None,
) -> MetaTensor:
    """Return the first channel of an array (C, X, Y, Z) as a scan (1, X, Y, Z) with its affine.

    Raises
    ------
    InputError
        The array has other axes, or the affine is singular.
    """
    if array.ndim != 4:
        raise InputError(f"An image must be (C, X, Y, Z), got {array.shape}.")
    if affine is None:
        matrix = assume_affine(spacing_mm or (1.0, 1.0, 1.0))
    else:
        matrix = np.asarray(affine, np.float64)
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9 or matrix[3].tolist() != [0, 0, 0, 1]:
            raise InputError(f"The affine must place voxels in mm, got {matrix.tolist()}.")
    return MetaTensor(torch.from_numpy(array[:1].astype(np.float32)), torch.from_numpy(matrix))


def assume_affine(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return the affine (4, 4) from voxels to mm, in RAS space, of an array that came without one.

    With the longest edges along the last axis it is taken for (x, y, z) towards right, front and
    top, as nibabel reads most NIfTI. Any other is taken for (z, y, x) towards top, back and left,
    as 3D Slicer and SimpleITK give the arrays of axial scans.
    """
    first, second, third = spacing_mm
    affine = np.diag([first, second, third, 1.0])
    if third <= max(first, second):
        affine[:3, :3] = [[0, 0, -third], [0, -second, 0], [first, 0, 0]]
    return affine
