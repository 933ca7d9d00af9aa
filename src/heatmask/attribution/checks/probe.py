"""A network on trial: a private copy in double precision, and a synthetic image to show it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from heatmask.attribution.checks.operations import EndWatch
from heatmask.attribution.frozen import copy_frozen
from heatmask.errors import HeatmaskError, InputError

NETWORK_ERRORS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
    NotImplementedError, ImportError, HeatmaskError,
)  # fmt: skip
"""What a network or a method raises that cannot work on an input."""

_EDGES = {1: (64, 256), 2: (32, 64), 3: (16, 32)}
"""Edges of the probe to try before the images' own, by number of spatial axes."""


class Subject:
    """A network to check, the probe to check it on, and its logits.

    Parameters
    ----------
    network
        A frozen copy: in double precision, or in single where it cannot run in that.
    images
        The probe (2, C, *spatial) of the network's type: smooth and positive, and without a
        plateau, where the gradient of a pooling or a ReLU is a matter of taste. One is dim
        and one is bright.

    Attributes
    ----------
    logits : Tensor
        (2, K), of the probe; what the network gives, if that are no logits.
    end : str
        What the network ends in, if that leaves no logits.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.network, self.images = network, images
        with EndWatch() as watch:
            self.logits = self.run(images)
        self.end = watch.name_end(self.logits)
        self._alone = [self.run(image[None]) for image in images]

    @property
    def alone(self) -> Tensor:
        """Logits (2, K) of each image of the probe alone."""
        return torch.cat(self._alone)

    @property
    def exact(self) -> bool:
        """Whether the copy is in double precision."""
        return self.images.dtype == torch.float64

    def copy(self) -> nn.Module:
        """Return a copy to hook or change."""
        return copy_frozen(self.network)

    def call(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the logits by a copy, computed in the probe's precision throughout."""
        context: AbstractContextManager = KeepDouble() if self.exact else nullcontext()
        with context:
            return network(images)

    @torch.no_grad()
    def run(self, images: Tensor | None = None) -> Tensor:
        """Return the logits of the probe, or of other images."""
        return self.call(self.network, self.images if images is None else images)

    @cached_property
    def hooked(self) -> nn.Module:
        """A copy for hooks that only look at a layer, or are removed."""
        return self.copy()

    @cached_property
    def single(self) -> tuple[nn.Module, Tensor]:
        """The network in single precision and the bright image alone, for what is costly."""
        return self.copy().float(), self.images[1:].float()

    def draw(self) -> Callable[[Tensor], Tensor]:
        """Return a function that draws standard normal numbers of a tensor's shape and type."""
        generator = torch.Generator().manual_seed(0)  # on the CPU: alike on every device

        def draw_like(tensor: Tensor) -> Tensor:
            return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

        return draw_like

    def draw_directions(self, count: int) -> Callable[[Tensor], Tensor]:
        """Return a function that draws directions (count, ...) as long as a tensor (1, ...)."""
        draw = self.draw()

        def draw_like(place: Tensor) -> Tensor:
            return draw(place.expand(count, *place.shape[1:])) * place.square().mean().sqrt()

        return draw_like


def prepare_subject(network: nn.Module, image_shape: Sequence[int]) -> Subject:
    """Return a copy of `network` and the smallest probe that it accepts.

    Parameters
    ----------
    network
        The classifier; it is left as it was.
    image_shape
        (C, *spatial) of its images.

    Raises
    ------
    InputError
        The network does not run on images of `image_shape` either.
    """
    channels, *spatial = image_shape
    if len(spatial) not in _EDGES:
        raise InputError(
            "image_shape must be (channels, *spatial) with 1 to 3 spatial axes, "
            f"got {tuple(image_shape)}."
        )
    smaller = [[min(edge, n) for n in spatial] for edge in _EDGES[len(spatial)]]
    device = find_device(network)
    failure: Exception | None = None
    for shape in (*smaller, spatial):
        for dtype in (torch.float64, torch.float32):
            try:
                images = draw_probe([channels, *shape]).to(device, dtype)
                return Subject(copy_frozen(network).to(dtype), images)
            except NETWORK_ERRORS as error:
                failure = error
    if isinstance(failure, HeatmaskError):
        raise failure
    raise InputError(
        f"{type(network).__name__} must run on images of shape (batch, "
        f"{', '.join(map(str, image_shape))}), and raised {type(failure).__name__}: {failure}"
    ) from failure


def draw_probe(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Return the probe (2, C, *spatial) for a shape (C, *spatial): float64, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    channels, *spatial = shape
    coarse = torch.rand((1, channels, *[5] * len(spatial)), generator=generator).double()
    grain = torch.rand((1, *shape), generator=generator).double()
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(spatial)]
    smooth = F.interpolate(coarse, size=tuple(spatial), mode=mode, align_corners=True)
    image = 0.2 + smooth + 0.1 * grain
    return torch.cat([0.5 * image.flip(-1), 1.5 * image])


class KeepDouble(TorchFunctionMode):
    """Context in which a network that asks for single precision or less gets double.

    Some pool or normalise in single precision whatever comes in; the rounding of that would
    hide a wrong gradient of a hundredth, and the smallest steps show it best.
    """

    _NARROW = (torch.float32, torch.float16, torch.bfloat16)
    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace the type asked for."""
        kwargs = dict(kwargs or {})
        if func in self._CASTS:
            return args[0].double()
        if func in (torch.Tensor.to, torch.Tensor.type):
            args = tuple(self._widen(value) for value in args)
        if "dtype" in kwargs:
            kwargs["dtype"] = self._widen(kwargs["dtype"])
        return func(*args, **kwargs)

    def _widen(self, value: Any) -> Any:
        # A tensor is compared by its type first: == would compare its elements.
        return torch.float64 if isinstance(value, torch.dtype) and value in self._NARROW else value


def find_device(network: nn.Module) -> torch.device:
    """Return where a network lies; the CPU for one without tensors."""
    groups: tuple[Iterable[Tensor], ...] = (network.parameters(), network.buffers())
    return next((tensor.device for group in groups for tensor in group), torch.device("cpu"))
