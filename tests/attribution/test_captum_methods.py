"""Captum's methods through the adapter: Captum itself, closed forms, and completeness."""

from functools import partial
from typing import Any

import pytest
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor, nn

from heatmask.attribution import get_method, register, registry
from heatmask.attribution.captum_methods import run_captum
from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.perturbation.superpixels import find_superpixels
from heatmask.errors import OptionError
from helpers.attribution_cases import CONVS, assert_close, attribute, explain

NAMES = ["shapley_sampling", "kernel_shap", "lime"]
SHAPLEY = ["shapley_sampling", "kernel_shap"]
SIZES = {2: (12, 10), 3: (6, 8, 5)}
CUT = {"segments": 6, "compactness": 10.0}


class Counting(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.batches = network, [0]

    def forward(self, images: Tensor) -> Tensor:
        self.batches[0] += 1
        return self.network(images)

    def __deepcopy__(self, memo: dict) -> "Counting":
        return self


def draw_images(dims: int) -> Tensor:
    images = torch.rand(2, 2, *SIZES[dims], generator=torch.Generator().manual_seed(dims))
    images[0, :, :4] = 0  # background, in one of them
    return images


def make_small(dims: int) -> nn.Module:
    torch.manual_seed(0)
    conv, head = CONVS[dims](2, 4, 3), nn.LazyLinear(3)
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head)
    network(draw_images(dims))
    return network.eval()


def make_linear(dims: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * torch.Size(SIZES[dims]).numel(), 3)).eval()


def sum_regions(maps: Tensor, labels: Tensor) -> Tensor:
    """Sum of the values (M,) of the superpixels: each pixel holds all of its superpixel's."""
    return torch.stack([maps[:, labels == n][:, 0] for n in labels.unique() if n > 0]).sum(0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_captum_gives_the_same(name: str, dims: int) -> None:
    """With the global generator at the seed, one image and one class at a time."""
    network, images, baseline = make_small(dims), draw_images(dims), 0.3
    makers: dict[str, Any] = {
        "shapley_sampling": attr.ShapleyValueSampling,
        "kernel_shap": attr.KernelShap,
        "lime": partial(
            attr.Lime,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=get_exp_kernel_similarity_function("cosine", 0.25),
        ),
    }
    samples = {"shapley_sampling": 3, "kernel_shap": 20, "lime": 20}[name]
    options = {"samples": samples, "baseline": baseline, "seed": 7, **CUT}
    _, found = attribute(network, images, name, [2, 0], **options)
    for index, label in enumerate(find_superpixels(images, 6, 10.0)):
        mask = label.clamp(min=1).unique(return_inverse=True)[1][None, None]
        start = torch.full_like(images[:1], baseline)
        start = torch.where(label == 0, images[index], start)
        for place, k in enumerate((2, 0)):
            torch.manual_seed(7)
            expected = makers[name](network).attribute(
                images[index : index + 1], baselines=start, target=k, feature_mask=mask,
                n_samples=samples + 2 * (name == "kernel_shap"),
            )  # fmt: skip
            expected = expected[0, 0].where(label > 0, 0)
            assert_close(found[index, place], expected, 1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SHAPLEY)
def test_of_a_linear_network(name: str, dims: int) -> None:
    """A superpixel's Shapley value is the sum of weights times distances from the baseline."""
    network, images, baseline = make_linear(dims), draw_images(dims), 0.3
    _, found = attribute(network, images, name, baseline=baseline, samples=60, **CUT)
    weight = network[1].weight.detach().reshape(3, *images.shape[1:])
    for image, label, maps in zip(images, find_superpixels(images, 6, 10.0), found, strict=True):
        parts = (weight * (image - baseline)).sum(1)
        expected = torch.zeros_like(maps)
        for number in label[label > 0].unique():
            expected[:, label == number] = parts[:, label == number].sum(1, keepdim=True)
        assert_close(maps, expected, 1e-3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SHAPLEY)
def test_shapley_values_are_complete(name: str, dims: int) -> None:
    network, images, baseline = make_small(dims), draw_images(dims), 0.3
    logits, found = attribute(network, images, name, baseline=baseline, samples=40, **CUT)
    labels = find_superpixels(images, 6, 10.0)
    without = network(images.where(labels[:, None] == 0, baseline)).detach()
    sums = torch.stack([sum_regions(*pair) for pair in zip(found, labels, strict=True)])
    assert_close(sums, logits - without, 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_background_belongs_to_nothing(name: str) -> None:
    network, images = make_small(2), draw_images(2)
    images[1] = 0
    _, found = attribute(network, images, name, baseline=1.0, samples=20, **CUT)
    assert (found[0][:, :4] == 0).all()
    assert (found[0][:, 4:] != 0).any()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_superpixel_has_all_of_the_change(name: str) -> None:
    images = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    inside = find_superpixels(images, 32, 0.1)[:, None] > 0  # noise falls into one and specks
    assert find_superpixels(images, 32, 0.1).max() == 1
    network = nn.Sequential(nn.Flatten(), nn.Linear(1600, 3)).eval()
    logits, found = attribute(network, images, name, samples=5)
    change = logits - network(images.where(~inside, 0)).detach()
    assert_close(found, change[..., None, None] * inside, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_all_classes_come_from_the_same_forwards(name: str) -> None:
    network = Counting(make_small(2))
    counts = []
    for class_idx in (1, None):
        network.batches[0] = 0
        attribute(network, draw_images(2), name, class_idx, samples=10, **CUT)
        counts.append(network.batches[0])
    assert counts[0] == counts[1] > 2


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_that_is_out_of_memory_gets_smaller_batches(name: str) -> None:
    class Small(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 3:
                raise torch.cuda.OutOfMemoryError("planted")
            return inner(images)

    inner = make_small(2)
    _, found = attribute(Small(), draw_images(2), name, samples=10, **CUT)
    _, expected = attribute(inner, draw_images(2), name, samples=10, **CUT)
    assert_close(found, expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *[(name, {"samples": 0}, "samples must be a whole number of at least 1") for name in NAMES],
        *[(name, {"segments": 0}, "segments must be a whole number") for name in NAMES],
        *[(name, {"baseline": torch.zeros(5)}, "A baseline must be") for name in NAMES],
        ("lime", {"kernel_width": 0}, "kernel_width must be greater than 0, got 0"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        explain(make_small(2), draw_images(2), name, **options)


def test_a_method_of_captum_by_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @register("captum_saliency", family="gradient", passes=2, paper="Simonyan et al. 2014")
    def explain_by_captum_saliency(
        network: nn.Module, images: Tensor, class_idx: ClassIdx
    ) -> tuple[Tensor, Tensor]:
        """Saliency, summed over channels."""
        return run_captum(attr.Saliency, network, images.requires_grad_(), class_idx)

    assert get_method("captum_saliency").summary == "Saliency, summed over channels."
    network, images = make_small(2), draw_images(2)
    classes = torch.tensor([2, 0])
    logits, found = explain(network, images, "captum_saliency", classes)
    leaf = images.clone().requires_grad_()
    scores = network(leaf).gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, leaf)
    assert_close(found, gradient.abs().sum(1, keepdim=True), 1e-5)
    assert_close(logits, network(images).detach(), 1e-6)


def test_draws_are_seeded_and_leave_the_global_generator_alone() -> None:
    def make(network: nn.Module) -> Any:
        return attr.NoiseTunnel(attr.Saliency(network))

    network, images = make_small(2), draw_images(2).requires_grad_()
    before = torch.random.get_rng_state()
    one, again, other = (
        run_captum(make, network, images, None, seed, nt_samples=3, stdevs=0.2)[1]
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
