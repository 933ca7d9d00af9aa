"""Average an attribution over mirrored and resized copies of the images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heatmask.attribution.baselines import view_baseline
from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.grid import resize_to
from heatmask.errors import OptionError

Attribute = Callable[..., tuple[Tensor, Tensor]]
"""``attribute(network, images, class_idx) -> (logits, attribution)``, with ``baseline=`` if any."""


class View(NamedTuple):
    """A copy of the images: mirrored along one axis or none, resized by a factor."""

    axis: int | None
    scale: float

    def take(self, images: Tensor) -> Tensor:
        """Return this view of images (B, C, *spatial)."""
        size = [max(1, round(n * self.scale)) for n in images.shape[2:]]
        return self.mirror(images if self.scale == 1 else resize_to(images, size))

    def mirror(self, images: Tensor) -> Tensor:
        """Mirror images (B, C, *spatial), or back."""
        return images if self.axis is None else images.flip(self.axis + 2)


def average_views(
    attribute: Attribute,
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    flips: Sequence[int],
    scales: Sequence[float],
    baseline: Tensor | float | None = None,
    power: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return logits and attribution, averaged over views.

    At each scale there is a view without flip, and one for each of `flips`.

    Parameters
    ----------
    attribute
        A method with its options: ``attribute(network, images, class_idx)``.
    flips
        Spatial axes; each is mirrored once, alone.
    scales
        Factors of the spatial size.
    baseline
        As of the method. An image is mirrored and resized with the views, and passed on as
        ``attribute(..., baseline=...)``; one that is alike along an axis, or a number, is left
        to the method's options.
    power
        How the method's values go with the number of pixels: `size_power` of
        `heatmask.attribution.registry.Method`.

    Returns
    -------
    tuple of Tensor
        The logits are those of the first scale without flip; the attributions are averaged on
        the finest grid among the views. Their values are for pixels of `images`: a complete
        method's map, on the grid of `images`, sums to the mean of what its views sum to.

    Raises
    ------
    OptionError
        An axis is not there, a factor is not positive, or the baseline is of another size.
    """
    spatial_axes = images.ndim - 2
    if any(not 0 <= axis < spatial_axes for axis in flips):
        raise OptionError(f"flips must be axes from 0 to {spatial_axes - 1}, got {tuple(flips)}.")
    if not scales or min(scales) <= 0:
        raise OptionError(f"scales must be positive, at least one, got {tuple(scales)}.")
    views = [View(axis, scale) for scale in scales for axis in (None, *flips)]
    if views == [View(None, 1.0)]:
        return attribute(network, images, class_idx)
    shown = None
    if isinstance(baseline, Tensor) and any(n > 1 for n in baseline.shape[-spatial_axes:]):
        shown = view_baseline(baseline, images.shape[2:]).to(images)
    results = []
    for view in views:
        options = {} if shown is None else {"baseline": view.take(shown)}
        copy = view.take(images)
        logits, attribution = attribute(network, copy, class_idx, **options)
        share = copy.shape[2:].numel() / images.shape[2:].numel()
        results.append((logits, share**power * view.mirror(attribution.detach())))
    grid = max((attribution.shape[2:] for _, attribution in results), key=lambda s: s.numel())
    maps = [resize_to(attribution, grid) for _, attribution in results]
    return results[0][0], torch.stack(maps).mean(dim=0)
