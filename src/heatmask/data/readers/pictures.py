"""2D pictures: read as a volume of one slice.

Cameras and scanners of photographs store a picture as it comes and say in a tag how it is to be
turned (EXIF and TIFF, tag 274). The pixels stay as stored here, and the affine turns them: what
a network sees, and every viewer of volumes shows, is upright, and a mask fits the stored pixels.

Through Pillow: scikit-image's reader tries a dozen libraries, ITK among them, before it gives up
a damaged file.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from heatmask.data.readers.raw import RawScan
from heatmask.errors import InputError
from heatmask.files import write_atomically

NOMINAL_WIDTH_MM = 256.0

_ORIENTATION_TAG = 274
_DIRECTIONS = dict(enumerate("LPS RPS RAS LAS PLS PRS ARS ALS".split(), start=1))
"""By the tag, what stored columns and rows run to, as nibabel says it, when they lie as shown."""


def read_flat(path: Path) -> RawScan:
    """Read a picture as a scan, with what there is to say about it.

    Raises
    ------
    InputError
        As `read_picture`.
    """
    array, affine = read_picture(path)
    warnings = [
        f"'{path.name}' is a picture without geometry; it counts as {NOMINAL_WIDTH_MM:g} mm wide."
    ]
    if "".join(nib.aff2axcodes(affine)) != "LPS":
        warnings.append(
            f"The EXIF tag of '{path.name}' turns or mirrors it when it is shown, and so does "
            "Heatmask before it looks at it; the mask lies on the pixels as they are stored."
        )
    return RawScan(array, affine, None, warnings)


def read_picture(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a picture; as shown, its left is the patient's right, its top anterior.

    Returns
    -------
    numpy.ndarray
        (columns, rows, 1), float32, as stored. Colours become their brightness on the file's own
        scale; what is wholly transparent is black.
    numpy.ndarray
        Affine (4, 4) to RAS, after the turn that the file's orientation tag asks for. The file has
        no size: the picture counts as `NOMINAL_WIDTH_MM` along its longer side, about the field of
        view of a head, and as 1 mm thick.

    Raises
    ------
    InputError
        The file is damaged, or holds several pictures.
    """
    pixels, directions, is_turned = _open_picture(path)
    to_stored = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(directions))
    array = to_grey(pixels).T[:, :, None]
    array = apply_orientation(array, to_stored) if is_turned else array
    pixel_mm = NOMINAL_WIDTH_MM / max(array.shape)
    to_ras = np.diag([-pixel_mm, -pixel_mm, 1.0, 1.0])
    shown_shape = np.take(array.shape, to_stored[:, 0].astype(int))
    affine = to_ras @ inv_ornt_aff(to_stored, shown_shape)
    return np.ascontiguousarray(array, np.float32), affine


def _open_picture(path: str | Path) -> tuple[np.ndarray, str, bool]:
    """Pixels (rows, columns, ...), `_DIRECTIONS`, and whether Pillow has turned the pixels."""
    from PIL import Image  # Not needed to know a picture by its name

    try:
        # By the open file: by its name Pillow maps a turned TIFF into memory with rows and columns
        # swapped.
        with Path(path).open("rb") as file, Image.open(file) as picture:
            count = getattr(picture, "n_frames", 1)
            orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
            has_key = picture.mode == "P" and "transparency" in picture.info
            mode = "RGBA" if has_key else "RGB"
            pixels = np.asarray(picture.convert(mode) if picture.mode in ("P", "CMYK") else picture)
            is_turned = picture.format == "TIFF"  # by Pillow, while it was read
    except Exception as error:  # Pillow raises whatever its plugins do
        raise InputError(f"The picture '{path}' cannot be read. Export it again.") from error
    if count > 1:
        raise InputError(f"'{path}' holds {count} pictures. Save one of them.")
    return pixels, _DIRECTIONS.get(orientation, "LPS"), is_turned


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Brightness (rows, columns) of grey, grey and alpha, RGB or RGBA pixels."""
    from skimage.color import rgb2gray

    if pixels.ndim == 2:
        return pixels
    has_colours = pixels.shape[-1] > 2
    grey = rgb2gray(pixels[..., :3].astype(np.float32)) if has_colours else pixels[..., 0]
    is_hidden = pixels[..., -1] == 0 if pixels.shape[-1] in (2, 4) else False
    return np.where(is_hidden, 0, grey)


def convert_picture(path: str | Path, target: str | Path) -> None:
    """Write a picture as a NIfTI (.nii.gz) of one slice, for viewers that want a volume.

    Raises
    ------
    InputError
        As `read_picture`.
    """
    array, affine = read_picture(path)
    whole = np.array_equal(array, array.astype(np.uint8))
    image = nib.Nifti1Image(array.astype(np.uint8) if whole else array, affine)
    image.set_sform(affine, 1)
    with write_atomically(target) as draft:
        nib.save(image, draft)
