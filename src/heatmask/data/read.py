"""Read one scan from disk: NIfTI, NRRD, DICOM or a picture, all into the same form.

NIfTI goes through nibabel, NRRD and DICOM through ITK (MONAI's `ITKReader`); MONAI's
`PydicomReader` is not used because it sorts slices by InstanceNumber. Of the files'
headers only what is needed later is kept, so that nothing in them can disturb inversion,
collation or saving.
"""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKReader
from monai.data.utils import correct_nifti_header_if_necessary
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from heatmask.data.dicom import is_dicom, read_only_series, read_only_slice, sort_slices
from heatmask.data.flat import NOMINAL_WIDTH_MM, is_picture, read_picture
from heatmask.data.names import split_scan_name
from heatmask.data.sequence import Header
from heatmask.errors import InputError

_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,  # whatever ITK raises
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


@dataclass(frozen=True)
class RawScan:
    """A scan as it lies on disk.

    Attributes
    ----------
    array : float32, (X, Y, Z) or (X, Y, Z, C), rescaled as the file says
    affine : (4, 4) float64, voxel indices to RAS mm
    header : DICOM header of one slice; None for other formats
    warnings : sentences for people, about the file
    """

    array: np.ndarray
    affine: np.ndarray
    header: Header | None = None
    warnings: list[str] = field(default_factory=list)


def read_scan(path: str | Path) -> RawScan:
    """Read a NIfTI, an NRRD, the only DICOM series of a folder, a DICOM slice, or a picture.

    The last two have one slice.

    The voxels are not looked at here, only brought into memory.

    Raises
    ------
    InputError
        If the path is missing, of another kind, damaged, or has an unusable affine.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"The scan must exist; got '{path}'. Check the path.")
    try:
        return _choose_reader(path)(path)
    except _READ_ERRORS as error:
        raise InputError(_explain_damage(path, error)) from error


def check_affine(affine: np.ndarray, path: str | Path) -> None:
    """Refuse an affine (4, 4) that does not map voxels one to one into space.

    Raises
    ------
    InputError
        If it holds NaN or infinity, or its axes have no length or lie in one plane.
    """
    fix = "Repair the header, for example by exporting the scan again."
    if not np.isfinite(affine).all():
        raise InputError(f"The affine must be finite; '{path}' has NaN or infinity in it. {fix}")
    lengths_mm = np.linalg.norm(affine[:3, :3], axis=0)
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    # Relative to a box with these edges, so that very small voxels are no problem.
    if volume_mm3 <= 1e-6 * np.prod(lengths_mm):
        edges = " x ".join(f"{length:g}" for length in lengths_mm)
        raise InputError(
            f"The affine must span a volume; that of '{path}' is singular (voxel edges "
            f"{edges} mm). {fix}"
        )


def _choose_reader(path: Path) -> Callable[[Path], RawScan]:
    suffix = split_scan_name(path.name)[1].lower()
    if path.is_dir():
        return _read_dicom
    if suffix in (".nii", ".nii.gz"):
        return _read_nifti
    if is_picture(path):
        return _read_flat
    if suffix:
        return _read_nrrd
    if is_dicom(path):
        return _read_dicom
    raise InputError(
        "The scan must be a NIfTI (.nii, .nii.gz), an NRRD (.nrrd, .nhdr), a DICOM series folder, "
        f"a DICOM slice or a picture; got '{path}'. Convert it, or give the original."
    )


def _read_nifti(path: Path) -> RawScan:
    image = _open_nifti(path)
    check_affine(image.affine, path)
    if image.get_data_dtype().kind not in "uif":
        raise ValueError(f"its voxels are of type {image.get_data_dtype()}, not intensities")
    image = correct_nifti_header_if_necessary(image)  # as MONAI's own reader does
    # 8- and 16-bit voxels change axis order while small; scaled ones make no detour
    # through float64.
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    voxels = np.asarray(image.dataobj, np.float32 if scaled else None)
    array = np.ascontiguousarray(voxels).astype(np.float32, copy=False)
    warnings = []
    if not (image.header["sform_code"] or image.header["qform_code"]):
        warnings.append(_warn_no_orientation(path))
    return RawScan(array, np.array(image.affine, np.float64), None, warnings)


def _open_nifti(path: Path) -> nib.Nifti1Image:
    if path.suffix.lower() != ".gz":
        # Without mmap: the voxels are copied anyway, and the file may be replaced later.
        return nib.load(path, mmap=False)
    # In one piece, because nibabel stops at the last voxel and so never meets the checksum:
    # it reads a damaged file without a word.
    content = gzip.decompress(path.read_bytes())
    header_size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    if 540 in header_size:
        return nib.Nifti2Image.from_bytes(content)
    if 348 in header_size:
        return nib.Nifti1Image.from_bytes(content)
    raise ValueError("it does not begin like a NIfTI")


def _read_nrrd(path: Path) -> RawScan:
    import itk

    image = itk.imread(str(path))
    warnings = [] if "NRRD_space" in dict(image) else [_warn_no_orientation(path)]
    return RawScan(*_read_itk_image(image, path), None, warnings)


def _read_dicom(path: Path) -> RawScan:
    import itk

    series = read_only_series(path) if path.is_dir() else read_only_slice(path)
    files = [str(path) for path in sort_slices(series)]
    # Float from the start: ITK would give all slices the type that the first one needs,
    # and cut off the fractions of slices with another RescaleSlope.
    image = itk.imread(files, itk.F)
    array, affine = _read_itk_image(image, path)
    thickness_mm = float(series.header.get("SliceThickness") or 0)
    if len(files) == 1 and thickness_mm > 0:  # ITK takes the distance to slices that are not there
        affine[:3, 2] *= thickness_mm / np.linalg.norm(affine[:3, 2])
    return RawScan(array, affine, series.header)


def _read_flat(path: Path) -> RawScan:
    warning = (
        f"'{path.name}' is a picture without geometry; it counts as {NOMINAL_WIDTH_MM:g} mm wide."
    )
    return RawScan(*read_picture(path), None, [warning])


def _read_itk_image(image: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    view, meta = ITKReader().get_data(image)
    affine = np.eye(4)
    rank = min(meta["affine"].shape[0] - 1, 3)
    affine[:rank, :rank] = meta["affine"][:rank, :rank]
    affine[:rank, 3] = meta["affine"][:rank, -1]
    check_affine(affine, path)
    # A copy: contiguous, and independent of the ITK image.
    return np.array(view, np.float32, order="C"), affine


def _warn_no_orientation(path: Path) -> str:
    return (
        f"'{path.name}' does not say how it lies in space; left and right, and the slice "
        "axis, are a guess."
    )


def _explain_damage(path: Path, error: BaseException) -> str:
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return (
            f"A file named .gz must be compressed with gzip; '{path}' is not ({error}). "
            "Give the original, or rename it if it is a plain .nii."
        )
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return (
            f"The scan must be complete; '{path}' is cut off or damaged ({error}). "
            "Copy or download it again."
        )
    reason = " ".join(str(error).split("ITK ERROR:")[-1].split())[:200] or type(error).__name__
    return f"The scan must be a readable image; '{path}' is not ({reason}). Export it again."
