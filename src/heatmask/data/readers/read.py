"""Read one scan from disk: NIfTI, NRRD, DICOM or a picture, all into the same form.

Of the files' headers only what is needed later is kept, so that nothing in them can disturb
inversion, collation or saving. What the libraries behind the readers raise becomes an `InputError`
here, once.
"""

from collections.abc import Callable
from pathlib import Path

from heatmask.data.paths import SCAN_KINDS, check_scan_path, is_picture, split_scan_name
from heatmask.data.readers.dicom import read_dicom
from heatmask.data.readers.dicom_files import is_dicom
from heatmask.data.readers.nifti import read_nifti
from heatmask.data.readers.nrrd import read_nrrd
from heatmask.data.readers.pictures import read_flat
from heatmask.data.readers.raw import RawScan
from heatmask.errors import HeatmaskError, InputError


def read_scan(path: str | Path) -> RawScan:
    """Read a NIfTI, an NRRD, the only DICOM series of a folder, a DICOM slice, or a picture.

    The last two have one slice.

    The voxels are not looked at here, only brought into memory.

    Raises
    ------
    InputError
        If the path is missing, a mere pointer to its content, of another kind, damaged, or has an
        unusable affine.
    """
    path = check_scan_path(path)
    reader = _choose_reader(path)
    try:
        return reader(path)
    except (HeatmaskError, MemoryError):
        raise
    except Exception as error:  # ITK, nibabel, pydicom and pynrrd raise whatever their parts do
        raise InputError(
            f"'{path}' is damaged, or of another kind than its name says. Export it again."
        ) from error


def _choose_reader(path: Path) -> Callable[[Path], RawScan]:
    suffix = split_scan_name(path.name)[1].lower()
    if path.is_dir():
        return read_dicom
    if suffix in (".nii", ".nii.gz"):
        return read_nifti
    if is_picture(path):
        return read_flat
    if suffix:
        return read_nrrd
    if is_dicom(path):
        return read_dicom
    raise InputError(f"'{path}' is no scan: not {SCAN_KINDS}. Convert it, or give the original.")
