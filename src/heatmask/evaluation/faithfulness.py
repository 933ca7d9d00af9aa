"""Does the classifier rest its decision on what a heatmap shows? No reference mask is asked."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of a head's pixels that are taken away or given back, one after another."""


def measure_deletion(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    heatmap: Tensor,
    fractions: Sequence[float] = FRACTIONS,
    fill: float = 1.0,
) -> float:
    """Return the mean probability left when the hottest pixels are filled: low is faithful.

    Parameters
    ----------
    classify
        Images to probabilities (N,) of the class explained.
    images
        Slices (N, C, H, W), 0 outside of the head.
    heatmap
        (N, H, W).
    fractions
        Shares of each head's pixels, the hottest first.
    fill
        Intensity of ordinary tissue: 1 is the head's median after `NormalizeHeadd`.

    Notes
    -----
    Samek et al. 2017 (arXiv 1509.06321); Petsiuk et al. 2018 (arXiv 1806.07421), in steps.
    """
    filled = torch.where(images != 0, fill, images)
    hot = find_hottest(images, heatmap, fractions)
    told = [classify(torch.where(region[:, None], filled, images)).mean() for region in hot]
    return float(torch.stack(told).mean())


def measure_insertion(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    heatmap: Tensor,
    fractions: Sequence[float] = FRACTIONS,
    fill: float = 1.0,
) -> float:
    """Return the mean probability with the hottest pixels of a flat head put back: high is good.

    As `measure_deletion`.
    """
    filled = torch.where(images != 0, fill, images)
    hot = find_hottest(images, heatmap, fractions)
    told = [classify(torch.where(region[:, None], images, filled)).mean() for region in hot]
    return float(torch.stack(told).mean())


def find_hottest(images: Tensor, heatmap: Tensor, fractions: Sequence[float]) -> list[Tensor]:
    """Return, for each fraction, the hottest pixels (N, H, W) of each head, ties by position."""
    head = (images != 0).any(dim=1).flatten(1)
    ranked = torch.where(head, heatmap.flatten(1), -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    places = ranked.argsort(dim=1)  # the rank of each pixel
    counts = head.sum(dim=1, keepdim=True)
    shape = heatmap.shape
    return [((places < (counts * f).round()) & head).view(shape) for f in fractions]


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
