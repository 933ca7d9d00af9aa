"""Explain any number of images in batches that fit into memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from rich.progress import Progress
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.attribution.memory import MemoryBudget
from heatmask.attribution.preflight import require_sound
from heatmask.errors import DeviceError, OptionError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def explain(
    network: nn.Module,
    images: Tensor,
    method: str = "saliency",
    class_idx: ClassIdx = None,
    *,
    batch_size: int = 16,
    max_memory_gb: float | None = None,
    progress: bool = False,
    check: bool = True,
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
        Images a forward, at most; changes memory and speed, not the result.
    max_memory_gb
        Memory that a batch may take, in 10^9 bytes, beside the network, the images and the
        results. Batches are smaller where `batch_size` images would need more: what one and two
        need is measured on the way.
    progress
        Show a progress bar.
    check
        Refuse a method that would be wrong on the network (see
        `heatmask.attribution.preflight`): about a second once for a network.
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
    explainer = Explainer(method, **options)
    if check:
        require_sound(explainer, network, images.shape[1:])
    explanation = explain_in_batches(
        explainer,
        network,
        images,
        class_idx,
        batch_size,
        max_memory_gb=max_memory_gb,
        progress=progress,
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
    *,
    max_memory_gb: float | None = None,
    progress: bool = False,
) -> Explanation:
    """Call an explainer on batches and join the results; see `explain`.

    Where a GPU runs out of memory the batch is halved, which is logged, and the work goes on.

    Raises
    ------
    OptionError
        `batch_size` or `max_memory_gb` is out of range, or less than one image needs.
    DeviceError
        Not even one image fits into the GPU's memory.
    """
    plain = images.as_tensor() if isinstance(images, MetaTensor) else images

    def explain_part(part: slice) -> Explanation:
        return _explain_fitting(
            explainer, network, plain[part].contiguous(), _select(class_idx, part)
        )

    title = explainer.method.name if progress else ""
    return _join(run_batches(explain_part, plain, batch_size, max_memory_gb, title))


def run_batches(
    run: Callable[[slice], Result],
    images: Tensor,
    batch_size: int,
    max_memory_gb: float | None = None,
    title: str = "",
) -> list[Result]:
    """Call ``run(part)`` for one batch of images (N, ...) after the other.

    Parameters
    ----------
    batch_size, max_memory_gb
        See `explain`.
    title
        Of a progress bar; none without.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    budget = None if max_memory_gb is None else MemoryBudget(max_memory_gb, images.device)
    results = []
    with Progress(disable=not title or len(images) <= batch_size) as bar:
        task = bar.add_task(title, total=len(images))
        for part in _cut(len(images), batch_size, budget):
            with nullcontext() if budget is None else budget.measure(part.stop - part.start):
                results.append(run(part))
            bar.advance(task, part.stop - part.start)
    return results


def _cut(count: int, batch_size: int, budget: MemoryBudget | None) -> Iterator[slice]:
    """Yield the batches' places; the budget learns from each before the next is cut."""
    start = 0
    while start < max(count, 1):  # no images: one empty batch, which the explainer refuses
        size = batch_size if budget is None else min(batch_size, budget.batch_size)
        yield slice(start, min(start + size, count))
        start += size


def _select(class_idx: ClassIdx, part: slice) -> ClassIdx:
    """Return the classes of a part of the images: a tensor names one for each."""
    return class_idx[part] if isinstance(class_idx, Tensor) and class_idx.ndim else class_idx


def _join(parts: Sequence[Explanation]) -> Explanation:
    return Explanation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _explain_fitting(
    explainer: Explainer, network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> Explanation:
    try:
        return explainer(network, images, class_idx)
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
    return _join(
        [
            _explain_fitting(explainer, network, images[part], _select(class_idx, part))
            for part in (slice(None, half), slice(half, None))
        ]
    )
