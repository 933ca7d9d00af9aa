"""The image that shows nothing, from which an attribution starts to count."""

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
    fitted = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
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
