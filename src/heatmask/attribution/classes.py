"""Which class is explained, and the gradient of its logit."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatmask.errors import MethodError, OptionError

ClassIdx = int | Sequence[int] | Tensor | None
"""The classes to explain: one, several, a tensor (B,) with one for each image, or None for all."""


def select_logits(logits: Tensor, class_idx: ClassIdx) -> Tensor:
    """Return the logits (B, M) of the M classes to explain, of logits (B, K).

    Raises
    ------
    MethodError
        The logits do not have the shape (B, K).
    OptionError
        A class index is out of range, or there is not one for each image.
    """
    chosen = index_classes(logits, class_idx)
    return logits.gather(1, chosen)


def check_logits(logits: object) -> None:
    """Raise `MethodError` unless these are logits (B, K)."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise MethodError(
            f"A classifier must return logits of shape (batch, classes), got {got}. "
            "Give the network without its loss, or wrap it so that it returns the logits alone."
        )


def index_classes(logits: Tensor, class_idx: ClassIdx) -> Tensor:
    """Return the indices (B, M) of the classes to explain; see `select_logits`."""
    check_logits(logits)
    batch, count = logits.shape
    if class_idx is None:
        return torch.arange(count, device=logits.device).expand(batch, count)
    check_class_count(class_idx, batch)
    try:
        chosen = torch.as_tensor(class_idx, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"class_idx must be a whole number or several, got {class_idx!r}."
        ) from error
    if chosen.dtype not in (torch.int64, torch.int32) or chosen.ndim > 1 or not chosen.numel():
        raise OptionError(f"class_idx must be whole numbers, at least one, got {class_idx!r}.")
    if chosen.min() < 0 or chosen.max() >= count:
        raise OptionError(
            f"class_idx must lie in 0 to {count - 1}, because the network gives {count} "
            f"logit(s), got {class_idx!r}."
        )
    if isinstance(class_idx, Tensor) and chosen.ndim == 1:
        return chosen.long()[:, None]
    return chosen.long().reshape(1, -1).expand(batch, -1)


def check_class_count(class_idx: ClassIdx, count: int) -> None:
    """Raise `OptionError` if a tensor does not give one class for each of so many images."""
    if not isinstance(class_idx, Tensor) or class_idx.ndim == 0:
        return
    if class_idx.shape != (count,):
        raise OptionError(
            f"A class_idx tensor must give one class for each of the {count} images, shape "
            f"({count},), got shape {tuple(class_idx.shape)}. Give a list to explain several "
            "classes of every image."
        )


def differentiate(
    scores: Tensor, inputs: Sequence[Tensor], keep_graph: bool = False
) -> list[Tensor]:
    """Return the gradient of each column of `scores` (B, M) by each input.

    Images of a batch do not see one another, so one backward pass a column serves them all.

    Returns
    -------
    list of Tensor
        One (B, M, *shape) for each input (B, *shape); zero where a score does not depend on it.
    """
    columns = scores.unbind(1)
    last = len(columns) - 1
    by_column = [
        torch.autograd.grad(
            column.sum(), inputs, retain_graph=keep_graph or at < last, materialize_grads=True
        )
        for at, column in enumerate(columns)
    ]
    return [torch.stack(gradients, dim=1) for gradients in zip(*by_column, strict=True)]
