"""Measure, from slice labels alone, what range a method's heatmap has on trained weights."""

import logging
from collections.abc import Mapping, Sequence

import torch
from rich.progress import track
from torch import Tensor, nn

from heatmask.attribution.batches import explain_present_channels
from heatmask.attribution.explainer import Explainer
from heatmask.attribution.registry import get_method
from heatmask.errors import InputError
from heatmask.training.blocks import BlockDataset
from heatmask.training.slices import SliceDataset

logger = logging.getLogger(__name__)


def list_explainers(methods: Sequence[str], layers: Sequence[str] = ()) -> dict[str, Explainer]:
    """Return the explainers whose ranges a bundle offers, by the name of the range.

    Each method is there as ``METHOD``, at its own layer, and those that take another layer as
    ``METHOD:LAYER`` too. CAM takes none: only the layer that is pooled has its weights.
    """
    explainers = {name: Explainer(name) for name in methods}
    for name in methods:
        needs = get_method(name).needs
        if "layer" in needs and "pooled head" not in needs:
            explainers |= {f"{name}:{layer}": Explainer(name, layer) for layer in layers}
    return explainers


def measure_ranges(
    network: nn.Module,
    slices: SliceDataset | BlockDataset,
    explainers: Mapping[str, Explainer],
    count: int = 32,
) -> dict[str, tuple[float, float]]:
    """Return the range (low, high) of the raw heatmap of each explainer.

    One range holds for all classes of a network: their heatmaps compete for voxels.

    Parameters
    ----------
    network
        The trained classifier.
    slices
        Labelled training slices: label 0 for no finding, k + 1 for class k.
    explainers
        By the name under which the range is kept.
    count
        How many slices with a class, and how many without, are looked at: spread evenly over
        the data set, and shared by the classes where there are several.

    Returns
    -------
    dict
        ``low`` is the median of the heatmap of each class over slices without that class, what
        "nothing" looks like; ``high`` the 99.5th percentile over slices with it. No mask is
        read.

    Raises
    ------
    InputError
        All slices have the same label.
    """
    labels = slices.labels.round().long()
    present = [k for k in range(int(labels.max())) if (labels == k + 1).any()]
    share = -(-count // max(1, len(present)))
    chosen = {
        k: [_pick(slices, (labels == k + 1) == wanted, share) for wanted in (False, True)]
        for k in present
    }
    if not chosen or not all(len(images) for pair in chosen.values() for images in pair):
        raise InputError("All training slices have the same label. Check the slice labels.")
    logger.info("Measuring the range of %d heatmaps on training images.", len(explainers))
    ranges = {}
    for name, explainer in track(explainers.items(), "Measuring ranges of heatmaps"):
        low, high = (
            torch.cat([_explain(explainer, network, chosen[k][i], k) for k in present])
            for i in (0, 1)
        )
        ranges[name] = (_round(low.median()), _round(_sample(high).quantile(0.995)))
    return ranges


def _pick(slices: SliceDataset | BlockDataset, wanted: Tensor, count: int) -> Tensor:
    found = wanted.nonzero().flatten()
    chosen = found[:: max(1, len(found) // count)][:count].tolist()
    images = [slices[i]["image"] for i in chosen]
    kept = [image for image in images if image.any()]
    return torch.stack(kept) if kept else torch.empty(0)


def _explain(explainer: Explainer, network: nn.Module, images: Tensor, class_idx: int) -> Tensor:
    explained = explain_present_channels(explainer, network, images, class_idx, batch_size=16)
    return explained.attribution.flatten()


def _sample(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // 2**23)]  # torch's quantile takes 16 M values at most


def _round(value: Tensor) -> float:
    return float(f"{value.item():.3g}") + 0.0  # no negative zero
