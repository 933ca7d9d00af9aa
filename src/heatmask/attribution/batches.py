"""Explain any number of images in batches that fit into memory."""

import logging
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from rich.progress import track
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.errors import DeviceError, OptionError

logger = logging.getLogger(__name__)


def explain(
    network: nn.Module,
    images: Tensor,
    method: str = "saliency",
    class_idx: ClassIdx = None,
    *,
    batch_size: int = 16,
    progress: bool = False,
    **options: Any,
) -> Explanation:
    """Explain a plain classifier's decision on images, by the name of a method.

    Parameters
    ----------
    network
        Any PyTorch classifier: images (B, C, *spatial) to logits (B, K). It is left as it was.
    images
        (B, C, H, W) slices or (B, C, X, Y, Z) volumes, on the network's device.
    method
        `heatmask methods` lists them.
    class_idx
        The class explained: None for all K, an int or a list for the same of every image,
        a tensor (B,) for one of each image.
    batch_size
        Images a forward; changes memory and speed, not the result.
    progress
        Show a progress bar.
    options
        As of `Explainer`: target_layer, baseline, seed, flips, scales, and the method's own.

    Returns
    -------
    Explanation
        Logits (B, K) and attribution (B, M, *spatial) on the images' grid: float32, signed and
        unnormalised; with the images' affine if they are a MetaTensor.

    Raises
    ------
    HeatmaskError
        An option is wrong, or the method cannot explain this network.

    Examples
    --------
    >>> import torch
    >>> from monai.networks.nets import resnet18
    >>> network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=2)
    >>> logits, attribution = explain(network, torch.rand(3, 1, 64, 64), "grad_cam")
    >>> attribution.shape
    torch.Size([3, 2, 64, 64])
    """
    explanation = explain_in_batches(
        Explainer(method, **options), network, images, class_idx, batch_size, progress
    )
    if isinstance(images, MetaTensor):
        attribution = convert_to_dst_type(explanation.attribution, images, dtype=torch.float32)[0]
        explanation = explanation._replace(attribution=attribution)
    return explanation


def explain_in_batches(
    explainer: Explainer,
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx = None,
    batch_size: int = 16,
    progress: bool = False,
) -> Explanation:
    """Call an explainer on batches and join the results.

    Where a GPU runs out of memory the batch is halved, which is logged, and the work goes on.

    Raises
    ------
    DeviceError
        Not even one image fits into the GPU's memory.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    plain = images.as_tensor() if isinstance(images, MetaTensor) else images
    parts: list[Explanation] = []
    starts = list(range(0, len(plain), batch_size))
    for start in track(starts, explainer.method.name, disable=not progress or len(starts) < 2):
        batch = slice(start, min(start + batch_size, len(plain)))
        chosen = class_idx[batch] if isinstance(class_idx, Tensor) and class_idx.ndim else class_idx
        parts += _explain_fitting(explainer, network, plain[batch].contiguous(), chosen)
    logits, attribution = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Explanation(logits, attribution)


def _explain_fitting(
    explainer: Explainer, network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> list[Explanation]:
    try:
        return [explainer(network, images, class_idx)]
    except torch.cuda.OutOfMemoryError as error:
        if len(images) == 1:
            raise DeviceError(
                f"{explainer.method.name} must fit into the GPU's memory with one image of "
                f"{tuple(images.shape[1:])} at least, and does not: {error}. "
                "Take a method that needs less, a smaller image, or device=cpu."
            ) from error
    # Outside of the handler, so that the failed call's tensors are let go first.
    torch.cuda.empty_cache()
    half = len(images) // 2
    logger.warning("The GPU is out of memory: going on with a batch of %d.", half)
    per_image = isinstance(class_idx, Tensor) and class_idx.ndim > 0
    parts: list[Explanation] = []
    for part in (slice(None, half), slice(half, None)):
        chosen = class_idx[part] if per_image else class_idx  # type: ignore[index]
        parts += _explain_fitting(explainer, network, images[part], chosen)
    return parts
