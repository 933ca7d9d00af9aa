"""NRRD files, with the header in the same file or in one of its own.

Through pynrrd and not ITK, which refuses vectors of integers and files that do not say what kind
of axis each is.
"""

from pathlib import Path
from typing import Any

import numpy as np

from heatmask.data.readers.raw import RawScan, check_affine, warn_no_orientation
from heatmask.errors import InputError

_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_SPATIAL_KINDS = ("domain", "space")
_CHANNEL_KINDS = ("list", "vector", "4-vector", "none", "???")


def read_nrrd(path: Path) -> RawScan:
    """Read an NRRD; the axis of a list becomes the last.

    Raises
    ------
    InputError
        It does not hold intensities, is cut off, its voxels are missing, or its affine is none.
    """
    import nrrd

    try:
        array, header = nrrd.read(str(path))
    except FileNotFoundError as error:
        raise InputError(
            f"The voxels of '{path}' should be in '{Path(error.filename).name}', which is not "
            "there. Copy both files."
        ) from error
    except nrrd.NRRDError as error:
        raise InputError(f"'{path}' is cut off, or no NRRD. Export it again.") from error
    if array.dtype.kind not in "uif":
        raise InputError(f"The voxels of '{path}' are no intensities. Give the original scan.")
    spatial = _find_spatial_axes(header, array.ndim)
    affine = _read_affine(header, spatial)
    check_affine(affine, path)
    channels = [axis for axis in range(array.ndim) if axis not in spatial]
    _check_channels(header, channels, path)
    array = np.ascontiguousarray(array.transpose(*spatial, *channels), np.float32)
    known = str(header.get("space", "")).lower() in _SPACES
    warnings = [] if known else [warn_no_orientation(path)]
    if "space directions" not in header and "spacings" not in header:
        warnings.append(f"'{path.name}' does not say how large its voxels are; they count as 1 mm.")
    return RawScan(array, affine, None, warnings)


def _find_spatial_axes(header: dict[str, Any], rank: int) -> list[int]:
    """Axes along which the voxels lie: those with a direction, or of a kind that says so."""
    if "space directions" in header:
        directions = np.asarray(header["space directions"], float)
        return [axis for axis in range(rank) if np.isfinite(directions[axis]).all()]
    kinds = header.get("kinds", [])
    spatial = [axis for axis, kind in enumerate(kinds) if str(kind).lower() in _SPATIAL_KINDS]
    return spatial or list(range(rank))


def _check_channels(header: dict[str, Any], channels: list[int], path: Path) -> None:
    kinds = [str(header["kinds"][axis]).lower() for axis in channels if "kinds" in header]
    if not {*kinds} <= {*_CHANNEL_KINDS, *_SPATIAL_KINDS}:
        raise InputError(
            f"The channels of '{path}' are of the kind '{', '.join(kinds)}', and sequences are "
            "needed. Give the original scan."
        )


def _read_affine(header: dict[str, Any], spatial: list[int]) -> np.ndarray:
    """Affine (4, 4) to RAS mm; a file without a space counts as LPS, as in ITK."""
    affine, axes = np.eye(4), spatial[:3]
    if "space directions" in header:
        directions = np.asarray(header["space directions"], float)[axes]
    else:
        spacings = np.asarray(header.get("spacings", np.ones(max(axes, default=0) + 1)), float)
        directions = np.diag(np.nan_to_num(spacings[axes], nan=1.0))
    origin = np.nan_to_num(np.asarray(header.get("space origin", np.zeros(3)), float))
    affine[: directions.shape[1], : len(axes)] = directions.T
    affine[: len(origin), 3] = origin
    signs = _SPACES.get(str(header.get("space", "")).lower(), _SPACES["lps"])
    return np.diag([*signs, 1]) @ affine
