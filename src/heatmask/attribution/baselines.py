"""The image that shows nothing, from which an attribution starts to count."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatmask.errors import OptionError


def fit_baseline(baseline: Tensor | float | None, images: Tensor) -> Tensor:
    """Return a baseline that broadcasts to images (B, C, *spatial); zeros for None.

    Raises
    ------
    OptionError
        It has another shape, or values that are not finite.
    """
    if baseline is None:
        return torch.zeros_like(images[:1])
    try:
        fitted = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"A baseline must be a number or a tensor, got {baseline!r}.") from None
    try:
        torch.broadcast_to(fitted, images.shape)
    except RuntimeError:
        raise OptionError(
            f"A baseline must be a number or of a shape that broadcasts to the images' "
            f"{tuple(images.shape)}, got {tuple(fitted.shape)}."
        ) from None
    if not fitted.isfinite().all():
        raise OptionError("A baseline must hold finite values only, got NaN or infinity.")
    return fitted


def fit_background(background: Tensor | float, images: Tensor) -> Tensor:
    """Return a set of baselines (N, C or 1, *spatial or 1) for images (B, C, *spatial).

    A number is a set of one image. N need not be B: an image may be explained from any of them.

    Raises
    ------
    OptionError
        It is no number and no such set, an empty one, or has values that are not finite.
    """
    if not isinstance(background, Tensor) or background.ndim == 0:
        return fit_baseline(background, images).expand(1, *images.shape[1:])
    if background.ndim != images.ndim or len(background) == 0:
        raise OptionError(
            "A background set must be a number or of shape (N, channel, *spatial) with at least "
            f"one image, for images of {tuple(images.shape)}, got {tuple(background.shape)}. "
            "Give one image as image[None]."
        )
    # Each on its own: a set of another size than the batch would not broadcast to it.
    return torch.cat([fit_baseline(one, images) for one in background.split(1)])


def view_baseline(baseline: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return a baseline with all spatial axes of this size, to mirror or resize with the images.

    Raises
    ------
    OptionError
        A spatial axis has another size and is not 1.
    """
    axes = len(spatial)
    padded = baseline.reshape(*[1] * (axes + 2 - baseline.ndim), *baseline.shape)
    if any(given not in (1, size) for given, size in zip(padded.shape[2:], spatial, strict=True)):
        raise OptionError(
            f"A baseline must have the images' spatial size {tuple(spatial)}, or 1 along an axis, "
            f"got {tuple(baseline.shape)}."
        )
    return padded.expand(*padded.shape[:2], *spatial)


def draw_flat_baselines(images: Tensor, share: float) -> Tensor:
    """Return each image's non-zero pixels filled with one level.

    Parameters
    ----------
    images
        (B, C, *spatial).
    share
        The level's place between the 5th and the 95th percentile of the non-zero pixels of
        each image and channel, in [0, 1].
    """
    flat = images.flatten(2)
    values = torch.where(flat == 0, torch.nan, flat).float()
    low, high = values.nanquantile(torch.tensor([0.05, 0.95], device=images.device), dim=2)
    level = (low + share * (high - low)).nan_to_num(0.0).to(images.dtype)
    return (flat != 0).to(images.dtype).mul(level[..., None]).reshape(images.shape)
