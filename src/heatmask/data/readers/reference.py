"""Reference masks: one rule for what is marked, whoever asks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heatmask.data.checks.plausibility import is_in_patches
from heatmask.data.paths import is_picture
from heatmask.data.readers.read import read_scan
from heatmask.errors import InputError

ROUNDING = 1e-3
"""How far a label may lie from a whole number: resampled maps hold 0.99999998 for 1."""
FEW_LABELS, MAX_LABELS = 16, 256
"""More values than the first are labels only in patches, more than the second are none."""


def read_reference(path: str | Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Read a reference mask, or a stored label.

    Whatever is not 0 is marked: every label of a label map, every grey of a picture. A file that
    marks nothing is a mask too.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z), True where marked. Further axes of length 1 are dropped.
    numpy.ndarray
        Affine (4, 4) to RAS mm; of a picture it means nothing.

    Raises
    ------
    InputError
        As `read_label_map`.
    """
    labels, affine = read_label_map(path)
    return labels != 0, affine


def read_label_map(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the labels of a reference mask, or of a stored label.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z), whole numbers from 0; of a picture 1 where it is not black.
    numpy.ndarray
        As `read_reference`.

    Raises
    ------
    InputError
        The file cannot be read, or holds no labels: probabilities, intensities, negative values.
    """
    path = Path(path)
    try:
        raw = read_scan(path)
    except InputError as error:
        raise InputError(f"The mask cannot be read. {error}") from error
    array = raw.array
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.ndim - 1 - array.shape[::-1].index(1))
    if is_picture(path):
        _check_lossless(path)
        return (np.abs(array) > ROUNDING).astype(np.int64), raw.affine
    _check_labels(array, path)
    return array.round().astype(np.int64), raw.affine


def _check_labels(array: NDArray[np.float32], path: Path) -> None:
    finite = array.size > 0 and bool(np.isfinite(array).all())
    whole = finite and bool((np.abs(array - array.round()) <= ROUNDING).all())
    if array.ndim == 3 and whole and array.min() > -ROUNDING:
        count = _count_labels(array)
        if count <= FEW_LABELS or (count <= MAX_LABELS and is_in_patches(array.round())):
            return
    shape = " x ".join(map(str, array.shape))
    raise InputError(
        f"'{path}' ({shape}) is no reference mask, a 3D label map of whole numbers from 0. Check "
        "that it is no probability map and no scan."
    )


def _count_labels(array: NDArray[np.float32]) -> int:
    marked = array[array > ROUNDING]
    return int(np.unique(marked.round()).size) if marked.size else 0


def _check_lossless(path: Path) -> None:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError(
            f"'{path}' is a JPEG, whose noise would count as marked. Save the mask as PNG."
        )
