"""Explain images on the channels that are there.

A network that takes several sequences gets zeros where one is absent. Its gradient there, noise
or windows laid over it, would tell of a scan that nobody took.
"""

import torch
from torch import Tensor, nn

from heatmask.attribution.batches import explain_in_batches
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.attribution.frozen import copy_frozen
from heatmask.errors import OptionError


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

    A channel of an image that is zero throughout, beside others that are not, is part of the
    network for that image and not of its input: no method looks at it or changes it.

    Parameters
    ----------
    explainer, network, class_idx, batch_size, max_memory_gb
        As `heatmask.attribution.batches.explain_in_batches`; the class is that of all images.
        Where a channel is absent, a baseline must be one for all channels and images.

    Raises
    ------
    OptionError
        The baseline is not.
    HeatmaskError
        As `explain_in_batches`.
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
        parts.append(
            explain_in_batches(
                explainer,
                network if channels.all() else _fix_absent(network, channels),
                images[members][:, channels],
                class_idx,
                batch_size=batch_size,
                max_memory_gb=max_memory_gb,
            )
        )
        order.append(members)
    back = torch.cat(order).argsort()
    return Explanation(*(torch.cat(tensors)[back] for tensors in zip(*parts, strict=True)))


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
