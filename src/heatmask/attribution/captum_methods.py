"""Methods that Captum computes, through one adapter: what it has and we lack.

What we compute ourselves although Captum has it, says why in its own module
(`heatmask.attribution.gradient`, `deep_lift`, `relu_rules`, `cam.channel`, `perturbation.methods`).
Captum is imported when it is first needed: it takes a tenth of a second.

Captum draws from torch's global generator, which other threads share, and explains a class at a
time. Here the draws come from a generator of the call's own, every image is explained alone, from
the same draws, and all classes from the same forwards.
"""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.images import fit_baseline
from heatmask.attribution.memory import run_in_parts
from heatmask.attribution.perturbation.ablation import choose_batch_size
from heatmask.attribution.perturbation.superpixels import find_superpixels
from heatmask.attribution.registry import Explained, check_count, register
from heatmask.errors import OptionError

Classify = Callable[[Tensor], Tensor]
"""Images (B, C, *spatial) to logits (B, K)."""

MakeMethod = Callable[[Any], Any]
"""A class of `captum.attr`, or what makes one of its objects for a network."""

Prepare = Callable[..., tuple[MakeMethod, int]]
"""From a method's own options to what makes it, and Captum's ``n_samples``."""


def run_captum(
    make: MakeMethod,
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    seed: int = 0,
    **arguments: Any,
) -> Explained:
    """Return logits (B, K) and what Captum gives (B, M, *spatial), summed over channels.

    For a method of your own: ``run_captum(captum.attr.Saliency, network, images, class_idx)``.
    One that draws an image's numbers together with those of its batch is not for this.

    Parameters
    ----------
    make
        A class of `captum.attr`, or what makes one of its objects for a network.
    network, images, class_idx
        As a method gets them: see `heatmask.attribution.register`.
    seed
        Of what the method draws.
    arguments
        Of the method's ``attribute``.
    """
    with torch.no_grad():
        logits = network(images)
    columns = index_classes(logits, class_idx).unbind(1)
    by_class = [_ask(make(network), images, target, seed, **arguments) for target in columns]
    return logits, torch.stack(by_class, dim=1).sum(2)


def register_on_superpixels(name: str, **entry: Any) -> Callable[[Prepare], Prepare]:
    """Register a method on superpixels, as a decorator of what prepares it (see `Prepare`).

    Its options are those of the decorated function, whose docstring is the method's, and those
    of `explain_superpixels`.
    """

    def add(prepare: Prepare) -> Prepare:
        own = inspect.signature(prepare).parameters

        def explain(network: nn.Module, images: Tensor, class_idx: ClassIdx, **given: Any) -> Any:
            make, samples = prepare(**{k: given.pop(k) for k in own if k in given})
            return explain_superpixels(network, images, class_idx, make, samples, **given)

        passed_on = list(inspect.signature(explain_superpixels).parameters.values())
        explain.__doc__ = prepare.__doc__
        explain.__signature__ = inspect.Signature([*passed_on[:3], *own.values(), *passed_on[5:]])  # type: ignore[attr-defined]
        register(name, family="perturbation", needs=("baseline",), source="Captum", **entry)(
            explain
        )
        return prepare

    return add


@torch.no_grad()
def explain_superpixels(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    make: MakeMethod,
    n_samples: int,
    segments: int = 32,
    compactness: float = 0.1,
    baseline: Tensor | float | None = None,
    seed: int = 0,
) -> Explained:
    """Return logits (B, K) and a method's value (B, M, *spatial) of each pixel's superpixel.

    Each image is explained alone. Pixels that belong to no superpixel are never changed.
    """
    start = fit_baseline(baseline, images).expand(images.shape)
    labels = find_superpixels(images, segments, compactness)
    start = torch.where(labels[:, None] == 0, images, start)
    logits = network(images)
    chosen = index_classes(logits, class_idx)
    maps = []
    for image, nothing, label, targets in zip(
        images.split(1), start.split(1), labels, chosen, strict=True
    ):
        # What belongs to no superpixel joins the first, which it changes in nothing.
        regions = label.clamp(min=1).unique(return_inverse=True)[1][None, None]
        if regions.any():
            begin, arguments = _keep_logits(network), {
                "baselines": nothing, "feature_mask": regions, "n_samples": n_samples,
                "perturbations_per_eval": choose_batch_size(image),
            }  # fmt: skip
            values = torch.stack(
                [_ask(make(begin()), image, k[None], seed, **arguments)[0, 0] for k in targets]
            )
        else:  # one superpixel, or none: it has all of the change
            change = (network(image) - network(nothing))[0, targets]
            values = change.reshape(-1, *[1] * label.ndim)
        maps.append(values.where(label > 0, 0))
    return logits, torch.stack(maps)


