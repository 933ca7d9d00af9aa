"""Draw the phantom's head: skull, face, brain, lesion, and what a scanner makes of them.

Every part is a soft-edged shape (`.shapes`), drawn from the outside in.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from .shapes import (
    Array,
    Space,
    cover_voxels,
    make_noise,
    measure_ellipsoid,
    measure_pair,
    paint,
)

# Intensities relative to white matter, as read off FLAIR scans.
CSF, BONE, MARROW, MUSCLE = 0.14, 0.10, 0.55, 0.65


def draw_head(
    seed: int, shape: Sequence[int], affine: NDArray[np.float64], lesion: bool
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw the head of one seed on a grid with a diagonal affine.

    Returns
    -------
    numpy.ndarray
        Image (X, Y, Z), 0 to 255.
    numpy.ndarray
        Lesion (X, Y, Z), 0 or 1; all 0 without `lesion`.
    """
    # One stream each, so that leaving the lesion out changes nothing else.
    pose, anatomy, blob, scanner = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(4)
    )
    space = _place_head(pose, shape, affine)
    skin = _outline_skin(space)
    brain = _outline_brain(space, skin, anatomy)
    ventricles = _outline_ventricles(space, anatomy)
    tissue = _draw_skull(space, skin, anatomy)
    _draw_face(tissue, space, skin, anatomy)
    _draw_brain(tissue, space, brain, ventricles, anatomy)
    mask = np.zeros(skin.shape, np.uint8)
    if lesion:
        mask = _draw_lesion(tissue, space, brain, ventricles, blob)
    return _scan(tissue, space, skin, scanner), mask


def _place_head(
    rng: np.random.Generator, shape: Sequence[int], affine: NDArray[np.float64]
) -> Space:
    """Turn, shift, stretch and slightly bend the head inside the grid."""
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
    dx, dy, dz = (float(step) for step in np.abs(affine.diagonal()[:3]))
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
    base = -(space.z + 20 + 0.12 * space.y)
    cerebrum = np.maximum(skin + rng.uniform(12, 14.5), base)
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
