"""Which class is explained, and the gradient of its logit."""

from collections.abc import Iterator, Mapping, Sequence

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
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.is_floating_point():
        return
    got, fix = _describe_tensor(logits) if isinstance(logits, Tensor) else _describe_object(logits)
    raise MethodError(
        f"A classifier must return logits of shape (batch, classes), got {got}. {fix}"
    )


def _describe_tensor(output: Tensor) -> tuple[str, str]:
    """Return what came in place of logits, and how to make logits of it."""
    got = f"{tuple(output.shape)}"
    if not output.is_floating_point():
        return f"{got} of {output.dtype}", "Return what comes before the argmax or the threshold."
    if output.ndim == 1:
        return got, "Add an axis for the class: return logits[:, None]."
    if output.shape[2:].numel() == 1:
        return got, "Drop the other axes: return logits.flatten(1)."
    return f"{got}, a map as of a segmentation network", (
        "Return one number for each class, such as the mean of its map: logits.flatten(2).mean(2)."
    )


def _describe_object(output: object) -> tuple[str, str]:
    """As `_describe_tensor`, for what is no tensor."""
    got = type(output).__name__
    if hasattr(output, "logits"):
        return got, "Wrap the network so that it returns output.logits."
    if isinstance(output, Mapping):
        keys = ", ".join(map(repr, output))
        return f"{got} with {keys}", "Wrap the network so that it returns the logits of these."
    if isinstance(output, Sequence):
        return f"{got} of {len(output)}", "Wrap the network so that it returns the logits of these."
    return got, "Wrap the network so that it returns the logits alone."


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

    Returns
    -------
    list of Tensor
        One (B, M, *shape) for each input (B, *shape); zero where a score does not depend on it.
    """
    by_column = zip(*iterate_gradients(scores, inputs, keep_graph), strict=True)
    return [torch.stack(gradients, dim=1) for gradients in by_column]


def iterate_gradients(
    scores: Tensor, inputs: Sequence[Tensor], keep_graph: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """Yield for each column of `scores` (B, M) its gradient (B, *shape) by each input (B, *shape).

    Images of a batch do not see one another, so one backward pass a column serves them all.
    """
    columns = scores.unbind(1)
    for at, column in enumerate(columns, start=1):
        yield torch.autograd.grad(
            column.sum(), inputs, retain_graph=keep_graph or at < len(columns),
            materialize_grads=True,
        )  # fmt: skip
