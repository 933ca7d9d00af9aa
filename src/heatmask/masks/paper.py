"""From heatmap to mask as the GP networks' paper does it, slice by slice.

Chatterjee et al., Neurocomputing 682:133460, 2026 (arXiv 2206.05148) and the authors' code. The
sizes count pixels, as published for slices of 240 x 240 at 1 mm; the offsets they give (0.3 for
GP-UNet, 0.1 for GP-ShuffleUNet, 1.6 for GP-ReconResNet) belong to their weights.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu
from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects

MIN_OBJECT_PIXELS, MIN_HOLE_PIXELS, CLOSING_RADIUS_PIXELS = 64, 128, 2


def make_paper_mask(
    heatmap: NDArray[np.float32], slice_axis: int, shown: NDArray[np.bool_], offset: float
) -> NDArray[np.bool_]:
    """Return the mask (X, Y, Z) of one class from its raw heatmap.

    On each slice that `shown` names, on its own: negative values to zero, the upper threshold
    of a multi-Otsu of three classes minus `offset` (in the heatmap's unit, logits), objects
    below 64 pixels removed, holes below 128 pixels filled, closing by a disc of radius 2, largest
    component. A slice without three different values stays empty, and so do the others.
    """
    mask = np.zeros(heatmap.shape, bool)
    slices, masks = np.moveaxis(heatmap, slice_axis, 0), np.moveaxis(mask, slice_axis, 0)
    for index in np.flatnonzero(shown):
        masks[index] = _mask_slice(np.maximum(slices[index], 0), offset)
    return mask


def _mask_slice(evidence: NDArray[np.float32], offset: float) -> NDArray[np.bool_]:
    if len(np.unique(evidence)) < 3:
        return np.zeros(evidence.shape, bool)
    # Without evidence there is no object, however large the offset.
    threshold = max(threshold_multiotsu(evidence, classes=3)[-1] - offset, 0)
    mask = remove_small_objects(evidence > threshold, max_size=MIN_OBJECT_PIXELS - 1)
    mask = remove_small_holes(mask, max_size=MIN_HOLE_PIXELS - 1)
    labels, count = ndimage.label(closing(mask, disk(CLOSING_RADIUS_PIXELS)))
    if count == 0:
        return mask
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()
