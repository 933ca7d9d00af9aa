"""A mask from clicks alone by graph cut: what the engine of corrections is compared with.

Histograms of what was said as unary terms and a cut along the scan's edges (Boykov and Jolly, ICCV
2001), as in MONAI Label's scribbles and with its library, numpymaxflow.
"""

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

from heatmask.geometry import measure_spacing_mm
from heatmask.interaction import Edit
from heatmask.interaction.correction import normalise
from heatmask.interaction.whole import find_touched

BINS = 32
SEED_MM = 3.0
"""Around a click the tissue is taken to be the same."""
REACH_MM = 40.0
"""Nothing further away from every positive edit is looked at, as in the engine."""
SMOOTHNESS, EDGE_CONTRAST, NEIGHBOURS = 1.0, 0.1, 6


class ClickCut:
    """Clicks and strokes on one scan; the interface of `heatmask.interaction.Correction`."""

    def __init__(self, scan: MetaTensor) -> None:
        self.spacing_mm = tuple(measure_spacing_mm(np.asarray(scan.affine)).tolist())
        self._scan = normalise(np.asarray(scan[0], np.float32))
        self._seeds = np.zeros(self._scan.shape, np.int8)
        self.mask = np.zeros(self._scan.shape, np.uint8)

    def apply(self, edit: Edit) -> NDArray[np.uint8]:
        """Segment anew with all edits so far and return the mask."""
        from numpymaxflow import maxflow

        self._seeds[edit.index] = 1 if edit.positive else -1
        near = _find_near(self._seeds == 1, REACH_MM, self.spacing_mm)
        (box,) = ndimage.find_objects(near.astype(np.uint8)) or [None]
        self.mask = np.zeros_like(self.mask)
        if box is None:
            return self.mask
        scan, near, seeds = self._scan[box], near[box], self._seeds[box]
        inside = self._estimate(scan, near, seeds)
        probabilities = np.stack([1 - inside, inside]).astype(np.float32)
        cut = maxflow(scan[None], probabilities, SMOOTHNESS, EDGE_CONTRAST, NEIGHBOURS)
        found = np.where(seeds == 0, (cut[0] > 0) & near, seeds == 1)
        self.mask[box] = find_touched(found, seeds == 1)
        return self.mask

    def _estimate(
        self, scan: NDArray[np.float32], near: NDArray[np.bool_], seeds: NDArray[np.int8]
    ) -> NDArray[np.float64]:
        """Return the probability of the object by the intensities around the edits."""
        bins = np.minimum((scan * BINS).astype(int), BINS - 1)
        wanted, refused = (_find_near(seeds == one, SEED_MM, self.spacing_mm) for one in (1, -1))
        counts = [np.bincount(bins[one], minlength=BINS) for one in (wanted, refused)]
        rest = np.bincount(bins[near & ~wanted], minlength=BINS)
        outside = rest / max(rest.sum(), 1) + counts[1] / max(counts[1].sum(), 1)
        shares = [
            ndimage.gaussian_filter1d(one / max(one.sum(), 1e-9), 1.5) + 1e-3
            for one in (counts[0].astype(float), outside)
        ]
        inside = (shares[0] / (shares[0] + shares[1]))[bins]
        inside = np.where(near, np.clip(inside, 0.02, 0.98), 0)
        return np.where(seeds == 0, inside, seeds == 1)


def _find_near(
    voxels: NDArray[np.bool_], reach_mm: float, spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    if not voxels.any():
        return voxels
    return ndimage.distance_transform_edt(~voxels, sampling=spacing_mm) <= reach_mm
