"""Measure, from slice labels alone, what range a method's heatmap has on trained weights."""

from collections.abc import Mapping

import torch
from rich.progress import track
from torch import Tensor, nn

from heatmask.attribution.batches import explain_in_batches
from heatmask.attribution.explainer import Explainer
from heatmask.errors import InputError
from heatmask.training.slices import SliceDataset


def measure_ranges(
    network: nn.Module,
    slices: SliceDataset,
    explainers: Mapping[str, Explainer],
    count: int = 32,
) -> dict[str, tuple[float, float]]:
    """Return the range (low, high) of the raw heatmap of each explainer.

    Parameters
    ----------
    network
        The trained classifier.
    slices
        Labelled training slices.
    explainers
        By the name under which the range is kept.
    count
        How many slices with the finding, and how many without, are looked at: spread evenly
        over the data set.

    Returns
    -------
    dict
        ``low`` is the median over slices without the finding, what "nothing" looks like;
        ``high`` the 99.5th percentile over slices with it. No mask is read.

    Raises
    ------
    InputError
        All slices have the same label.
    """
    labels = torch.stack([slices[i]["label"] for i in range(len(slices))]) > 0.5
    without, present = (_pick(slices, labels == wanted, count) for wanted in (False, True))
    if not len(without) or not len(present):
        raise InputError(
            "The training slices must hold some with and some without the finding, got only one "
            "kind. Check the slice labels."
        )
    ranges = {}
    for name, explainer in track(explainers.items(), "Calibrating", disable=len(explainers) < 2):
        low = _explain(explainer, network, without).median()
        high = _sample(_explain(explainer, network, present)).quantile(0.995)
        ranges[name] = (_round(low), _round(high))
    return ranges


def _pick(slices: SliceDataset, wanted: Tensor, count: int) -> Tensor:
    found = wanted.nonzero().flatten()
    chosen = found[:: max(1, len(found) // count)][:count].tolist()
    images = [slices[i]["image"] for i in chosen]
    kept = [image for image in images if image.any()]
    return torch.stack(kept) if kept else torch.empty(0)


def _explain(explainer: Explainer, network: nn.Module, images: Tensor) -> Tensor:
    return explain_in_batches(explainer, network, images, batch_size=16).attribution.flatten()


def _sample(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // 2**23)]  # torch's quantile takes 16 M values at most


def _round(value: Tensor) -> float:
    return float(f"{value.item():.3g}")
