"""A synthetic, multi-slice, FLAIR-like head with a lesion whose outline is known.

This is a drawing, neither a patient nor a simulation of physics. It exists so that the demo
and the tests run without anybody's data, and so that a training can be shown what the demo
looks like. A score on it says that the road works, and nothing about patients.

Every part is a soft-edged shape (`heatmask.data.soft_shapes`), drawn from the outside in. All
that is random is drawn from the seed alone: the same seed on a coarser grid is the same head.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from heatmask.data.soft_shapes import (
    Array,
    Space,
    cover_voxels,
    make_noise,
    measure_ellipsoid,
    measure_pair,
    paint,
)
from heatmask.errors import OptionError
from heatmask.files import write_atomically

PHANTOM_DEMO_SEED = 12
"""The demo's head, chosen by its looks. Never trained on."""
PHANTOM_STUDY_SEEDS = range(1000, 2000)
"""Seeds to study and tune on; they leave out the demo's."""

# Intensities relative to white matter, as read off FLAIR scans.
CSF, BONE, MARROW, MUSCLE = 0.14, 0.10, 0.55, 0.65


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

    Raises
    ------
    OptionError
        The seed, the shape or the spacing cannot be used.
    """
    _check_grid(seed, shape, spacing_mm)
    # One stream each, so that leaving the lesion out changes nothing else.
    pose, anatomy, blob, scanner = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(int(seed)).spawn(4)
    )
    space = _place_head(pose, shape, spacing_mm)
    skin = _outline_skin(space)
    brain = _outline_brain(space, skin, anatomy)
    ventricles = _outline_ventricles(space, anatomy)
    tissue = _draw_skull(space, skin, anatomy)
    _draw_face(tissue, space, skin, anatomy)
    _draw_brain(tissue, space, brain, ventricles, anatomy)
    mask = np.zeros(skin.shape, np.uint8)
    if lesion:
        mask = _draw_lesion(tissue, space, brain, ventricles, blob)
    image = _scan(tissue, space, skin, scanner)
    return Phantom(image, mask, _make_affine(shape, spacing_mm), int(seed))


def write_phantom(
    phantom: Phantom, image_path: str | os.PathLike[str], lesion_path: str | os.PathLike[str]
) -> None:
    """Write a phantom as two NIfTI files, float32 image and uint8 lesion, each whole or not at all.

    Raises
    ------
    OptionError
        A path does not end in ``.nii`` or ``.nii.gz``, or both are one; nothing is written.
    OutputError
        A file cannot be written.
    """
    files = {Path(image_path): phantom.image, Path(lesion_path): phantom.lesion}
    if len(files) < 2:
        raise OptionError(f"Image and lesion need two different files, got '{image_path}' twice.")
    for path in files:
        if not path.name.endswith((".nii", ".nii.gz")):
            raise OptionError(
                f"A phantom's files must end in .nii or .nii.gz, got '{path}'. Change the ending."
            )
    for path, data in files.items():
        nifti = nib.Nifti1Image(data, phantom.affine)
        nifti.header.set_xyzt_units("mm")
        with write_atomically(path) as draft:
            nib.save(nifti, draft)


def _check_grid(seed: int, shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise OptionError(f"seed must be an integer of at least 0, got {seed!r}. Try seed=1000.")
    size = np.asarray(shape)
    if size.shape != (3,) or size.dtype.kind not in "iu" or size.min() < 8 or size.max() > 1024:
        raise OptionError(
            f"shape must be three integers from 8 to 1024, got {shape!r}. Try (224, 256, 30)."
        )
    spacing = np.asarray(spacing_mm)
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf" or not (spacing > 0).all():
        raise OptionError(
            f"spacing_mm must be three lengths above 0, got {spacing_mm!r}. Try (1.0, 1.0, 5.0)."
        )
    if not np.isfinite(spacing).all():
        raise OptionError(f"spacing_mm must be finite, got {spacing_mm!r}. Try (1.0, 1.0, 5.0).")


def _make_affine(shape: Sequence[int], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Left, back and up as the index grows; the world's origin in the middle of the grid."""
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _place_head(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float]
) -> Space:
    """Turn, shift, stretch and slightly bend the head inside the grid."""
    affine = _make_affine(shape, spacing_mm)
    left, back, up = (
        (affine[i, 3] + affine[i, i] * np.arange(n)).astype(np.float32) for i, n in enumerate(shape)
    )
    axes = (left, back, up)
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    pitch, roll, yaw = np.deg2rad(rng.normal(0, (5, 1.5, 3)))
    turn = _rotate(1, 2, pitch) @ _rotate(0, 2, roll) @ _rotate(0, 1, yaw)
    shift = rng.normal(0, (2.5, 3.5, 2.5))
    stretch = rng.normal(1, 0.035) * rng.normal(1, 0.02, 3)
    rows = np.column_stack([turn, -shift]) / stretch[:, None]
    x, y, z = (
        float(a) * grid[0] + float(b) * grid[1] + (float(c) * grid[2] + float(d))
        + 1.5 * make_noise(rng, axes, 42)
        for a, b, c, d in rows
    )  # fmt: skip
    dx, dy, dz = (float(step) for step in spacing_mm)
    return Space(x, y, z, np.abs(x), axes, (dx, dy, dz))