@register_on_superpixels(
    "shapley_sampling", cost="1 forward × superpixels × samples",
    paper="Castro et al. 2009, doi 10.1016/j.cor.2008.04.004",
)  # fmt: skip
def prepare_shapley_sampling(samples: int = 16) -> tuple[MakeMethod, int]:
    """Gain of the logit when a superpixel joins others, averaged over random orders.

    The Shapley values of superpixels: for any number of `samples` they sum to the logit minus
    that of the baseline. As in feature_ablation each pixel gets the whole value of its
    superpixel, and pixels of zeros belong to none.
    """
    from captum.attr import ShapleyValueSampling

    return ShapleyValueSampling, check_count("samples", samples)


@register_on_superpixels(
    "kernel_shap", passes=(1, "samples"), paper="Lundberg and Lee 2017, arXiv 1705.07874"
)
def prepare_kernel_shap(samples: int = 256) -> tuple[MakeMethod, int]:
    """Shapley values of superpixels, as the linear model that fits images without some of them.

    Of `samples` such images, beside the one with all superpixels and the one with none: take
    several times as many as `segments`. Pixels as in shapley_sampling.
    """
    from captum.attr import KernelShap

    return KernelShap, check_count("samples", samples) + 2


@register_on_superpixels(
    "lime", passes=(1, "samples"), paper="Ribeiro et al. 2016, arXiv 1602.04938"
)
def prepare_lime(samples: int = 256, kernel_width: float = 0.25) -> tuple[MakeMethod, int]:
    """Weights of superpixels in the linear model that fits images without half of them.

    A ridge regression, as in the authors' code. Images count the less, the farther they are
    from the whole one: by a Gaussian of the cosine distance, `kernel_width` wide. Pixels as in
    shapley_sampling.
    """
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    if not kernel_width > 0:
        raise OptionError(f"kernel_width must be greater than 0, got {kernel_width!r}.")
    kernel = get_exp_kernel_similarity_function("cosine", kernel_width)
    make = partial(Lime, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=kernel)
    return make, check_count("samples", samples)


def _ask(method: Any, images: Tensor, targets: Tensor, seed: int, **arguments: Any) -> Tensor:
    """Return what a method of Captum gives (B, C, *spatial) of images and a class (B,) of each."""
    with SeededDraws(seed):
        values: Tensor = method.attribute(images, target=targets, **arguments)
    return values.detach()


def _keep_logits(network: nn.Module) -> Callable[[], Classify]:
    """Return what begins a replay: the n-th call of each gives the same logits, from one forward.

    Every class asks for the same images in the same order, because it draws the same numbers.
    """
    kept: list[Tensor] = []

    def begin() -> Classify:
        calls = count()

        def classify(images: Tensor) -> Tensor:
            call = next(calls)
            if call == len(kept):
                parts = run_in_parts(
                    lambda part: network(images[part]), 0, len(images), len(images)
                )
                kept.append(torch.cat(parts))
            return kept[call]

        return classify

    return begin


class SeededDraws(TorchFunctionMode):
    """Context in which torch draws from a generator of its own, in this thread alone."""

    _DRAWS = frozenset(
        getattr(home, name)
        for home, names in (
            (torch, "rand randn randint randperm normal bernoulli multinomial"),
            (Tensor, "random_ normal_ uniform_ bernoulli bernoulli_ multinomial exponential_"),
            (nn.init, "uniform_ normal_ kaiming_uniform_ kaiming_normal_"),
        )
        for name in names.split()
    )

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call, with the generator if it draws."""
        kwargs = dict(kwargs or {})
        if func in self._DRAWS:
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)
