"""Does the classifier rest its decision on what a heatmap shows? No reference mask is asked."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def measure_deletion_contrast(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    heatmap: Tensor,
    fractions: Sequence[float] = (0.01, 0.02, 0.05, 0.1),
    fill: float = 1.0,
    mirror_axis: int = 0,
) -> float:
    """Return how much more the hottest pixels of a volume matter than their mirror images.

    The hottest pixels are filled with ordinary tissue and the classifier is asked again; then
    the same with the region mirrored to the other side of the head. Heatmaps are compared at
    equal area, so that none wins by being large.

    Parameters
    ----------
    classify
        Images to probabilities (N,) of the class explained.
    images
        The slices (N, C, H, W) of one volume that the classifier calls positive.
    heatmap
        (N, H, W).
    fractions
        Shares of the head's pixels in all these slices that are filled, one after another.
    fill
        Intensity of ordinary tissue: 1 is the head's median after `NormalizeHeadd`. Pixels
        outside of the head (0) stay as they are.
    mirror_axis
        Spatial axis from left to right.

    Returns
    -------
    float
        Mean difference in probability over images and fractions, in [-1, 1]; 0 for no images.

    Notes
    -----
    After deletion (Samek et al. 2017, arXiv 1509.06321), with a control of equal shape.
    """
    if len(images) == 0:
        return 0.0
    head = (images != 0).any(dim=1)
    ordered = heatmap[head].sort(descending=True).values

    def classify_without(region: Tensor) -> Tensor:
        return classify(torch.where(region[:, None] & (images != 0), fill, images))

    contrasts = []
    for fraction in fractions:
        hottest = heatmap > ordered[int(fraction * (len(ordered) - 1))]
        mirrored = hottest.flip(mirror_axis + 1)
        contrasts.append((classify_without(mirrored) - classify_without(hottest)).mean())
    return float(torch.stack(contrasts).mean())
