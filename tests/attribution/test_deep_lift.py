"""DeepLift: slopes in closed form, completeness on MONAI's networks, Captum where it is right."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import DenseNet121, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.errors import MethodError
from heatmask.networks.resnet import make_resnet
from helpers.attribution_cases import (
    SIZES,
    Hidden,
    assert_close,
    attribute,
    draw_images,
    explain,
    randomise,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU, in place": nn.ReLU(inplace=True),
    "nn.ReLU6": nn.ReLU6(),
    "nn.LeakyReLU": nn.LeakyReLU(0.2),
    "nn.PReLU": nn.PReLU(7).double(),
    "nn.ELU": nn.ELU(),
    "nn.CELU": nn.CELU(0.7),
    "nn.SELU, in place": nn.SELU(inplace=True),
    "nn.GELU": nn.GELU(),
    "nn.GELU, tanh": nn.GELU("tanh"),
    "nn.SiLU": nn.SiLU(),
    "nn.Mish": nn.Mish(),
    "nn.Softplus": nn.Softplus(2.0),
    "nn.Sigmoid": nn.Sigmoid(),
    "nn.Tanh": nn.Tanh(),
    "nn.Hardswish": nn.Hardswish(),
    "nn.Hardsigmoid": nn.Hardsigmoid(),
    "nn.Hardtanh, in place": nn.Hardtanh(inplace=True),
    "F.relu": F.relu,
    "F.relu, in place": lambda values: F.relu(values, inplace=True),
    "F.relu, keyword": lambda values: F.relu(input=values),
    "F.leaky_relu_": lambda values: F.leaky_relu_(values, 0.1),
    "torch.relu_": torch.relu_,
    "torch.celu_": torch.celu_,
    "Tensor.relu": lambda values: values.relu(),
    "Tensor.sigmoid_": lambda values: values.sigmoid_(),
    "Tensor.tanh": lambda values: values.tanh(),
    "Tensor.clamp": lambda values: values.clamp(-0.2, 0.3),
    "Tensor.abs": lambda values: values.abs(),
}


class Calls(nn.Module):
    """A function as a module, which no type of a module gives away."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_slopes_of_every_activation(kind: str) -> None:
    """The multiplier of a hidden unit is (f(z) - f(z0)) / (z - z0)."""
    network, images = Hidden(2, Calls(ACTIVATIONS[kind])), draw_images(2)
    baseline = draw_images(2, count=1, seed=9)
    high, low = network.find_levels(images), network.find_levels(baseline)
    rise = network.activation(high.clone()) - network.activation(low.clone())
    slopes = network.pull_back(network.weight * (rise / (high - low)).detach()[:, None], images)
    expected = (slopes * (images - baseline)[:, None]).sum(2)
    assert_close(attribute(network, images, "deep_lift", baseline=baseline)[1], expected, 1e-10)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SELU(inplace=True)])
def test_where_nothing_changes_it_is_the_derivative(activation: nn.Module) -> None:
    """Also where the change is so small that rounding would spoil the slope."""
    network, start = Hidden(2, activation).float(), draw_images(2).float()
    direction = draw_images(2, seed=8).float()
    for step in (1e-6, 1e-7):
        images = start + step * direction
        change = (images - start).double()
        leaf = start.double().requires_grad_()
        logits = deepcopy(network).double()(leaf)
        for k in range(3):
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True)
            _, found = attribute(network, images, "deep_lift", k, baseline=start)
            assert_close(found[:, 0].double(), (gradient * change).sum(1), 1e-3)


def test_images_that_are_the_baseline() -> None:
    network, images = Hidden(2, nn.ReLU()), draw_images(2)
    assert (attribute(network, images, "deep_lift", baseline=images)[1] == 0).all()


# Completeness


def make_network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """One of MONAI's networks, and the shape of images for it."""
    torch.manual_seed(0)
    if name == "densenet":
        network: nn.Module = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
        return randomise(network), (2, 1, 64, 48)
    depth, dims, widen = {
        "resnet-18 2d": (18, 2, 0.5),
        "resnet-18 3d": (18, 3, 0.25),
        "resnet-50 2d": (50, 2, 0.25),
    }[name]
    shape = {2: (2, 1, 40, 33), 3: (2, 1, 18, 24, 21)}[dims]
    return randomise(make_resnet(depth, dims, 1, 2, widen_factor=widen)), shape


@pytest.mark.parametrize("name", ["resnet-18 2d", "resnet-18 3d", "resnet-50 2d", "densenet"])
def test_completeness_on_monai_networks(name: str) -> None:
    network, shape = make_network(name)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    for kind, limit in ((torch.float32, 1e-3), (torch.float64, 1e-10)):
        network, images = network.to(kind), images.to(kind)
        for baseline in (0.0, 0.3 * images.flip(0)):
            logits, found = attribute(network, images, "deep_lift", baseline=baseline)
            with torch.no_grad():
                assert_close(logits, network(images), 1e-5)
                change = logits - network(torch.zeros_like(images) + baseline)
            assert_close(found.flatten(2).sum(2), change, limit)


