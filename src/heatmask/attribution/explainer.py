"""From any classifier to logits and attribution, by the name of a method."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import UnionType
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution.baselines import fit_baseline
from heatmask.attribution.classes import ClassIdx, check_logits
from heatmask.attribution.frozen import copy_frozen, find_bare
from heatmask.attribution.grid import resize_to
from heatmask.attribution.registry import get_method
from heatmask.attribution.views import average_views
from heatmask.errors import InputError, MethodError, OptionError


class Explanation(NamedTuple):
    """What a classifier said of images, and why."""

    logits: Tensor
    """(B, K), float32."""
    attribution: Tensor
    """(B, M, *spatial) on the images' grid, float32, signed and unnormalised."""


class Explainer:
    """An attribution method with its options, ready to be called on classifiers.

    Parameters
    ----------
    method
        Name of a method: `heatmask methods` lists them.
    target_layer
        Dotted path of the layer, or several for multi-stage methods; None for the last map.
        Methods that look at no layer pass it by.
    baseline
        The image that shows nothing, broadcast to (B, C, *spatial); None for zeros. Methods
        without a baseline pass it by.
    seed
        Seed of the methods that draw random numbers.
    flips
        Average over mirrored copies along each of these spatial axes (test-time augmentation).
    scales
        Average over copies resized by these factors (multi-scale).
    options
        The method's own; see docs/reference/attribution.md.

    Raises
    ------
    OptionError
        There is no such method, it has no such option, or an option is of another type.

    Notes
    -----
    It holds no state between calls and works on a private copy of the network, so threads
    may share both.
    """

    def __init__(
        self,
        method: str,
        target_layer: str | Sequence[str] | None = None,
        baseline: Tensor | float | None = None,
        seed: int = 0,
        flips: Sequence[int] = (),
        scales: Sequence[float] = (1.0,),
        **options: Any,
    ) -> None:
        self.method = get_method(method)
        known = self.method.options
        for name in options:
            if name not in known:
                close = get_close_matches(name, known, cutoff=0.5) or list(known) or ["none"]
                raise OptionError(
                    f"{method} has no option {name!r}. Its options: {', '.join(close)}."
                )
        _check_types(target_layer, flips, scales)
        shared = {"target_layer": target_layer, "baseline": baseline, "seed": seed}
        self.options = {k: v for k, v in shared.items() if k in known} | options
        self.flips, self.scales = tuple(flips), tuple(scales)
        self._shown = "baselines" if "baselines" in known else "baseline"

    def __call__(
        self, network: nn.Module, images: Tensor, class_idx: ClassIdx = None
    ) -> Explanation:
        """Explain a batch in one go; `heatmask.attribution.explain` cuts large ones.

        Parameters
        ----------
        network
            The classifier: images (B, C, *spatial) to logits (B, K). It is left as it was.
        images
            (B, C, H, W) or (B, C, X, Y, Z), on the network's device.
        class_idx
            The class explained: None for all K, an int or a list for the same of every image,
            a tensor (B,) for one of each image.

        Raises
        ------
        MethodError
            The method cannot explain this network, or images, logits or attribution are not
            finite.
        InputError
            The images do not fit the network.
        """
        check_images(images, network)
        plain = images.as_tensor() if isinstance(images, MetaTensor) else images
        check_finite(self.method.name, network, images=plain)
        with torch.inference_mode(False), torch.enable_grad():
            plain = plain.detach().clone() if plain.is_inference() else plain.detach()
            logits, attribution = average_views(
                self._attribute, network, plain, class_idx, self.flips, self.scales,
                self.options.get(self._shown), self.method.size_power,
            )  # fmt: skip
        attribution = resize_to(attribution.detach().float(), plain.shape[2:])
        check_finite(self.method.name, network, logits=logits, attribution=attribution)
        return Explanation(logits.detach().float(), attribution)

    def _copy(self, network: nn.Module) -> nn.Module:
        training = any(getattr(module, "training", False) for module in network.modules())
        if self.method.family == "inherent" and not training:
            return network  # one forward leaves it alone, and a copy takes milliseconds
        private = copy_frozen(network)
        # A network may work in place on what it gets.
        private.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))
        private.register_forward_hook(lambda _, inputs, output: check_logits(output))
        return private

    def _attribute(
        self,
        network: nn.Module,
        images: Tensor,
        class_idx: ClassIdx,
        baseline: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        options = self.options if baseline is None else self.options | {self._shown: baseline}
        with name_mismatch(images):
            return self.method.function(self._copy(network), images, class_idx, **options)

    def check_baseline(self, images: Tensor) -> None:
        """Raise `OptionError` unless the baseline fits all the images (N, C, *spatial)."""
        baseline = self.options.get("baseline")
        if baseline is not None:
            fit_baseline(baseline, images)

    def take_part(self, part: slice, count: int) -> "Explainer":
        """Return the explainer for a part of so many images: a baseline of each goes along."""
        baseline = self.options.get("baseline")
        if not isinstance(baseline, Tensor) or baseline.ndim < 3:
            return self
        if count == 1 or len(baseline) != count:
            return self
        twin = copy.copy(self)
        twin.options = {**self.options, "baseline": baseline[part]}
        return twin


def _check_types(target_layer: object, flips: object, scales: object) -> None:
    several = _are_all(target_layer, str)
    if target_layer is not None and not isinstance(target_layer, str) and not several:
        raise OptionError(f"target_layer must be a dotted path or several, got {target_layer!r}.")
    if not _are_all(flips, int):
        raise OptionError(f"flips must be several whole numbers, as in (0,), got {flips!r}.")
    if not _are_all(scales, int | float):
        raise OptionError(f"scales must be several numbers, as in (1.0, 0.5), got {scales!r}.")


def _are_all(given: object, kind: type | UnionType) -> bool:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return False
    return all(isinstance(one, kind) for one in given)


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