def _rotate(first: int, second: int, angle: float) -> NDArray[np.float64]:
    turn = np.eye(3)
    turn[[first, second], [first, second]] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


def _outline_skin(space: Space) -> Array:
    """Skull vault and nose; it narrows to the front and, low down, to the face and the neck."""
    x, y, z = space.x, space.y, space.z
    low = np.maximum(0, -z - 15)
    narrow = 1 + 0.0008 * y - 0.06 * np.minimum(y / 95, 1) ** 2 + 1.0e-6 * low * y**2
    column = np.where(z > 0, z, 0.3 * z)
    vault = measure_ellipsoid((x * narrow, y - 0.3 * np.maximum(0, low - 15), column), (77, 99, 72))
    return np.minimum(vault, measure_pair(space, (0, 92, -62), (13, 24, 26)))


def _outline_brain(space: Space, skin: Array, rng: np.random.Generator) -> Array:
    """Cerebrum under the vault, temporal lobes, cerebellum and brain stem."""
    floor = -(space.z + 20 + 0.12 * space.y)
    cerebrum = np.maximum(skin + rng.uniform(12, 14.5), floor)
    temporal = measure_pair(space, (41, 20, -26), (24, 37, 21))
    cerebellum = measure_pair(space, (17, -50, -38), (42, 36, 28))
    stem = measure_pair(space, (0, -10, -50), (15, 14, 60))
    parts = np.minimum(np.minimum(temporal, cerebellum), np.minimum(stem, cerebrum))
    return np.maximum(parts, skin + 10)


def _outline_ventricles(space: Space, rng: np.random.Generator) -> Array:
    """Two curved lateral ventricles, the slit of the third, and the fourth."""
    width, height, length = rng.uniform(4, 7.5), rng.uniform(8, 11), rng.uniform(36, 43)
    right, left = rng.uniform(0.85, 1.15, 2)
    y = space.y + 4
    middle = 7 + 0.0035 * (y - 8) ** 2 + 0.0065 * np.minimum(y, 0) ** 2
    bent = (space.half - middle, y * np.abs(y) / length, space.z - 20 + 0.008 * y**2)
    lateral = measure_ellipsoid(bent, (width, length, height))
    lateral *= np.where(space.x > 0, np.float32(right), np.float32(left))
    third = measure_pair(space, (0, -4, -1), (2.2, 14, 12))
    fourth = measure_pair(space, (0, -27, -42), (7, 6, 10))
    return np.minimum(lateral, np.minimum(third, fourth))


def _draw_skull(space: Space, skin: Array, rng: np.random.Generator) -> Array:
    """Bright scalp, dark bone with marrow between its tables, dark fluid inside."""
    tissue = np.zeros_like(skin)
    scalp = rng.uniform(3.5, 6.0) + 1.2 * make_noise(rng, space.axes_mm, 30)
    fat = rng.uniform(1.7, 2.9) * (1 + 0.15 * make_noise(rng, space.axes_mm, 25))
    paint(tissue, cover_voxels(space, skin), fat)
    paint(tissue, cover_voxels(space, skin + scalp), BONE)
    paint(tissue, cover_voxels(space, skin + scalp + 2.5), MARROW * rng.uniform(0.5, 1.4))
    paint(tissue, cover_voxels(space, skin + scalp + 5.0), BONE)
    return tissue


