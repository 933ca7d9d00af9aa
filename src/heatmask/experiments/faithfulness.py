"""Does the classifier rest its decision on what a heatmap shows? No reference mask is asked."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from heatmask.experiments.cases import Case
from heatmask.experiments.heatmaps import Explanations, Heatmap
from heatmask.experiments.store import Kept, digest, digest_code
from heatmask.geometry import find_slice_axis

MAX_SLICES = 4
"""Of a volume, evenly over those where a class is shown."""
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of a head's pixels that are taken away or given back, one after another."""


def measure_deletion(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    heatmap: Tensor,
    fractions: Sequence[float] = FRACTIONS,
) -> float:
    """Return the mean probability left when the hottest pixels are filled: low is faithful.

    Parameters
    ----------
    classify
        Images to probabilities (N,) of the class explained.
    images
        Slices (N, C, H, W), 0 outside of the head. Pixels are filled with its median.
    heatmap
        (N, H, W).
    fractions
        Shares of each head's pixels, the hottest first.

    Notes
    -----
    Samek et al. 2017 (arXiv 1509.06321); Petsiuk et al. 2018 (arXiv 1806.07421), in steps.
    """
    filled = flatten_heads(images)
    return _classify_mixed(classify, filled, images, find_hottest(images, heatmap, fractions))


def measure_insertion(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    heatmap: Tensor,
    fractions: Sequence[float] = FRACTIONS,
) -> float:
    """Return the mean probability with the hottest pixels of a flat head put back: high is good.

    As `measure_deletion`.
    """
    filled = flatten_heads(images)
    return _classify_mixed(classify, images, filled, find_hottest(images, heatmap, fractions))


def _classify_mixed(
    classify: Callable[[Tensor], Tensor], inside: Tensor, outside: Tensor, regions: Sequence[Tensor]
) -> float:
    mixed = [classify(torch.where(r[:, None], inside, outside)).mean() for r in regions]
    return float(torch.stack(mixed).mean())


def flatten_heads(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose head, all that is not 0, has its median everywhere."""
    head = images != 0
    medians = torch.where(head, images, torch.nan).flatten(2).nanmedian(2).values
    return torch.where(head, medians[..., None, None], images)


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
    mirror_axis: int = 0,
) -> float:
    """Return how much more the hottest pixels of a volume matter than their mirror images.

    The hottest pixels are filled with the head's median and the classifier is asked again; then
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
    ordered, filled = heatmap[head].sort(descending=True).values, flatten_heads(images)

    def classify_without(region: Tensor) -> Tensor:
        return classify(torch.where(region[:, None], filled, images))

    contrasts = []
    for fraction in fractions:
        hottest = heatmap > ordered[int(fraction * (len(ordered) - 1))]
        mirrored = hottest.flip(mirror_axis + 1)
        contrasts.append((classify_without(mirrored) - classify_without(hottest)).mean())
    return float(torch.stack(contrasts).mean())


class FaithfulnessScoring(Kept[Case]):
    """Deletion and insertion on the slices that an entry explains, asked of the trained network.

    Parameters
    ----------
    explanations
        Of a network on slices; a control's heatmap is judged by the trained network too.
    """

    def __init__(self, explanations: Explanations) -> None:
        self.explanations, self.store = explanations, explanations.store

    def find_key(self, item: Case) -> str:
        """Return what the scores of a case are kept under."""
        return digest([self.explanations.find_key(item), digest_code(__name__)])

    def _compute(self, item: Case) -> dict[str, float]:
        """Return ``deletion`` and ``insertion``, NaN where no class is shown."""
        data = self.explanations.prepare(item)
        heatmap = self.explanations.explain(item)
        if not len(heatmap.maps):
            return {"deletion": float("nan"), "insertion": float("nan")}
        images, maps, classes = _choose_slices(data["image"], heatmap, self.explanations.slice_axis)
        ask = partial(classify, self.explanations.pipeline.network, classes=classes)
        return {
            "deletion": measure_deletion(ask, images, maps),
            "insertion": measure_insertion(ask, images, maps),
        }


def _choose_slices(
    image: Tensor, heatmap: Heatmap, slice_axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (n, C, H, W), maps (n, H, W) and the class (n,) of each."""
    places = np.argwhere(heatmap.shown)
    chosen = np.unique(np.linspace(0, len(places) - 1, MAX_SLICES).round().astype(int))
    axis = find_slice_axis(image.shape[1:], slice_axis)
    slices = torch.as_tensor(image).movedim(axis + 1, 0)
    return (
        slices[places[chosen, 0]],
        torch.from_numpy(heatmap.maps[chosen]),
        torch.from_numpy(places[chosen, 1]),
    )


@torch.no_grad()
def classify(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (n,) of the class of each image."""
    device = next(network.parameters()).device
    logits = network(images.to(device)).float().cpu()
    chances = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return chances.gather(1, classes[:, None])[:, 0]


class SimilarityScoring(Kept[Case]):
    """Rank correlation of a control's heatmap with that of the trained network.

    Parameters
    ----------
    trained, control
        Two entries of one bundle and method; both explain the same slices.
    """

    def __init__(self, trained: Explanations, control: Explanations) -> None:
        self.trained, self.control = trained, control
        self.store = trained.store

    def find_key(self, item: Case) -> str:
        """Return what the score of a case is kept under."""
        keys = [part.find_key(item) for part in (self.trained, self.control)]
        return digest([*keys, digest_code(__name__)])

    def _compute(self, item: Case) -> float:
        """Return Spearman's correlation over the pixels of all slices shown, NaN where constant."""
        ours, theirs = (p.explain(item).maps.ravel() for p in (self.trained, self.control))
        if not ours.size or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
            return float("nan")
        return float(spearmanr(ours, theirs).statistic)
