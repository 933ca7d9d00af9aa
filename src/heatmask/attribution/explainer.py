"""From any classifier to logits and attribution, by the name of a method."""

import copy
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, check_logits
from heatmask.attribution.frozen import copy_frozen, recall
from heatmask.attribution.images import (
    check_finite,
    check_images,
    fit_baseline,
    name_mismatch,
    resize_to,
    view_baseline,
)
from heatmask.attribution.layers import find_stages
from heatmask.attribution.registry import get_method
from heatmask.errors import OptionError


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
        Methods that look at no layer ignore it.
    baseline
        The image that shows nothing, broadcast to (B, C, *spatial); None for zeros. Methods
        without a baseline ignore it.
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

    def _attribute(
        self,
        network: nn.Module,
        images: Tensor,
        class_idx: ClassIdx,
        baseline: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        options = self.options | ({} if baseline is None else {self._shown: baseline})
        with name_mismatch(images):
            private = self._copy(network)
            if "target_layer" in options and options["target_layer"] is None:
                options["target_layer"] = self.find_layers(network, images, private)
            return self.method.function(private, images, class_idx, **options)

    def _copy(self, network: nn.Module) -> nn.Module:
        training = any(getattr(module, "training", False) for module in network.modules())
        if self.method.family == "inherent" and not training:
            return network  # one forward leaves it alone, and a copy takes milliseconds
        private = copy_frozen(network)
        # A network may work in place on what it gets.
        private.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))
        private.register_forward_hook(lambda _, inputs, output: check_logits(output))
        return private

    def find_layers(
        self, network: nn.Module, images: Tensor, private: nn.Module | None = None
    ) -> tuple[str, ...]:
        """Return the layers that the method looks at in images of this size.

        They are found once for a network as it is: one forward pass of one image.

        Raises
        ------
        MethodError
            No layer gives a map on which the logits depend.
        """
        given = self.options.get("target_layer")
        if given is not None:
            return (given,) if isinstance(given, str) else tuple(given)
        known, key = recall(network), ("stages", images.shape[1:])
        if key not in known:
            known[key] = find_stages(private or copy_frozen(network), images)
        return known[key] if self.method.several_layers else known[key][-1:]

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


def average_views(
    attribute: Callable[..., tuple[Tensor, Tensor]],
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    flips: Sequence[int],
    scales: Sequence[float],
    baseline: Tensor | float | None = None,
    power: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return logits and attribution, averaged over mirrored and resized views of the images.

    At each scale there is a view without flip, and one for each of `flips`.

    Parameters
    ----------
    attribute
        A method with its options: ``attribute(network, images, class_idx)``.
    flips
        Spatial axes; each is mirrored once, alone.
    scales
        Factors of the spatial size.
    baseline
        As of the method. An image is mirrored and resized with the views, and passed on as
        ``attribute(..., baseline=...)``; one that is alike along an axis, or a number, is left
        to the method's options.
    power
        How the method's values go with the number of pixels: `size_power` of
        `heatmask.attribution.registry.Method`.

    Returns
    -------
    tuple of Tensor
        The logits are those of the first scale without flip; the attributions are averaged on
        the finest grid among the views. Their values are for pixels of `images`: a complete
        method's map, on the grid of `images`, sums to the mean of what its views sum to.

    Raises
    ------
    OptionError
        An axis is not there, a factor is not positive, or the baseline is of another size.
    """
    spatial = images.shape[2:]
    if any(not 0 <= axis < len(spatial) for axis in flips):
        raise OptionError(f"flips must be axes from 0 to {len(spatial) - 1}, got {tuple(flips)}.")
    if not scales or min(scales) <= 0:
        raise OptionError(f"scales must be positive, at least one, got {tuple(scales)}.")
    views = [(scale, axis) for scale in scales for axis in (None, *flips)]
    if views == [(1.0, None)]:
        return attribute(network, images, class_idx)
    shown = None
    if isinstance(baseline, Tensor) and any(n > 1 for n in baseline.shape[-len(spatial) :]):
        shown = view_baseline(baseline, spatial).to(images)

    results = []
    for scale, axis in views:
        options = {} if shown is None else {"baseline": _view(shown, scale, axis)}
        view = _view(images, scale, axis)
        logits, attribution = attribute(network, view, class_idx, **options)
        share = view.shape[2:].numel() / spatial.numel()
        results.append((logits, share**power * _mirror(attribution.detach(), axis)))
    grid = max((attribution.shape[2:] for _, attribution in results), key=lambda s: s.numel())
    maps = [resize_to(attribution, grid) for _, attribution in results]
    return results[0][0], torch.stack(maps).mean(dim=0)


def _view(images: Tensor, scale: float, axis: int | None) -> Tensor:
    if scale != 1:
        images = resize_to(images, [max(1, round(n * scale)) for n in images.shape[2:]])
    return _mirror(images, axis)


def _mirror(images: Tensor, axis: int | None) -> Tensor:
    """Mirror images (B, C, *spatial) along a spatial axis, or back."""
    return images if axis is None else images.flip(axis + 2)


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
