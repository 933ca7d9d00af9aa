"""Windows at regular steps over images of any number of axes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatmask.attribution.registry import check_count
from heatmask.errors import OptionError


class WindowGrid:
    """Windows of one size that cover every pixel.

    Parameters
    ----------
    spatial
        Size of the images.
    window, stride
        Pixels an axis. A window larger than the images is cut to their size.
    device
        Where the masks and sums are made.

    Attributes
    ----------
    shape : tuple of int
        Number of windows along each axis, ``*grid`` below.
    pixels : int
        Pixels of a window.

    Notes
    -----
    Where the last step would carry a window over the border it is moved back inside, so that
    all windows are of one size and their effects compare. (Captum cuts it.)

    A window is a product of intervals. So a sum over windows or pixels is one small matrix
    product an axis, and the work does not grow with the overlap. In float64: autocast and
    TF32 leave that alone.
    """

    def __init__(
        self,
        spatial: Sequence[int],
        window: Sequence[int],
        stride: Sequence[int],
        device: torch.device,
    ) -> None:
        sizes = [min(w, n) for w, n in zip(window, spatial, strict=True)]
        self._covers = [
            _cover_axis(*axis).to(device) for axis in zip(spatial, sizes, stride, strict=True)
        ]
        self.shape = tuple(len(cover) for cover in self._covers)
        self.pixels = int(torch.tensor(sizes).prod())

    def draw(self, owners: Tensor, windows: Tensor) -> Tensor:
        """Return the masks (J, 1, *spatial) of windows by their place in the flattened grid."""
        axes = len(self.shape)
        mask = torch.ones(1, dtype=torch.bool, device=windows.device)
        for axis, places in enumerate(torch.unravel_index(windows, self.shape)):
            inside = self._covers[axis][places]
            tail = [1] * (axes - 1 - axis)
            mask = mask & inside.reshape(len(places), 1, *[1] * axis, -1, *tail)
        return mask

    def spread(self, values: Tensor) -> Tensor:
        """Return for each pixel the mean (..., *spatial) of the windows (..., *grid) over it."""
        return _apply_by_axis(values, [cover.double().T for cover in self._covers])

    def average(self, maps: Tensor) -> Tensor:
        """Return for each window the mean (..., *grid) of the pixels (..., *spatial) in it."""
        return _apply_by_axis(maps, [cover.double() for cover in self._covers])

    def find_touched(self, mask: Tensor) -> Tensor:
        """Return which windows (..., *grid) hold a pixel of a mask (..., *spatial)."""
        return self.average(mask) > 0

    def join(self, chosen: Tensor) -> Tensor:
        """Return the union (..., *spatial) of the chosen windows (..., *grid)."""
        return self.spread(chosen) > 0


def check_window(
    window: int | Sequence[int], stride: int | Sequence[int] | None, axes: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return window and stride in pixels an axis; the stride is half the window by default.

    Raises
    ------
    OptionError
        They are not whole positive numbers, one or one an axis, or a stride exceeds its
        window and would leave pixels uncovered.
    """
    windows = _repeat("window", window, axes)
    halves = tuple(max(1, w // 2) for w in windows)
    strides = halves if stride is None else _repeat("stride", stride, axes)
    if any(s > w for s, w in zip(strides, windows, strict=True)):
        raise OptionError(
            "stride must not exceed window, or pixels between two windows are never occluded, "
            f"got stride {stride!r} and window {window!r}."
        )
    return windows, strides


def _repeat(name: str, given: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = tuple(given) if isinstance(given, Sequence) else (given,) * axes
    if len(values) != axes:
        raise OptionError(
            f"{name} must be one number or one for each of the {axes} axes, got {given!r}."
        )
    return tuple(check_count(f"{name} (pixels)", value) for value in values)


def _cover_axis(size: int, window: int, stride: int) -> Tensor:
    """Return which pixels (windows, size) each window of an axis covers."""
    starts = torch.arange(0, size - window + stride, stride).clamp(max=size - window)[:, None]
    pixels = torch.arange(size)
    return (starts <= pixels) & (pixels < starts + window)


def _apply_by_axis(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Average (..., *from) to (..., *to) with one matrix (to, from) an axis."""
    values = values.double()
    for weight in weights:
        # The axis worked on goes to the end each time, so the next one comes to its place.
        matrix = weight / weight.sum(1, keepdim=True)
        values = torch.tensordot(values, matrix, dims=([values.ndim - len(weights)], [1]))
    return values