class Pooled(nn.Module):
    """A linear function of maxima."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        maxima = self.pool(images).flatten(2)
        weights = torch.linspace(-1, 2, maxima.shape[2], dtype=torch.float64)
        return (maxima * weights).sum(2)


@settings(max_examples=30, deadline=None)
@given(
    dims=st.integers(1, 3),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_completeness_of_max_pooling(
    dims: int, kernel: int, stride: int, padding: int, seed: int
) -> None:
    """Windows may overlap, and share a maximum; Captum misses the change of the logit here."""
    shape = (2, 2, *(s + 2 for s in SIZES[dims]))
    generator = torch.Generator().manual_seed(seed)
    images, baseline = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    module = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims](kernel, stride, padding)
    adaptive = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}[dims]
    function = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}[dims]
    for pool in (module, adaptive(2), lambda i: function(i, kernel, stride, padding)):
        network = Pooled(pool)
        _, found = attribute(network, images, "deep_lift", baseline=baseline)
        change = network(images) - network(baseline)
        torch.testing.assert_close(found.flatten(2).sum(2), change)


def test_where_a_maximum_is_credited() -> None:
    """A rise to where the image has it, a fall to where the baseline had it."""
    images = torch.tensor([[[5.0, 0, 0, 1]]]).double()
    baseline = torch.tensor([[[0.0, 3, 0, 4]]]).double()
    network = Pooled(nn.MaxPool1d(2))  # weights -1 and 2
    found = attribute(network, images, "deep_lift", baseline=baseline)[1][0, 0]
    assert found.tolist() == [-2.0, 0.0, 0.0, -6.0]


@pytest.mark.filterwarnings("ignore:Setting:UserWarning", "ignore:Input Tensor:UserWarning")
def test_against_captum_where_every_activation_has_its_module() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 2), nn.Sigmoid(),
        nn.Conv2d(6, 6, 2), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 5),
        nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    network = randomise(network).double()
    images, baseline = (torch.randn(3, 2, 6, 7).double(), torch.randn(1, 2, 6, 7).double())
    _, found = attribute(network, images, "deep_lift", baseline=baseline)
    for k in range(3):
        expected = DeepLift(deepcopy(network)).attribute(images, baseline, target=k)
        assert_close(found[:, k], expected.sum(1).detach(), 1e-9)


class Folded(nn.Module):
    """Slices folded into the batch, and back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 2).double()
        self.head = nn.Linear(4, 2).double()

    def forward(self, images: Tensor) -> Tensor:
        slices = images.movedim(-1, 1).flatten(0, 1)
        maps = F.relu(self.conv(slices)).mean((2, 3))
        return self.head(torch.tanh(maps.unflatten(0, (len(images), -1)).sum(1)))


@pytest.mark.parametrize("shared", [True, False])
def test_slices_folded_into_the_batch(shared: bool) -> None:
    network, images = Folded(), draw_images(3)
    baseline = draw_images(3, count=1 if shared else 3, seed=9)
    logits, found = attribute(network, images, "deep_lift", baseline=baseline)
    torch.testing.assert_close(found.flatten(2).sum(2), logits - network(baseline).detach())


@pytest.mark.parametrize("shared", [True, False])
def test_an_image_does_not_see_its_batch_mates(shared: bool) -> None:
    """But for rounding, which slopes over short distances make larger than gradients do."""
    network, shape = make_network("resnet-18 2d")
    images = torch.rand(4, *shape[1:], generator=torch.Generator().manual_seed(2))
    baselines = 0.2 * images[:1] if shared else 0.2 * images.roll(1, 0)
    together = explain(network, images, "deep_lift", baseline=baselines).attribution
    for index in range(4):
        baseline = baselines if shared else baselines[index : index + 1]
        alone = explain(network, images[index : index + 1], "deep_lift", baseline=baseline)
        assert_close(alone.attribution[0], together[index], 3e-5)


# Refusals


class Gated(nn.Module):
    """One map times another, as in squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(2, 4, 2), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.head((maps * maps.mean((2, 3), keepdim=True)).mean((2, 3)))


def make_normed(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def make_cut() -> nn.Module:
    torch.manual_seed(0)
    network = ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=2, n_input_channels=2, num_classes=2,
        shortcut_type="A",
    )  # fmt: skip
    return randomise(network)


@pytest.mark.parametrize(
    "network",
    [
        make_normed(nn.InstanceNorm2d(4)),
        make_normed(nn.GroupNorm(2, 4)),
        make_normed(nn.Softmax(1)),
        Gated(),
        make_cut(),
    ],
)
def test_what_has_no_rule_is_refused(network: nn.Module) -> None:
    images = draw_images(2).float()
    images = F.interpolate(images, (24, 24)) if isinstance(network, ResNet) else images
    with pytest.raises(MethodError, match=r"must sum to the change of the logit, and on .* it is"):
        explain(network.eval(), images, "deep_lift")


@pytest.mark.parametrize("other", [torch.tanh, torch.square, lambda v: F.relu(v[:, :1])])
def test_a_network_that_branches_on_its_input_is_refused(other: Any) -> None:
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            maps = F.relu(images) if images.any() else other(images)
            return F.relu(maps.flatten(1).sum(1, keepdim=True))

    with pytest.raises(MethodError, match=r"makes the same calls for every image"):
        attribute(Branching(), draw_images(2), "deep_lift")
