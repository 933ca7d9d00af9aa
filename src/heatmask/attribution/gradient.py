"""Methods that differentiate a class logit by the image.

One forward pass serves all classes and all ReLU rules. The attribution is summed over the
input channels, which keeps completeness where a method has it, unless the docstring says
otherwise.

Captum gives the same numbers for saliency, input x gradient and integrated gradients, but runs
a forward pass for each class: as fast for one class, 1.4 times as long for three (of a ResNet-18
on one core, `benchmarks/beside_captum.py`). Its noise tunnel and gradient SHAP draw from the
global generator, so that an image's result depends on its batch and on what ran before.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, differentiate, select_logits
from heatmask.attribution.images import draw_flat_baselines, fit_background, fit_baseline
from heatmask.attribution.registry import Explained, check_count, register
from heatmask.attribution.relu_rules import ReluRules, Rule
from heatmask.errors import OptionError
from heatmask.progress import advance


def backpropagate(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, rules: Sequence[Rule] = ("plain",)
) -> tuple[Tensor, dict[Rule, Tensor]]:
    """Return the logits and, for each ReLU rule, the gradients (B, M, C, *spatial).

    All rules share one forward pass: three cost less than two of them apart.

    Raises
    ------
    MethodError
        A rule other than ``"plain"`` is asked for, and the network calls no ReLU.
    """
    advance(0)  # one of many passes of some methods
    images = images.detach().requires_grad_()
    relus = ReluRules()
    if set(rules) == {"plain"}:  # autograd's own ReLU is faster
        logits = network(images)
    else:
        with relus:
            logits = network(images)
        relus.require_calls(network)
    scores = select_logits(logits, class_idx)
    gradients: dict[Rule, Tensor] = {}
    for rule in rules:
        relus.rule = rule
        (gradients[rule],) = differentiate(scores, [images], keep_graph=rule != rules[-1])
    return logits.detach(), gradients


@register(
    "saliency", family="gradient", passes=2, paper="Simonyan et al. 2014, arXiv 1312.6034",
)  # fmt: skip
def explain_by_saliency(network: nn.Module, images: Tensor, class_idx: ClassIdx) -> Explained:
    """Magnitude of the gradient: the largest over the input channels, never negative."""
    logits, gradients = backpropagate(network, images, class_idx)
    return logits, gradients["plain"].abs().amax(dim=2)


@register(
    "input_x_gradient", family="gradient", passes=2,
    paper="Shrikumar et al. 2016, arXiv 1605.01713",
)  # fmt: skip
def explain_by_input_x_gradient(
    network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> Explained:
    """The gradient times the image."""
    logits, gradients = backpropagate(network, images, class_idx)
    return logits, (gradients["plain"] * images[:, None]).sum(2)


@register(
    "guided_backprop", family="gradient", needs=("gradients", "relu"), passes=2,
    paper="Springenberg et al. 2015, arXiv 1412.6806",
    source="Heatmask: Captum and MONAI gate only nn.ReLU modules, or none",
)  # fmt: skip
def explain_by_guided_backprop(
    network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> Explained:
    """The gradient along paths whose ReLUs see a positive input and a positive gradient.

    It largely recovers the image's edges whatever the weights (Nie et al. 2018,
    arXiv 1805.07039): compare with random weights before believing it.
    """
    logits, gradients = backpropagate(network, images, class_idx, ["guided"])
    return logits, gradients["guided"].sum(2)


@register(
    "deconvolution", family="gradient", needs=("gradients", "relu"), passes=2,
    paper="Zeiler and Fergus 2014, arXiv 1311.2901",
    source="Heatmask: Captum and MONAI gate only nn.ReLU modules, or none",
)  # fmt: skip
def explain_by_deconvolution(network: nn.Module, images: Tensor, class_idx: ClassIdx) -> Explained:
    """The gradient along paths whose ReLUs see a positive gradient."""
    logits, gradients = backpropagate(network, images, class_idx, ["deconvolution"])
    return logits, gradients["deconvolution"].sum(2)


@register(
    "smoothgrad", family="gradient", passes=(2, "samples"),
    paper="Smilkov et al. 2017, arXiv 1706.03825",
)  # fmt: skip
def explain_by_smoothgrad(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int = 16,
    noise: float = 0.15,
    seed: int = 0,
) -> Explained:
    """The gradient, averaged over noisy copies of the image.

    `noise` is the standard deviation as a share of each image's range. All images of a
    batch get the same pattern, so that an image's result does not depend on its batch.
    """
    return _average_noisy(network, images, class_idx, samples, noise, seed, power=1)


@register(
    "smoothgrad_squared",
    family="gradient",
    passes=(2, "samples"),
    paper="Hooker et al. 2019, arXiv 1806.10758",
    size_power=2,  # gradients, squared
)
def explain_by_smoothgrad_squared(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int = 16,
    noise: float = 0.15,
    seed: int = 0,
) -> Explained:
    """The squared gradient, averaged over noisy copies of the image (see smoothgrad)."""
    return _average_noisy(network, images, class_idx, samples, noise, seed, power=2)


@register(
    "integrated_gradients", family="gradient", needs=("gradients", "baseline"),
    invariants=("completeness",), passes=(2, "steps"),
    paper="Sundararajan et al. 2017, arXiv 1703.01365",
    source="Heatmask: Captum's takes 1.4 times as long for three classes",
)  # fmt: skip
def explain_by_integrated_gradients(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    steps: int = 32,
    baseline: Tensor | float | None = None,
) -> Explained:
    """The gradient integrated from a baseline to the image, times their difference.

    Gauss-Legendre points, one batch a step, so that memory does not grow with `steps`.
    """
    check_count("steps", steps)
    start = fit_baseline(baseline, images)
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = images.new_zeros(())
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        _, gradients = backpropagate(network, start + float(point) * (images - start), class_idx)
        total = total + float(weight) * gradients["plain"]
    return _run_plainly(network, images), (total * (images - start)[:, None]).sum(2)


@register(
    "gradient_shap", family="gradient", needs=("gradients", "baseline"), passes=(2, "samples"),
    paper="Lundberg and Lee 2017, arXiv 1705.07874",
    source="Heatmask: Captum's draws depend on the batch",
)  # fmt: skip
def explain_by_gradient_shap(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int = 16,
    noise: float = 0.1,
    baseline: Tensor | float | None = None,
    seed: int = 0,
) -> Explained:
    """The gradient at random points between baseline and noisy image, times their difference.

    `noise` as in smoothgrad. Completeness holds on average over draws only.
    """
    start, scale = fit_baseline(baseline, images), _scale_noise(noise, images)

    def draw_path(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return start, images + scale * _draw_noise(images, generator)

    return _average_paths(network, images, class_idx, samples, seed, draw_path)


@register(
    "expected_gradients", family="gradient", needs=("gradients", "baseline"),
    passes=(2, "samples"), paper="Erion et al. 2021, arXiv 1906.10670",
)  # fmt: skip
def explain_by_expected_gradients(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int = 32,
    baselines: Tensor | float | None = None,
    seed: int = 0,
) -> Explained:
    """Integrated gradients, averaged over baselines drawn from a background set.

    `baselines` is that set, (N, C, *spatial); a number is a set of one image. Without one the
    draws are flat heads: the image's non-zero pixels filled with one level between its 5th and
    95th percentile. Completeness holds on average over draws only.
    """
    background = None if baselines is None else fit_background(baselines, images)

    def draw_path(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if background is None:
            return draw_flat_baselines(images, torch.rand((), generator=generator).item()), images
        drawn = int(torch.randint(len(background), (), generator=generator))
        return background[drawn : drawn + 1], images

    return _average_paths(network, images, class_idx, samples, seed, draw_path)


def _average_paths(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int,
    seed: int,
    draw_path: Callable[[torch.Generator], tuple[Tensor, Tensor]],
) -> Explained:
    """Average the gradient at a random point of paths (start, end), times their difference."""
    generator = torch.Generator().manual_seed(seed)
    total = images.new_zeros(())
    for _ in range(check_count("samples", samples)):
        start, end = draw_path(generator)
        share = torch.rand((), generator=generator).item()
        _, gradients = backpropagate(network, start + share * (end - start), class_idx)
        total = total + (gradients["plain"] * (end - start)[:, None]).sum(2)
    return _run_plainly(network, images), total / samples


def _average_noisy(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    samples: int,
    noise: float,
    seed: int,
    power: int,
) -> Explained:
    generator = torch.Generator().manual_seed(seed)
    scale = _scale_noise(noise, images)
    total = images.new_zeros(())
    for _ in range(check_count("samples", samples)):
        noisy = images + scale * _draw_noise(images, generator)
        _, gradients = backpropagate(network, noisy, class_idx)
        gradient = gradients["plain"].to(torch.promote_types(images.dtype, torch.float32))
        total = total + gradient.pow(power).sum(2)  # a square may be too small for half precision
    return _run_plainly(network, images), total / samples


def _scale_noise(noise: float, images: Tensor) -> Tensor:
    if not noise >= 0:
        raise OptionError(f"noise must be at least 0, got {noise!r}.")
    flat = images.flatten(1)
    span = flat.amax(1) - flat.amin(1)
    return noise * span.reshape(-1, *[1] * (images.ndim - 1))


def _draw_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal (1, C, *spatial), the same for every image and on every device."""
    return torch.randn((1, *images.shape[1:]), generator=generator).to(images)


@torch.no_grad()
def _run_plainly(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)
