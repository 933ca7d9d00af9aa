"""Random walks with a prior (Grady, CVPR 2005): who is likelier to be met first from a voxel.

scikit-image's `random_walker` takes no prior, and its seeds alone would not let the heatmap speak.
With one the system is well conditioned, so that conjugate gradients need no multigrid.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from heatmask.progress import advance

EDGE_CONTRAST = 0.05
"""Step of the scan, of its range from 0 to 1, at which a border is likely."""
SMOOTHNESS = 40.0
"""How much neighbours count beside the prior."""
_SEED_WEIGHT = 1e5
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 500

Array = NDArray[np.float64]


def walk(
    scan: NDArray[np.float32],
    prior: Array,
    seeds: NDArray[np.int8],
    spacing_mm: Sequence[float],
) -> Array:
    """Return the probability of the object for each voxel.

    Parameters
    ----------
    scan
        (X, Y, Z) in [0, 1]: walkers rarely cross its edges.
    prior
        Probability of the object from the voxel alone.
    seeds
        1 in the object, -1 outside it, 0 to be found.
    spacing_mm
        Edges of a voxel: walkers cross a long way less often.
    """
    weights = [_weigh(scan, axis, spacing_mm) for axis in range(3)]
    pull = np.where(seeds, _SEED_WEIGHT, 1.0)
    diagonal = pull.copy()
    for axis, weight in enumerate(weights):
        diagonal[_cut(axis, 0, -1)] += weight
        diagonal[_cut(axis, 1, None)] += weight

    def multiply(x: Array) -> Array:
        y = diagonal * x
        for axis, weight in enumerate(weights):
            y[_cut(axis, 0, -1)] -= weight * x[_cut(axis, 1, None)]
            y[_cut(axis, 1, None)] -= weight * x[_cut(axis, 0, -1)]
        return y

    start = np.where(seeds > 0, 1.0, np.where(seeds < 0, 0.0, prior))
    return _solve(multiply, diagonal, pull * start, start)


def _solve(multiply: Callable[[Array], Array], diagonal: Array, right: Array, x: Array) -> Array:
    """Conjugate gradients with Jacobi's preconditioner."""
    residual = right - multiply(x)
    step = direction = residual / diagonal
    size = np.vdot(residual, step)
    for _ in range(_MAX_ITERATIONS):
        advance(0)
        if np.abs(step).max() < _TOLERANCE:
            break
        product = multiply(direction)
        length = size / np.vdot(direction, product)
        x = x + length * direction
        residual = residual - length * product
        step = residual / diagonal
        before, size = size, np.vdot(residual, step)
        direction = step + size / before * direction
    return x


def _weigh(scan: NDArray[np.float32], axis: int, spacing_mm: Sequence[float]) -> Array:
    contrast = np.diff(scan.astype(np.float64), axis=axis) / EDGE_CONTRAST
    distance = min(spacing_mm) / spacing_mm[axis]
    return SMOOTHNESS * distance**2 * (np.exp(-(contrast**2) / 2) + 1e-4)


def _cut(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if axis == a else slice(None) for a in range(3))
