"""A synthetic, multi-slice, FLAIR-like head with a lesion whose outline is known.

This is a drawing, neither a patient nor a simulation of physics. It exists so that the demo, the
tests and the benchmarks run without anybody's data. The package holds one head alone, the demo's:
``python benchmarks/draw_demo.py`` draws it anew. A score on it says that the road works, and
nothing about patients.

All that is random is drawn from the seed alone: the same seed on a coarser grid is the same head.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from heatmask.files import write_atomically

from .anatomy import draw_head

DEMO_SEED = 12
"""The demo's head, chosen by its looks. Never trained on."""
STUDY_SEEDS = range(1000, 2000)
"""Seeds to study and tune on; they leave out the demo's."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan and the lesion that was drawn into it.

    Attributes
    ----------
    image : float32, (X, Y, Z)
        Intensities, 0 to 255; slices without any head are exactly 0. The index grows to the
        left, to the back and up, as in most axial scans.
    lesion : uint8, (X, Y, Z)
        1 where a voxel is at least half lesion, 0 elsewhere.
    affine : float64, (4, 4)
        Voxel index to RAS+ millimetres.
    seed : int
        What it was made from.
    """

    image: NDArray[np.float32]
    lesion: NDArray[np.uint8]
    affine: NDArray[np.float64]
    seed: int

    @property
    def slice_labels(self) -> NDArray[np.int64]:
        """One 0 or 1 per slice of the third axis, (Z,): 1 where it holds a lesion voxel."""
        return self.lesion.any(axis=(0, 1)).astype(np.int64)


def make_phantom(
    seed: int,
    shape: Sequence[int] = (224, 256, 30),
    spacing_mm: Sequence[float] = (1.0, 1.0, 5.0),
    lesion: bool = True,
) -> Phantom:
    """Draw the head of one seed on a grid around its centre.

    Parameters
    ----------
    seed : int
        Not negative. Size, tilt, shape, contrast, noise and the lesion follow from it.
    shape : three ints
        Voxels to the left, to the back and up.
    spacing_mm : three floats
        Millimetres between voxel centres. A head needs about 180 x 225 x 150 mm.
    lesion : bool
        False leaves the lesion out and everything else as it is.

    Returns
    -------
    Phantom
        Without a lesion, or where the grid misses it, `lesion` is all 0.
    """
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    image, mask = draw_head(seed, shape, affine, lesion)
    return Phantom(image, mask, affine, seed)


def draw_demo() -> Phantom:
    """Draw the head of `heatmask demo`, in whole numbers as scanners give them."""
    phantom = make_phantom(DEMO_SEED)
    return replace(phantom, image=phantom.image.round().astype(np.uint8))


def write_phantom(
    phantom: Phantom, image_path: str | os.PathLike[str], lesion_path: str | os.PathLike[str]
) -> None:
    """Write image and lesion of a phantom as two NIfTI files, each whole or not at all.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    for path, data in ((image_path, phantom.image), (lesion_path, phantom.lesion)):
        nifti = nib.Nifti1Image(data, phantom.affine)
        nifti.header.set_xyzt_units("mm")
        with write_atomically(path) as draft:
            nib.save(nifti, draft)
