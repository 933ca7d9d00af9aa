"""LRP: rules in closed form, input x gradient, zennit's own canonizer, and books that balance."""

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution.canonical import Shares, fold_batch_norms, stabilize
from heatmask.attribution.frozen import copy_frozen
from heatmask.errors import MethodError, OptionError
from heatmask.networks.resnet import make_resnet
from helpers.attribution_cases import (
    CONVS,
    SIZES,
    assert_close,
    attribute,
    draw_images,
    explain,
    randomise,
)

BOTH = ["lrp_epsilon", "lrp_epsilon_plus"]
UNITS = 7


def make_hidden(dims: int, activation: nn.Module, bias: bool = True) -> nn.Module:
    """A convolution as large as the image, an activation, and a linear layer without bias."""
    torch.manual_seed(dims)
    conv = CONVS[dims](2, UNITS, SIZES[dims], bias=bias)
    network = nn.Sequential(conv, activation, nn.Flatten(), nn.Linear(UNITS, 3, bias=False))
    return network.double().eval()


def hand_back(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the units get, z (B, 1, 7), and what the last layer hands back to them (B, 3, 7)."""
    levels = network[0](images).flatten(1).detach()
    return levels[:, None], (network[1](levels.clone())[:, None] * network[3].weight).detach()


def spread(images: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """Sum over units of x w share: (B, C, *s), (7, C, *s), (B, 3, 7) to (B, 3, *s)."""
    return torch.einsum("bkj,jc...,bc...->bk...", share, weight, images)


# Closed forms


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_linear_layer_hands_back_weight_times_input(name: str, dims: int) -> None:
    torch.manual_seed(dims)
    images = draw_images(dims)
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3, bias=False)).double()
    logits, found = attribute(network, images, name)
    weight = network[1].weight.detach().unflatten(1, images.shape[1:])
    assert_close(found, (weight * images[:, None]).sum(2), 1e-6)
    assert_close(found.flatten(2).sum(2), logits, 1e-6)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.SiLU()])
@pytest.mark.parametrize("epsilon", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_epsilon_rule(dims: int, epsilon: float, activation: nn.Module) -> None:
    """R_i = sum_j x_i w_ij R_j / (z_j +- epsilon rms(z)): an activation passes R on."""
    network, images = make_hidden(dims, activation), draw_images(dims)
    levels, relevance = hand_back(network, images)
    damping = epsilon * levels.square().mean(2, keepdim=True).sqrt()
    share = relevance / (levels + levels.sign() * damping)
    _, found = attribute(network, images, "lrp_epsilon", epsilon=epsilon)
    assert_close(found, spread(images, network[0].weight.detach(), share), 1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_z_plus_rule(dims: int) -> None:
    """R_i = sum_j (x_i w_ij)+ R_j / (sum_i (x_i w_ij)+ + b_j+)."""
    network, images = make_hidden(dims, nn.ReLU()), draw_images(dims)
    _, relevance = hand_back(network, images)
    weight, bias = network[0].weight.detach(), network[0].bias.detach()
    axes = tuple(range(2, images.ndim + 1))
    positive = (images[:, None] * weight).clamp(min=0).sum(axes) + bias.clamp(min=0)
    share = relevance / positive[:, None]
    expected = spread(images.clamp(min=0), weight.clamp(min=0), share)
    expected += spread(images.clamp(max=0), weight.clamp(max=0), share)
    assert_close(attribute(network, images, "lrp_epsilon_plus")[1], expected, 1e-6)


# Oracles


def make_network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    if name == "densenet":
        network: nn.Module = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
        return randomise(network), torch.rand(2, 1, 64, 48, generator=generator)
    depth, dims, widen = {
        "resnet-18 2d": (18, 2, 0.5),
        "resnet-18 3d": (18, 3, 0.25),
        "resnet-50 2d": (50, 2, 0.25),
    }[name]
    shape = {2: (2, 1, 40, 33), 3: (2, 1, 18, 24, 21)}[dims]
    network = make_resnet(depth, dims, 1, 2, widen_factor=widen)
    return randomise(network), torch.rand(shape, generator=generator)


RESNETS = ["resnet-18 2d", "resnet-18 3d", "resnet-50 2d"]


@pytest.mark.parametrize("name", [*RESNETS, "densenet"])
def test_epsilon_0_is_input_times_gradient(name: str) -> None:
    """As Ancona et al. 2018 (arXiv 1711.06104) show for ReLU networks."""
    network, images = make_network(name)
    network, images = network.double(), images.double()
    expected = attribute(network, images, "input_x_gradient")
    logits, found = attribute(network, images, "lrp_epsilon", epsilon=0)
    assert_close(found, expected[1], 1e-4)
    assert_close(logits, expected[0], 1e-12)


def test_epsilon_plus_against_zennit_with_its_canonizer() -> None:
    """Zennit has one for torchvision's ResNet, which adds and reuses as MONAI's does."""
    from torchvision import models
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    torch.manual_seed(0)
    network = randomise(models.resnet18(num_classes=2)).double()
    images = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(1)).double()
    _, found = attribute(network, images, "lrp_epsilon_plus")
    for k in range(2):
        one = F.one_hot(torch.tensor(k), 2)
        composite = EpsilonPlus(1e-9, 1e-9, canonizers=[ResNetCanonizer()])
        with Gradient(deepcopy(network), composite) as attributor:
            _, relevance = attributor(images, lambda logits, one=one: logits * one)
        # Its merged batch norms still divide by sqrt(1 + eps), twenty times over.
        assert_close(found[:, k], relevance.sum(1), 1e-3)


def drop_biases(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.zero_()
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)
    return network


@pytest.mark.parametrize("name", [*RESNETS, "densenet"])
def test_without_biases_relevance_sums_to_the_logit(name: str) -> None:
    network, images = make_network(name)
    network, images = drop_biases(network).double(), images.double()
    for method, options in (("lrp_epsilon", {"epsilon": 0}), ("lrp_epsilon_plus", {})):
        if (method, name) != ("lrp_epsilon_plus", "densenet"):
            logits, found = attribute(network, images, method, **options)
            assert_close(found.flatten(2).sum(2), logits, 1e-3)


def test_a_fresh_resnet_conserves_nearly_all() -> None:
    """Its only biases are those of the projecting shortcuts."""
    torch.manual_seed(0)
    network = make_resnet(18, 2, 1, 2, widen_factor=0.5)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    logits, found = explain(network, images, "lrp_epsilon_plus")
    share = found.flatten(2).sum(2) / logits
    assert (share - 1).abs().max() < 0.1


# The canonical form


def test_batch_norms_of_a_resnet_are_folded() -> None:
    network, images = make_network("resnet-18 3d")
    copy = copy_frozen(network)
    before = fold_batch_norms(copy, images)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in copy.modules())
    with torch.no_grad():
        assert_close(copy(images)[:1], before, 1e-5)
        assert_close(network(images)[:1], before, 1e-6)
    assert sum(isinstance(m, nn.BatchNorm3d) for m in network.modules()) == 20


def make_normed(*layers: nn.Module) -> nn.Module:
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.5)
    return network.double().eval()


@pytest.mark.parametrize(
    ("layers", "folded"),
    [
        ([nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(True)], True),
        ([nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4, affine=False)], True),
        ([nn.Conv2d(2, 4, 2), nn.ReLU(), nn.BatchNorm2d(4)], False),
        ([nn.Conv2d(2, 4, 2), nn.ReLU(True), nn.BatchNorm2d(4)], False),  # the very tensor
        ([nn.BatchNorm2d(2), nn.Conv2d(2, 4, 2)], False),
        ([nn.Conv2d(2, 4, 2), nn.Dropout(), nn.BatchNorm2d(4)], True),  # idle when explaining
    ],
)
def test_which_batch_norms_are_folded(layers: list[nn.Module], folded: bool) -> None:
    torch.manual_seed(0)
    network = make_normed(*layers)
    copy, images = copy_frozen(network), draw_images(2)
    fold_batch_norms(copy, images)
    assert any(isinstance(m, nn.BatchNorm2d) for m in copy.modules()) != folded
    assert_close(copy(images), network(images).detach(), 1e-12)
    if folded:
        attribute(network, images, "lrp_epsilon_plus")
    else:
        with pytest.raises(MethodError, match=r"every batch norm right after a convolution"):
            attribute(network, images, "lrp_epsilon_plus")
    expected = attribute(network, images, "input_x_gradient")[1]
    assert_close(attribute(network, images, "lrp_epsilon", epsilon=0)[1], expected, 1e-5)


def test_a_batch_norm_after_a_linear_layer() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    norm.running_mean.normal_()
    network = nn.Sequential(nn.Flatten(), nn.Linear(60, 4), norm, nn.ReLU(), nn.Linear(4, 2))
    network, images = network.double().eval(), draw_images(2)
    expected = attribute(network, images, "input_x_gradient")[1]
    assert_close(attribute(network, images, "lrp_epsilon", epsilon=0)[1], expected, 1e-5)
    attribute(network, images, "lrp_epsilon_plus")


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": lambda a, b: a + b,
    "+=": lambda a, b: a.__iadd__(b),
    "torch.add": torch.add,
    "Tensor.add": lambda a, b: a.add(b),
    "Tensor.add_": lambda a, b: a.add_(b),
}
MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "Tensor.mean": lambda maps: maps.mean((2, 3)),
    "torch.mean": lambda maps: torch.mean(maps, dim=(-2, -1)),
    "F.adaptive_avg_pool2d": lambda maps: F.adaptive_avg_pool2d(maps, 1).flatten(1),
    "F.avg_pool2d": lambda maps: F.avg_pool2d(maps, maps.shape[2:]).flatten(1),
    "nn.AdaptiveAvgPool2d": lambda maps: nn.AdaptiveAvgPool2d(1)(maps).flatten(1),
    "Tensor.sum": lambda maps: maps.sum((2, 3)) / maps[0, 0].numel(),
}


class Skip(nn.Module):
    """One skip and one mean, outside of modules."""

    def __init__(self, add: str, mean: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.act = nn.ReLU(inplace=True)
        self.add, self.mean = SUMS[add], MEANS[mean]
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.stem(images / 2 * 3))
        maps = self.act(self.add(self.conv(maps), maps))
        return self.head(self.mean(maps))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("add", "mean"), [*((add, "Tensor.mean") for add in SUMS), *(("+", mean) for mean in MEANS)]
)
def test_sums_and_means_however_they_are_called(add: str, mean: str, name: str) -> None:
    images = draw_images(2)
    expected = attribute(Skip("+", "nn.AdaptiveAvgPool2d"), images, name)[1]
    assert_close(attribute(Skip(add, mean), images, name)[1], expected, 1e-6)
    if name == "lrp_epsilon":
        gradient = attribute(Skip(add, mean), images, "input_x_gradient")[1]
        found = attribute(Skip(add, mean), images, name, epsilon=0)[1]
        assert_close(found, gradient, 1e-5)


def test_a_sum_is_shared_by_its_operands_shares() -> None:
    one, two = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 2.0]])
    one.requires_grad_()
    two.requires_grad_()
    with Shares():
        total = one + two
    found = torch.autograd.grad(total, [one, two], torch.tensor([[8.0, 5.0]]))
    torch.testing.assert_close(found[0], torch.tensor([[6.0, -5.0]]))
    torch.testing.assert_close(found[1], torch.tensor([[2.0, 10.0]]))
    assert torch.equal(total, torch.tensor([[4.0, 1.0]]))


def test_stabilising_is_relative_and_survives_zeros() -> None:
    values = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]])
    found = stabilize(values, 0.1)
    rms = (25 / 3) ** 0.5
    torch.testing.assert_close(found[0], values[0] + 0.1 * rms * torch.tensor([1.0, -1.0, 1.0]))
    assert (found[1] > 0).all()
    torch.testing.assert_close(stabilize(7 * values, 0.1)[0], 7 * found[0])


# Invariants


@pytest.mark.parametrize("name", BOTH)
def test_all_classes_at_once_are_class_by_class(name: str) -> None:
    network, images = make_network("resnet-18 2d")
    together = explain(network, images, name)
    for k in (1, 0):
        alone = explain(network, images, name, k)
        assert_close(alone.attribution[:, 0], together.attribution[:, k], 1e-5)
    mixed = explain(network, images, name, torch.tensor([1, 0])).attribution
    assert_close(mixed[0, 0], together.attribution[0, 1], 1e-5)
    assert_close(mixed[1, 0], together.attribution[1, 0], 1e-5)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("network", ["resnet-18 2d", "resnet-18 3d"])
def test_an_image_does_not_see_its_batch_mates(network: str, name: str) -> None:
    net, images = make_network(network)
    together = explain(net, images, name).attribution
    for index in range(len(images)):
        alone = explain(net, images[index : index + 1], name).attribution
        assert_close(alone[0], together[index], 1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_blank_images_get_nothing(name: str) -> None:
    network, images = make_network("resnet-18 2d")
    assert (explain(network, 0 * images, name).attribution == 0).all()


# Refusals


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 2), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.head((maps * maps.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3)))


class Functional(nn.Module):
    def __init__(self, activate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.activate = nn.Conv2d(2, 4, 2), nn.Linear(4, 2), activate

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.activate(self.conv(images)).mean((2, 3)))


class Twice(Functional):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images) + self.conv(images.flip(2))
        return self.head(maps.mean((2, 3)))


def make_cut() -> nn.Module:
    return ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=2, n_input_channels=2, num_classes=2,
        shortcut_type="A",
    )  # fmt: skip


WRONG: dict[str, Callable[[], nn.Module]] = {
    "instance norm": lambda: make_normed(nn.Conv2d(2, 4, 2), nn.InstanceNorm2d(4), nn.ReLU()),
    "softmax": lambda: make_normed(nn.Conv2d(2, 4, 2), nn.Softmax(1)),
    "a product of maps": Gated,
    "a functional activation": lambda: Functional(F.gelu),
    "a functional convolution": lambda: Functional(lambda m: F.conv2d(m, torch.ones(4, 4, 1, 1))),
    "a cut shortcut": make_cut,
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", WRONG)
def test_what_has_no_rule_is_refused(kind: str, name: str) -> None:
    torch.manual_seed(0)
    network = WRONG[kind]().float().eval()
    images = F.interpolate(draw_images(2).float(), (24, 24))
    with pytest.raises(MethodError, match=r"relevance and the biases' share must sum to the logit"):
        explain(network, images, name)


@pytest.mark.parametrize("name", BOTH)
def test_functional_relus_are_no_obstacle(name: str) -> None:
    torch.manual_seed(0)
    network, images = Functional(F.relu).double().eval(), draw_images(2)
    expected = attribute(network, images, name)[1]
    network.activate = nn.ReLU()
    assert_close(attribute(network, images, name)[1], expected, 1e-12)


@pytest.mark.parametrize("name", BOTH)
def test_a_layer_used_twice_is_refused(name: str) -> None:
    with pytest.raises(MethodError, match=r"it calls one Conv2d twice"):
        explain(Twice(F.relu), draw_images(2).float(), name)


def test_a_network_that_cannot_be_made_canonical_is_refused() -> None:
    """It adds in place, and goes on with the tensor rather than with the result."""

    class Hidden(Functional):
        def forward(self, images: Tensor) -> Tensor:
            maps = self.conv(images)
            maps.add_(maps.clone())
            return self.head(maps.mean((2, 3)))

    with pytest.raises(MethodError, match=r"its logits change when batch norms and sums"):
        explain(Hidden(F.relu), draw_images(2).float(), "lrp_epsilon")


def test_epsilon_plus_refuses_a_densenet() -> None:
    network, images = make_network("densenet")
    with pytest.raises(MethodError, match=r"62 of DenseNet121 are not, such as .*norm1'\.$"):
        explain(network, images, "lrp_epsilon_plus")


@pytest.mark.parametrize("name", BOTH)
def test_without_zennit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zennit", None)
    with pytest.raises(MethodError, match=r'pip install "heatmask\[relevance\]"'):
        explain(Skip("+", "torch.mean"), draw_images(2), name)


@pytest.mark.parametrize("epsilon", [-0.1, float("inf"), float("nan"), "0.1", None])
def test_epsilon_is_a_number_of_at_least_0(epsilon: Any) -> None:
    with pytest.raises(OptionError, match=r"epsilon must be a number of at least 0, got"):
        explain(Skip("+", "torch.mean"), draw_images(2), "lrp_epsilon", epsilon=epsilon)
