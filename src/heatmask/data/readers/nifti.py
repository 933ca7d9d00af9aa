"""NIfTI files: their voxels, and where their two forms place them.

A NIfTI can place its voxels twice: by the qform (a rotation; the scanner's) and by the sform (any
affine; often of a registration). Programs differ in which they take. Heatmask computes with the
sform, as nibabel, MONAI, FSL and SPM do, but with the qform where the sform is absent, singular
or has voxels of another size than the header says, as MONAI does. What is written for a scan
carries both forms, so that it lies on the scan in every viewer.
"""

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from heatmask.data.readers.raw import RawScan, check_affine, is_regular, warn_no_orientation
from heatmask.errors import InputError

MM_PER_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}
"""By the lowest three bits of ``xyzt_units``: metre, mm, micrometre; others count as mm."""
MAX_EDGE_DEVIATION = 0.01
"""An sform whose voxel edges differ from the header's by more than this share is distrusted."""
MAX_SHIFT_MM = 0.5
"""Forms that place a corner farther apart than this differ."""
_GEOMETRY = (
    "pixdim qform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z "
    "sform_code srow_x srow_y srow_z xyzt_units"
).split()


def read_nifti(path: Path) -> RawScan:
    """Read a NIfTI, plain or compressed.

    Raises
    ------
    InputError
        It is cut off, does not hold intensities, or neither form is an affine.
    """
    image = _open(path)
    header = image.header
    if image.get_data_dtype().kind not in "uif":
        raise InputError(
            f"The voxels of '{path}' are {image.get_data_dtype()}, not intensities. Give the "
            "original scan."
        )
    affine, warnings = _choose_affine(header, path)
    # 8- and 16-bit voxels change axis order while small; scaled ones make no detour
    # through float64.
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    voxels = np.asarray(image.dataobj, np.float32 if scaled else None)
    array = np.ascontiguousarray(voxels).astype(np.float32, copy=False)
    return RawScan(array, affine, None, warnings, header.binaryblock)


def make_nifti(array: np.ndarray, affine: np.ndarray, like: bytes | None) -> nib.Nifti1Image:
    """Make a NIfTI of voxels (X, Y, Z) or (X, Y, Z, C).

    Parameters
    ----------
    array, affine
        Voxels, and where they lie.
    like
        `RawScan.nifti_header` of the scan on the same grid: its forms, their codes and its unit
        are taken in place of the affine.
    """
    if like is None:
        return nib.Nifti1Image(array, affine)
    source, header = parse_header(like), nib.Nifti1Header()
    for name in _GEOMETRY:
        header[name] = source[name]
    header["pixdim"][4:] = 1
    header.set_data_dtype(array.dtype)
    return nib.Nifti1Image(array, None, header)


