"""Soft-edged shapes and smooth noise on a grid of voxels: what a phantom is drawn with.

A shape is a distance in mm to its surface (negative inside), turned into the share of a voxel
that it fills, so that thick slices get their partial volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

Array = NDArray[np.floating]
Triple = tuple[Array, Array, Array]

REACH_MM = 170.0
"""Smooth noise is defined this far from the centre, and constant beyond."""


@dataclass(frozen=True)
class Space:
    """Head coordinates of every voxel (x right, y front, z up; mm), and the grid's own axes."""

    x: Array
    y: Array
    z: Array
    half: Array  # |x|: most parts come in pairs
    axes_mm: Triple
    spacing_mm: tuple[float, float, float]


def make_noise(rng: np.random.Generator, axes_mm: Triple, scale_mm: float) -> Array:
    """Smooth noise of mean 0 and deviation 1: random weights of separable cubic B-splines.

    How many random numbers are drawn depends on `scale_mm` alone: a grid only samples them.
    """
    knots = np.arange(-REACH_MM - 4 * scale_mm, REACH_MM + 5 * scale_mm, scale_mm)
    # 0.479 is the sum of a cubic B-spline's squared weights: what it leaves of the variance.
    field = rng.standard_normal((len(knots) - 4,) * 3).astype(np.float32) * 0.479**-1.5
    for axis in axes_mm:
        inside = np.clip(axis.astype(float), -REACH_MM, REACH_MM)
        weights = BSpline.design_matrix(inside, knots, 3).toarray().astype(np.float32)
        # Each product consumes the first axis and appends the grid's: after three, in order.
        field = np.tensordot(field, weights, axes=(0, 1))
    return field


def measure_ellipsoid(centred: Triple, radii_mm: Sequence[float]) -> Array:
    """Distance in mm to an ellipsoid around 0, exact to first order at its surface."""
    squares = [(p * (1 / r)) ** 2 for p, r in zip(centred, radii_mm, strict=True)]
    slopes = [s * (1 / r**2) for s, r in zip(squares, radii_mm, strict=True)]
    value = np.sqrt(squares[0] + squares[1] + squares[2])
    return value * (value - 1) / (np.sqrt(slopes[0] + slopes[1] + slopes[2]) + 1e-6)


def measure_pair(space: Space, centre_mm: Sequence[float], radii_mm: Sequence[float]) -> Array:
    """Distance to an ellipsoid and its mirror image across the midline."""
    x, y, z = centre_mm
    return measure_ellipsoid((space.half - x, space.y - y, space.z - z), radii_mm)


def cover_voxels(space: Space, distance: Array) -> Array:
    """Share of each voxel, 0 to 1, on the inner side of a surface: the partial volume."""
    dx, dy, dz = space.spacing_mm
    across = np.abs(np.gradient(distance, axis=2))
    width = np.minimum(across, dz) + max(1.2, (dx * dy) ** 0.5)
    return np.clip(0.5 - distance / width, 0, 1)


def paint(tissue: Array, share: Array, value: float | Array) -> None:
    """Mix `value` into the tissue in place, by the share of the voxel that it fills."""
    tissue += share * (value - tissue)