def _draw_face(tissue: Array, space: Space, skin: Array, rng: np.random.Generator) -> None:
    """Muscle, fat, bone and air below the brain: a texture, no anatomy. Two eyes and a nose."""
    left, back, up = space.axes_mm
    coarse, fine = (
        0.8 * make_noise(rng, (np.abs(left), back, up), mm)
        + 0.5 * make_noise(rng, space.axes_mm, mm)
        for mm in (9, 4)
    )
    face = measure_pair(space, (0, 40, -74), (66, 66, 56))
    neck = measure_pair(space, (0, -62, -88), (66, 46, 34))
    fat, bone = np.clip(coarse + 0.4 * fine - 0.7, 0, 0.9), np.clip(-coarse - 0.1, 0, 0.45)
    flesh = np.maximum(MUSCLE + 0.12 * fine + 1.3 * fat - 1.4 * bone, 0.05)
    paint(tissue, cover_voxels(space, np.maximum(np.minimum(face, neck), skin + 3)), flesh)
    orbits = measure_pair(space, (27, 51, -40), (14, 26, 13))
    eyes = measure_pair(space, (30, 68, -40), (12, 12, 12))
    cavity = measure_pair(space, (0, 62, -47), (11, 26, 22))
    paint(tissue, cover_voxels(space, orbits), 1.9 + 0.3 * fine)
    paint(tissue, cover_voxels(space, eyes), 0.5)
    paint(tissue, cover_voxels(space, eyes + 1.2), 0.2)
    paint(tissue, cover_voxels(space, cavity), 0.3 + 0.2 * fine)


def _draw_brain(
    tissue: Array, space: Space, brain: Array, ventricles: Array, rng: np.random.Generator
) -> None:
    """White and grey matter, folds, fissures, deep nuclei, ventricles and their bright caps."""
    folds, width = _fold_cortex(space, brain, rng)
    closed = 3 * np.maximum(-1.5 - width, 0)  # where folds have ended, so has their grey matter
    ribbon = np.clip((4.5 - np.minimum(-brain, folds + closed)) / 2, 0, 1)
    matter = 1 + rng.uniform(0.07, 0.20) * ribbon
    matter += 0.03 * make_noise(rng, space.axes_mm, 6) + 0.04 * make_noise(rng, space.axes_mm, 18)
    _draw_nuclei(matter, space, rng)
    caps = rng.uniform(0.05, 0.4) * np.exp(-np.maximum(ventricles, 0) / 3.5)
    matter += caps * (np.abs(space.y) > 16) * (space.z > 0)
    inside = cover_voxels(space, brain)
    paint(tissue, inside, matter)
    for fluid in (folds - width, _outline_fissures(space, rng), ventricles):
        paint(tissue, inside * cover_voxels(space, fluid), CSF)


