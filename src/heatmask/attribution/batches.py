"""Explain any number of images, in batches that fit into memory, on the channels that are there."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from rich.progress import Progress
from torch import Tensor, nn

from heatmask.attribution.checks import require_sound
from heatmask.attribution.classes import ClassIdx, check_class_count
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.attribution.frozen import copy_frozen
from heatmask.attribution.images import check_finite, check_images, name_mismatch
from heatmask.attribution.memory import measure_batch_size, run_in_parts
from heatmask.attribution.registry import check_count
from heatmask.errors import DeviceError, OptionError
from heatmask.progress import advance, expect

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
        results. The first image is explained alone, to measure what one needs; the batches that
        follow hold as many as fit.
    progress
        Show a progress bar.
    check
        Refuse a method that would be wrong on the network (see `heatmask.attribution.checks`).
        This takes up to three times as long as explaining one image, once for a network.
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
    check_images(images, network)
    if check:
        require_sound(explainer, network, images.shape[1:])
    explanation = explain_in_batches(
        explainer, network, images, class_idx, batch_size,
        max_memory_gb=max_memory_gb, progress=progress,
    )  # fmt: skip
    _warn_of_nothing(explainer, images, explanation.attribution)
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
    """Call an explainer on batches and join the results; see `explain` and `run_batches`.

    Raises
    ------
    OptionError
        `batch_size` or `max_memory_gb` is out of range, or less than one image needs.
    DeviceError
        Not even one image fits into the GPU's memory.
    """
    plain = images.as_tensor() if isinstance(images, MetaTensor) else images
    check_class_count(class_idx, len(plain))
    explainer.check_baseline(plain)

    def explain_part(part: slice) -> Explanation:
        explain_one = explainer.take_part(part, len(plain))
        return explain_one(network, plain[part].contiguous(), _select(class_idx, part))

    what = explainer.method.name
    parts = run_batches(explain_part, plain, batch_size, max_memory_gb, what, progress)
    return Explanation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def explain_present_channels(
    explainer: Explainer,
    network: nn.Module,
    images: Tensor,
    class_idx: int | None = None,
    batch_size: int = 16,
    *,
    max_memory_gb: float | None = None,
) -> Explanation:
    """Explain images (N, C, *spatial) with what is absent held fixed.

    A network that takes several sequences gets zeros where one is absent. Its gradient there,
    noise or windows laid over it, would tell of a scan that nobody took. So a channel of an
    image that is zero throughout, beside others that are not, is part of the network for that
    image and not of its input: no method looks at it or changes it.

    Parameters
    ----------
    explainer, network, class_idx, batch_size, max_memory_gb
        As `explain_in_batches`; one class for all images and, where a channel is absent, one
        baseline for all channels and images.

    Raises
    ------
    HeatmaskError
        As `explain_in_batches`; or the baseline is not.
    """
    present = images.flatten(2).ne(0).any(dim=2)
    present |= ~present.any(dim=1, keepdim=True)  # an empty image, and no absent sequence
    if explainer.method.family == "inherent":  # the forward itself, which no one looks behind
        present.fill_(True)
    if not present.all():
        _check_baselines(explainer, images)
    parts, order = [], []
    for channels in present.unique(dim=0):
        members = (present == channels).all(dim=1).nonzero().flatten()
        on_these = network if channels.all() else _fix_absent(network, channels)
        chosen = images[members][:, channels]
        parts.append(
            explain_in_batches(
                explainer, on_these, chosen, class_idx, batch_size, max_memory_gb=max_memory_gb
            )
        )
        order.append(members)
    back = torch.cat(order).argsort()
    return Explanation(*(torch.cat(tensors)[back] for tensors in zip(*parts, strict=True)))


@torch.no_grad()
def classify_in_batches(
    network: nn.Module, images: Tensor, batch_size: int, max_memory_gb: float | None = None
) -> Tensor:
    """Return a classifier's logits (B, K) of images, float32; it is left as it was.

    Raises
    ------
    MethodError
        Images or logits are not finite.
    HeatmaskError
        As `explain_in_batches`.
    """
    private = copy_frozen(network)
    check_finite("The classifier", network, images=images)
    with name_mismatch(images):
        parts = run_batches(
            lambda part: private(images[part].clone()),  # a network may work in place
            images, batch_size, max_memory_gb, "The classifier",
        )  # fmt: skip
    logits = torch.cat(parts).float()
    check_finite("The classifier", network, logits=logits)
    return logits


def run_batches(
    run: Callable[[slice], Result],
    images: Tensor,
    batch_size: int,
    max_memory_gb: float | None = None,
    title: str = "",
    progress: bool = False,
) -> list[Result]:
    """Call ``run(part)`` for one batch of images (N, ...) after the other; see `run_in_parts`.

    Without images there is one empty batch, for `run` to refuse.

    Parameters
    ----------
    batch_size, max_memory_gb, progress
        See `explain`.
    title
        What is run, for the progress bar and for messages.
    """
    check_count("batch_size", batch_size)
    count = len(images)
    expect(count)
    with Progress(disable=not progress or count <= batch_size) as bar:
        task = bar.add_task(title, total=count)

        def run_part(part: slice) -> Result:
            result = run(part)
            bar.advance(task, part.stop - part.start)
            advance(part.stop - part.start)
            return result

        try:
            if max_memory_gb is None:
                return run_in_parts(run_part, 0, count, batch_size)
            run_one = partial(run_part, slice(0, min(1, count)))
            first, fitting = measure_batch_size(run_one, images.device, max_memory_gb)
            return [first, *run_in_parts(run_part, 1, count, min(batch_size, fitting))]
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(
                f"{title} must fit into the GPU's memory with one image of "
                f"{tuple(images.shape[1:])} at least, and does not: {error}. "
                "Take a method that needs less, a smaller image, or device=cpu."
            ) from error


def _warn_of_nothing(explainer: Explainer, images: Tensor, attribution: Tensor) -> None:
    if explainer.method.family in ("cam", "inherent"):
        return  # whose ReLU may rightly leave nothing
    empty = ~attribution.flatten(1).any(1) & images.flatten(1).any(1)
    if empty.any():
        logger.warning(
            "%s is zero everywhere on %d of %d images: no pixel changes their logits, or by less "
            "than %s can hold.", explainer.method.name, empty.sum(), len(empty), images.dtype,
        )  # fmt: skip


def _select(class_idx: ClassIdx, part: slice) -> ClassIdx:
    """Return the classes of a part of the images: a tensor names one for each."""
    return class_idx[part] if isinstance(class_idx, Tensor) and class_idx.ndim else class_idx


def _check_baselines(explainer: Explainer, images: Tensor) -> None:
    for name in ("baseline", "baselines"):
        given = explainer.options.get(name)
        shape = tuple(given.shape) if isinstance(given, Tensor) else ()
        leading = shape[: max(0, len(shape) - images.ndim + 2)]  # what lies before the spatial axes
        # The first axis of a set of baselines is the set's, which every image is explained from.
        if any(size > 1 for size in leading[name == "baselines" :]):
            raise OptionError(
                f"Where a sequence is absent, {name} must be the same for all channels and images; "
                f"got shape {shape}. Give a number, or the shape (1, *spatial)."
            )


def _fix_absent(network: nn.Module, channels: Tensor) -> nn.Module:
    """Return a copy of `network` that takes the chosen channels and sets the others to zero."""

    def complete(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        present, *others = inputs
        whole = present.new_zeros(len(present), len(channels), *present.shape[2:])
        return whole.index_copy(1, channels.nonzero().flatten(), present), *others

    fixed = copy_frozen(network)
    fixed.register_forward_pre_hook(complete)
    return fixed
