"""2D pictures: read as a volume of one slice.

Through Pillow: scikit-image's reader tries a dozen libraries, ITK among them, before it gives up
a damaged file.
"""

import os
from pathlib import Path

import nibabel as nib
import numpy as np

from heatmask.errors import InputError

NOMINAL_WIDTH_MM = 256.0
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def is_picture(path: str | Path) -> bool:
    """Whether a file is a 2D picture without geometry, by its name."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def read_picture(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a picture as it is looked at: its left is the patient's right, its top anterior.

    Returns
    -------
    numpy.ndarray
        (columns, rows, 1), float32. Colours become their brightness on the file's own scale;
        what is transparent is dropped.
    numpy.ndarray
        Affine (4, 4) to RAS. The file has no size: the picture counts as `NOMINAL_WIDTH_MM` along
        its longer side, about the field of view of a head, and as 1 mm thick.

    Raises
    ------
    InputError
        The file is damaged, or holds several pictures.
    """
    from PIL import Image  # Not needed to know a picture by its name

    try:
        with Image.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            pixels = np.asarray(
                picture.convert("RGB") if picture.mode in ("P", "CMYK") else picture
            )
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"A picture must be a readable {', '.join(PICTURE_SUFFIXES)}; '{path}' is not "
            f"({error}). Export it again."
        ) from error
    if count > 1:
        raise InputError(f"A picture must be one image; '{path}' has {count}. Save one of them.")
    array = np.ascontiguousarray(_to_grey(pixels).T[:, :, None], np.float32)
    pixel_mm = NOMINAL_WIDTH_MM / max(array.shape)
    return array, np.diag([-pixel_mm, -pixel_mm, 1.0, 1.0])


def _to_grey(pixels: np.ndarray) -> np.ndarray:
    """Brightness (rows, columns) of grey, grey and alpha, RGB or RGBA pixels."""
    from skimage.color import rgb2gray

    if pixels.ndim == 3 and pixels.shape[-1] > 2:
        return rgb2gray(pixels[..., :3].astype(np.float32))
    return pixels[..., 0] if pixels.ndim == 3 else pixels


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
    partial = Path(target).with_name(f".{Path(target).name}.partial.nii.gz")
    nib.save(image, partial)
    os.replace(partial, target)
