"""Average an attribution over mirrored and resized copies of the images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.grid import resize_to
from heatmask.errors import OptionError


def average_views(
    attribute: Callable[[nn.Module, Tensor, ClassIdx], tuple[Tensor, Tensor]],
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    flips: Sequence[int],
    scales: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Return logits and attribution, averaged over all combinations of flips and scales.

    Parameters
    ----------
    attribute
        A method with its options: ``attribute(network, images, class_idx)``.
    flips
        Spatial axes; each is mirrored once.
    scales
        Factors of the spatial size.

    Returns
    -------
    tuple of Tensor
        The logits are those of the first scale without flip; the attributions are averaged on
        the finest grid among the views.

    Raises
    ------
    OptionError
        An axis is not there, or a factor is not positive.
    """
    spatial_axes = images.ndim - 2
    if any(not 0 <= axis < spatial_axes for axis in flips):
        raise OptionError(f"flips must be axes from 0 to {spatial_axes - 1}, got {tuple(flips)}.")
    if not scales or min(scales) <= 0:
        raise OptionError(f"scales must be positive, at least one, got {tuple(scales)}.")
    views = [(axis, scale) for scale in scales for axis in (None, *flips)]
    if views == [(None, 1.0)]:
        return attribute(network, images, class_idx)
    results = [_attribute_view(attribute, network, images, class_idx, *view) for view in views]
    grid = max((attribution.shape[2:] for _, attribution in results), key=lambda s: s.numel())
    maps = [resize_to(attribution.detach(), grid) for _, attribution in results]
    return results[0][0], torch.stack(maps).mean(dim=0)


def _attribute_view(
    attribute: Callable[[nn.Module, Tensor, ClassIdx], tuple[Tensor, Tensor]],
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    axis: int | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    size = [max(1, round(n * scale)) for n in images.shape[2:]]
    view = images if scale == 1 else resize_to(images, size)
    logits, attribution = attribute(
        network, view if axis is None else view.flip(axis + 2), class_idx
    )
    return logits, attribution if axis is None else attribution.flip(axis + 2)
