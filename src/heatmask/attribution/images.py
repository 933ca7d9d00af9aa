"""Images as methods get them: checked, resized, and beside them the baseline that shows nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution.frozen import find_bare
from heatmask.errors import InputError, MethodError, OptionError

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize_to(maps: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return maps (B, M, *any) on a grid of this size, linearly interpolated."""
    if tuple(maps.shape[2:]) == tuple(spatial):
        return maps
    return F.interpolate(maps, size=tuple(spatial), mode=_LINEAR[len(spatial)])


def check_images(images: Tensor, network: nn.Module) -> None:
    """Raise `InputError` unless these are images (B, C, *spatial) that the network can get."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"Images must be a torch tensor, got {type(images).__name__}. Convert them with "
            "torch.as_tensor(images)."
        )
    if images.ndim not in (3, 4, 5) or len(images) == 0:
        raise InputError(
            "Images must come as (batch, channel, *spatial) with at least one image, "
            f"got shape {tuple(images.shape)}."
        )
    if not images.is_floating_point():
        raise InputError(
            f"Images must be floating-point numbers, got {images.dtype}. Scale them as in "
            "training, or convert them with images.float()."
        )
    device = next((tensor.device for tensor in find_bare(network).parameters()), images.device)
    if device != images.device:
        raise InputError(
            f"Network and images must lie on one device, and the network is on {device}, the "
            f"images on {images.device}. Move them: images.to({str(device)!r})."
        )


def check_finite(what: str, network: nn.Module, **results: Tensor) -> None:
    """Raise `MethodError` if a result (B, ...) of `what` is not finite, by its name."""
    for name, values in results.items():
        if not values.isfinite().all():
            bad = (~values.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            raise MethodError(
                f"{what} of {type(network).__name__}: the {name} must be finite, "
                f"and those of image(s) {', '.join(map(str, bad[:8]))} of the batch are not. "
                "Look for NaN or infinite values in the images and the weights; with mixed "
                "precision, try without."
            )


@contextmanager
def name_mismatch(images: Tensor) -> Iterator[None]:
    """Turn torch's errors about channels, types and compiled functions into our own."""
    try:
        yield
    except RuntimeError as error:
        if "channels" in str(error):
            raise InputError(
                f"The network wants another number of channels than the images' "
                f"{images.shape[1]}: {error}"
            ) from error
        if "Input type" in str(error) or "same dtype" in str(error):
            raise InputError(
                f"Images and network must be of one type, and the images are {images.dtype}: "
                f"{error}. Convert them, as in images.float()."
            ) from error
        if "donated buffers" in str(error):
            raise MethodError(
                "A function of the network was compiled by torch.compile, and can be "
                "differentiated only once. Compile none, or give one class_idx at a time."
            ) from error
        raise


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