def read_itk_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return how viewers built on ITK see a NIfTI or NRRD, from its header.

    Returns
    -------
    tuple of int
        Shape (X, Y, Z).
    numpy.ndarray
        Affine (4, 4) to RAS mm.

    Raises
    ------
    InputError
        ITK cannot read it.
    """
    import itk

    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path))
    # By its name, not by what it looks like: a NIfTI may hold the mark of a DICOM as well
    is_nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    reader.SetImageIO((itk.NrrdImageIO if is_nrrd else itk.NiftiImageIO).New())
    try:
        reader.UpdateOutputInformation()
    except RuntimeError as error:
        # Without the reader's place in the code and in memory
        reason = re.split(r"ITK ERROR:|0x[0-9a-f]+\):", " ".join(str(error).split()))[-1].strip()
        raise InputError(f"'{path.name}' cannot be read by the viewer ({reason}).") from error
    image, lps = reader.GetOutput(), np.eye(4)
    lps[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    shape = tuple(image.GetLargestPossibleRegion().GetSize())
    if not is_regular(lps):
        raise InputError(f"'{path.name}' does not say where its voxels lie. Export it again.")
    return shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def parse_header(content: bytes) -> Any:
    """Return the NIfTI-1 or NIfTI-2 header at the beginning of a file.

    Raises
    ------
    ValueError
        It does not begin like one.
    """
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    for kind in (nib.Nifti2Header, nib.Nifti1Header):
        if kind.sizeof_hdr in sizes:
            return kind(content[: kind.sizeof_hdr], check=False)
    raise ValueError("it does not begin like a NIfTI")


def _open(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        # In one piece, because nibabel stops at the last voxel and so never meets the checksum:
        # it reads a damaged file without a word.
        content = _decompress(content, path)
    header = parse_header(content)
    start = int(header["vox_offset"])
    if start < len(header.binaryblock):
        raise InputError(
            f"By the header of '{path}' its voxels begin at byte {start}, within the header. "
            "Export it again."
        )
    needed = start + header.get_data_dtype().itemsize * int(
        np.prod(header.get_data_shape(), dtype=object)
    )
    if len(content) < needed:
        raise InputError(
            f"'{path}' is cut off: it has {len(content):,} of {needed:,} bytes. Copy it again."
        )
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind.from_bytes(content)
    # nibabel has put 1 for a voxel size of 0.
    unsized = (header["pixdim"] == 0) & (header["dim"] > 1)
    image.header["pixdim"][1:4][unsized[1:4]] = 0
    return image


def _decompress(content: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if content[:2] == b"\x1f\x8b":
            raise InputError(f"'{path}' is cut off or damaged. Copy it again.") from error
        raise InputError(
            f"'{path}' is not compressed with gzip. Rename it if it is a plain .nii."
        ) from error


def _choose_affine(header: Any, path: Path) -> tuple[np.ndarray, list[str]]:
    """The affine (4, 4) in mm to compute with, and what is to be said about it."""
    to_mm = np.diag([MM_PER_UNIT.get(int(header["xyzt_units"]) % 8, 1.0)] * 3 + [1.0])
    forms = {name: to_mm @ form for name, form in _read_forms(header).items()}
    if not forms:
        forms = {"base": to_mm @ header.get_base_affine()}
    usable = {name: form for name, form in forms.items() if is_regular(form)}
    if len(usable) == 2:
        return _choose_form(header, path, **usable)
    name, affine = next(iter((usable or forms).items()))
    check_affine(affine, path)
    warnings = [warn_no_orientation(path)] if name == "base" else []
    warnings += [
        f"The {broken} of '{path.name}' cannot be used; the {name} is taken."
        for broken in forms.keys() - usable.keys()
    ]
    return affine, warnings


def _read_forms(header: Any) -> dict[str, np.ndarray]:
    """Those of "sform" and "qform" that the header holds, in the unit of the file."""
    forms = {}
    if header["sform_code"]:
        forms["sform"] = header.get_sform()
    if header["qform_code"]:
        try:
            forms["qform"] = header.get_qform()
        except (ValueError, HeaderDataError):  # no rotation has this quaternion
            forms["qform"] = np.full((4, 4), np.nan)
    return forms


def _choose_form(
    header: Any, path: Path, sform: np.ndarray, qform: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    shift_mm = _measure_shift(sform, qform, header.get_data_shape()[:3])
    if shift_mm <= MAX_SHIFT_MM:
        return sform, []
    edges = np.linalg.norm([sform[:3, :3], qform[:3, :3]], axis=1)
    trusted = bool(np.abs(edges[0] / edges[1] - 1).max() <= MAX_EDGE_DEVIATION)
    return (sform if trusted else qform), [_describe_forms(path, header, shift_mm, trusted)]


def _measure_shift(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two affines place the same corner of a volume, at most, in mm."""
    corners = np.indices((2,) * len(shape)).reshape(len(shape), -1) * (np.array(shape)[:, None] - 1)
    shifts = (first - second)[:3, : len(shape)] @ corners + (first - second)[:3, 3:]
    return float(np.linalg.norm(shifts, axis=0).max())


def _describe_forms(path: Path, header: Any, shift_mm: float, trusted: bool) -> str:
    taken = "sform" if trusted else "qform (the voxels of the sform have another size)"
    # ITK takes the sform only if its code is that of the scanner (1): tried with ITK 5.4.
    itk_newer = trusted and int(header["sform_code"]) == 1
    itk = "sform, older versions the qform" if itk_newer else "qform"
    return (
        f"'{path.name}' says twice how it lies in space, and its sform and qform differ by up to "
        f"{shift_mm:.3g} mm. Heatmask takes the {taken}, viewers built on ITK (3D Slicer, "
        f"ITK-SNAP) the {itk}. Mask and heatmap carry both, as the scan does."
    )
