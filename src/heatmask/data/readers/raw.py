"""A scan as it lies on disk: what every reader of a file format returns."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heatmask.data.recognition.sequence import Header
from heatmask.errors import InputError


@dataclass(frozen=True)
class RawScan:
    """A scan as it lies on disk.

    Attributes
    ----------
    array : float32, (X, Y, Z) or (X, Y, Z, C), rescaled as the file says
    affine : (4, 4) float64, voxel indices to RAS mm
    header : DICOM header of one slice; None for other formats
    warnings : sentences for people, about the file
    nifti_header : the header of a NIfTI as it is in the file; None for other formats
    """

    array: np.ndarray
    affine: np.ndarray
    header: Header | None = None
    warnings: list[str] = field(default_factory=list)
    nifti_header: bytes | None = None


def is_regular(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) is finite and its axes span a volume."""
    if not np.isfinite(affine).all():
        return False
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # Relative to a box with these edges, so that very small voxels are no problem.
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(edges))


def check_affine(affine: np.ndarray, path: str | Path) -> None:
    """Refuse an affine (4, 4) that does not map voxels one to one into space.

    Raises
    ------
    InputError
        If it holds NaN or infinity, or its axes have no length or lie in one plane.
    """
    if is_regular(affine):
        return
    problem = "holds NaN or infinity"
    if np.isfinite(affine).all():
        edges = " x ".join(f"{edge:g}" for edge in np.linalg.norm(affine[:3, :3], axis=0))
        problem = f"is singular, with voxel edges of {edges} mm"
    raise InputError(f"The affine of '{path}' {problem}. Export the scan again.")


def warn_no_orientation(path: Path) -> str:
    """Say that a file holds no orientation."""
    return (
        f"'{path.name}' does not say how it lies in space; left and right, and the slice "
        "axis, are a guess."
    )