def _fold_cortex(space: Space, brain: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Distance to the nearest fold and the folds' half width there, both in mm.

    Folds are the zero set of smooth noise that is stretched along the radius, so that they
    run inwards from the surface; they get thinner with depth and end (negative width).
    """
    box = np.arange(-112, 113, 4, dtype=np.float32)
    noise = make_noise(rng, (box, box, box), 11)
    radius = np.sqrt(space.x**2 + space.y**2 + space.z**2) + 1
    pull = np.minimum((75 / radius) ** 0.75, 4)
    places = np.stack([(p * pull + 112) / 4 for p in (space.x, space.y, space.z)])
    field = map_coordinates(noise, places, order=1, mode="nearest")
    dx, dy, _ = space.spacing_mm
    slope = np.hypot(np.gradient(field, dx, axis=0), np.gradient(field, dy, axis=1))
    width = rng.uniform(1.0, 1.9) + 0.7 * make_noise(rng, space.axes_mm, 20)
    width += brain / rng.uniform(6, 10)
    # The cerebellum's folds are too fine for the grid, and the middle has none: both smooth.
    width -= np.clip((-16 - space.z - 0.3 * (space.y + 10)) / 4, 0, 3)
    width -= np.clip(-measure_pair(space, (0, -5, -12), (34, 36, 24)) / 3, 0, 3)
    return np.abs(field) / (slope + 0.01), width


def _outline_fissures(space: Space, rng: np.random.Generator) -> Array:
    """The cleft between the halves, the lateral fissures and the cisterns at the base."""
    half, y, z = space.half, space.y, space.z
    midline = np.abs(space.x + 1.2 * make_noise(rng, space.axes_mm, 22)) - rng.uniform(0.5, 1.1)
    core = measure_pair(space, (0, -4, 0), (40, 38, 30))
    cleft = np.maximum(np.maximum(midline, -core), -(z + 22))
    lateral = measure_ellipsoid((half - 50, y - 14 + 0.5 * (half - 50), z + 4), (14, 2.2, 15))
    front = measure_ellipsoid((half, y - 14 + 0.5 * half, z + 17), (17, 5, 7))
    back = measure_ellipsoid((half, y + 38 - 0.3 * half, z + 10), (20, 3.5, 8))
    return np.minimum(np.minimum(cleft, lateral), np.minimum(front, back))


def _draw_nuclei(matter: Array, space: Space, rng: np.random.Generator) -> None:
    """Thalamus a little brighter, pallidum a little darker than white matter."""
    thalamus = measure_pair(space, (12, -10, 4), (8, 14, 9))
    slanted = (space.half - 22 - 0.35 * space.y, space.y - 6, space.z - 2)
    matter += rng.uniform(0.02, 0.10) * cover_voxels(space, thalamus)
    matter -= rng.uniform(0.02, 0.16) * cover_voxels(space, measure_ellipsoid(slanted, (5, 13, 9)))


# --- lesion and scanner --------------------------------------------------------------------


def _draw_lesion(
    tissue: Array, space: Space, brain: Array, ventricles: Array, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw a bright irregular blob into one half of the cerebrum; return its mask."""
    side, size = (-1 if rng.random() < 0.5 else 1), rng.uniform(12, 30)
    x, y, z = rng.uniform(24, 44), rng.uniform(-52, 50), rng.uniform(4, 38)
    # Farther front, back or up the cerebrum is narrower: pull the centre inwards there.
    x *= side * (1 - 0.35 * (y / 60) ** 2 - 0.25 * (z / 40) ** 2)
    radii = size * rng.uniform(0.8, 1.25, 3)
    blob = measure_ellipsoid((space.x - x, space.y - y, space.z - z), radii.tolist())
    blob += 0.15 * size * make_noise(rng, space.axes_mm, 14)
    blob += 0.08 * size * make_noise(rng, space.axes_mm, 7)
    outside = blob
    # It stays within the cerebrum, on its own side and out of the ventricles.
    for bound in (brain + 1.5, 1.5 - ventricles, 2 - side * space.x, -8 - space.z - 0.15 * space.y):
        outside = np.maximum(outside, bound)
    share = cover_voxels(space, outside)
    margin = rng.uniform(0, 0.2) * np.clip(1 + blob / (0.5 * size), 0, 1)
    value = rng.uniform(1.65, 2.2) * (1 + 0.06 * make_noise(rng, space.axes_mm, 7) - margin)
    if rng.random() < 0.4:
        paint(
            value, cover_voxels(space, blob + rng.uniform(0.5, 0.7) * size), rng.uniform(0.5, 1.1)
        )
    paint(tissue, share, value)
    return (share >= 0.5).astype(np.uint8)


def _scan(
    tissue: Array, space: Space, skin: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Coil shading, gain and Rician noise; slices without any head are exactly 0."""
    signal = tissue * np.exp(0.07 * make_noise(rng, space.axes_mm, 90))
    gain, noise, offset = rng.uniform(45, 85), rng.uniform(0.02, 0.05), rng.uniform(0.5, 1.5)
    real = signal + noise * rng.standard_normal(signal.shape, np.float32)
    imaginary = noise * rng.standard_normal(signal.shape, np.float32)
    image = gain * (np.hypot(real, imaginary) - noise * offset)
    image *= (skin < 0).any(axis=(0, 1))
    return np.clip(image, 0, 255).astype(np.float32)
