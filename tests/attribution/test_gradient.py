"""The gradient family: closed forms and references in float64, Captum, and every kind of ReLU."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from monai.networks.nets import DenseNet121
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution import list_methods
from heatmask.attribution.classes import differentiate, select_logits
from heatmask.attribution.frozen import copy_frozen
from heatmask.attribution.gradient import backpropagate
from heatmask.attribution.relu_rules import ReluRules
from heatmask.errors import MethodError, OptionError
from heatmask.networks.resnet import make_resnet
from helpers.attribution_cases import (
    CONVS,
    Hidden,
    assert_close,
    attribute,
    draw_images,
    explain,
    randomise,
)

RULES = ["plain", "guided", "deconvolution"]
RULED = {"plain": "input_x_gradient", "guided": "guided_backprop", "deconvolution": "deconvolution"}


class Square(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * values


def make_linear(dims: int) -> nn.Module:
    torch.manual_seed(dims)
    return nn.Sequential(nn.Flatten(), nn.Linear(draw_images(dims)[0].numel(), 3)).double().eval()


def read_weight(network: nn.Module, images: Tensor) -> Tensor:
    """The weight of a linear network as (1, K, C, *spatial)."""
    return network[1].weight.detach().unflatten(1, images.shape[1:])[None]


def draw_like(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn((1, *images.shape[1:]), generator=generator).double()


def find_range(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (images.ndim - 1))


# Closed forms

BASELINE = {
    m.name: option
    for m in list_methods()
    for option in ("baseline", "baselines")
    if m.family == "gradient" and option in m.options
}
"""Methods with a baseline, and what the option is called."""


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_method_on_a_linear_network(dims: int) -> None:
    """The gradient is the weight everywhere, and every path from a baseline is as good."""
    network, images = make_linear(dims), draw_images(dims)
    baseline = draw_images(dims, count=1, seed=9)
    weight = read_weight(network, images)
    difference = (weight * (images - baseline)[:, None]).sum(2)
    everywhere = weight.expand(3, *weight.shape[1:])
    expected = {
        "saliency": everywhere.abs().amax(2),
        "input_x_gradient": (weight * images[:, None]).sum(2),
        "smoothgrad": everywhere.sum(2),
        "smoothgrad_squared": everywhere.square().sum(2),
        "integrated_gradients": difference,
        "expected_gradients": difference,
        "deep_lift": difference,
    }
    logits = network(images).detach()
    for name, value in expected.items():
        options = {BASELINE[name]: baseline} if name in BASELINE else {}
        found_logits, found = attribute(network, images, name, **options)
        assert_close(found, value, 1e-12)
        torch.testing.assert_close(found_logits, logits)
    plain = attribute(network, images, "gradient_shap", baseline=baseline, noise=0)[1]
    assert_close(plain, difference, 1e-12)
    needs = {m.name: m.needs for m in list_methods() if m.family == "gradient"}
    assert {n for n, need in needs.items() if "relu" not in need} == {*expected, "gradient_shap"}


@pytest.mark.parametrize("dims", [2, 3])
def test_relu_rules_of_one_hidden_layer(dims: int) -> None:
    """U'(V [z > 0]), U'(V+ [z > 0]) and U'(V+) for plain, guided and deconvolution."""
    network, images = Hidden(dims, nn.ReLU()), draw_images(dims)
    active = (network.find_levels(images) > 0).double()[:, None]
    slopes = {
        "plain": network.weight * active,
        "guided": network.weight.relu() * active,
        "deconvolution": network.weight.relu() * torch.ones_like(active),
    }
    _, gradients = backpropagate(copy_frozen(network), images, None, RULES)
    for rule in RULES:
        assert_close(gradients[rule], network.pull_back(slopes[rule], images), 1e-12)
    for rule in RULES[1:]:
        found = attribute(network, images, RULED[rule])[1]
        assert_close(found, network.pull_back(slopes[rule], images).sum(2), 1e-12)
    assert 0.1 < active.mean() < 0.9


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift"])
def test_paths_through_one_hidden_relu(name: str) -> None:
    """Both give V (relu(z) - relu(z0)) / (z - z0): the share of the path that is active."""
    network, images = Hidden(2, nn.ReLU()), draw_images(2)
    baseline = draw_images(2, count=1, seed=9)
    high, low = network.find_levels(images), network.find_levels(baseline)
    share = ((high.relu() - low.relu()) / (high - low))[:, None]
    slopes = network.pull_back(network.weight * share, images)
    expected = (slopes * (images - baseline)[:, None]).sum(2)
    options = {"steps": 400} if name == "integrated_gradients" else {}
    found = attribute(network, images, name, baseline=baseline, **options)[1]
    assert_close(found, expected, 5e-3 if options else 1e-12)
    assert ((share > 0) & (share < 1)).any()  # a path crosses a kink


def test_integrated_gradients_of_a_square_are_exact_in_one_step() -> None:
    network, images = Hidden(2, Square()), draw_images(2)
    baseline = draw_images(2, seed=9)  # one for each image
    both = network.find_levels(images) + network.find_levels(baseline)
    slopes = network.pull_back(network.weight * both[:, None], images)
    expected = (slopes * (images - baseline)[:, None]).sum(2)
    for steps in (1, 3):
        found = attribute(network, images, "integrated_gradients", baseline=baseline, steps=steps)
        assert_close(found[1], expected, 1e-12)


def test_smoothgrad_of_a_square_is_its_gradient_at_the_noisy_images() -> None:
    """Noise has the images' ranges, and one pattern for all images of a batch."""
    network, images = Hidden(2, Square()), draw_images(2)
    generator = torch.Generator().manual_seed(4)
    gradients = []
    for _ in range(3):
        noisy = images + 0.2 * find_range(images) * draw_like(images, generator)
        slopes = 2 * network.weight * network.find_levels(noisy)[:, None]
        gradients.append(network.pull_back(slopes, images))
    stacked, options = torch.stack(gradients), {"samples": 3, "noise": 0.2, "seed": 4}
    assert_close(attribute(network, images, "smoothgrad", **options)[1], stacked.mean(0).sum(2))
    found = attribute(network, images, "smoothgrad_squared", **options)[1]
    assert_close(found, stacked.square().mean(0).sum(2))


def test_gradient_shap_of_a_square() -> None:
    network, images = Hidden(2, Square()), draw_images(2)
    generator = torch.Generator().manual_seed(4)
    total = torch.zeros(())
    for _ in range(3):
        change = images + 0.2 * find_range(images) * draw_like(images, generator) - 0.5
        point = 0.5 + torch.rand((), generator=generator).item() * change
        slopes = 2 * network.weight * network.find_levels(point)[:, None]
        total = total + (network.pull_back(slopes, images) * change[:, None]).sum(2) / 3
    options = {"samples": 3, "noise": 0.2, "seed": 4, "baseline": 0.5}
    assert_close(attribute(network, images, "gradient_shap", **options)[1], total)


def test_expected_gradients_draw_from_the_set() -> None:
    """With a set of two the result is a mix of both baselines', weighted by the draws."""
    network, images = make_linear(2), draw_images(2)
    baselines = draw_images(2, count=2, seed=9)
    one, two = (
        attribute(network, images, "integrated_gradients", baseline=b[None], steps=1)[1]
        for b in baselines
    )
    found = attribute(network, images, "expected_gradients", baselines=baselines, samples=8)[1]
    share = ((found - two) / (one - two)).mean()
    assert round(share.item() * 8, 6) in range(1, 8)
    assert_close(found, share * one + (1 - share) * two)


def test_expected_gradients_from_flat_heads() -> None:
    """Without a set the black background stays, and gets nothing."""
    network, images = make_linear(2), draw_images(2).abs() + 1
    images[..., :2] = 0
    found = attribute(network, images, "expected_gradients")[1]
    assert (found[..., :2] == 0).all()
    assert (found[..., 2:] != 0).all()
    flat = torch.where(images > 0, 3.0, 0.0).double()  # nothing but its own baseline
    assert (attribute(network, flat, "expected_gradients")[1].abs() < 1e-12).all()


# Completeness, and Captum on MONAI's networks


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(3)
    return {
        "resnet 2d": (
            randomise(make_resnet(18, 2, 1, 2, widen_factor=0.5)),
            torch.rand(2, 1, 40, 33, generator=draw),
        ),
        "resnet 3d": (
            randomise(make_resnet(18, 3, 1, 2, widen_factor=0.25)),
            torch.rand(2, 1, 18, 24, 21, generator=draw),
        ),
        "densenet 2d": (
            randomise(DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)),
            torch.rand(2, 1, 64, 48, generator=draw),
        ),
    }


RESNETS = ["resnet 2d", "resnet 3d"]
NAMES = [*RESNETS, "densenet 2d"]


@pytest.mark.parametrize("name", RESNETS)
def test_integrated_gradients_are_complete(name: str, networks: Any) -> None:
    """To 1e-6 where the network is smooth; on ReLUs the points miss some kinks."""
    network, images = networks[name]
    smooth = copy_frozen(network).double()
    for module in list(smooth.modules()):
        if hasattr(module, "act"):
            module.act = nn.Softplus()
    images = images[:1].double()
    found = attribute(smooth, images, "integrated_gradients", [0], steps=12)[1]
    change = (smooth(images) - smooth(0 * images))[:, :1].detach()
    assert_close(found.flatten(2).sum(2), change, 1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("saliency", Saliency),
        ("input_x_gradient", InputXGradient),
        ("guided_backprop", GuidedBackprop),
        ("deconvolution", Deconvolution),
        ("integrated_gradients", IntegratedGradients),
    ],
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Setting:UserWarning", "ignore:Input Tensor:UserWarning")
def test_against_captum(name: str, ours: str, theirs: Any, networks: Any) -> None:
    network, images = networks[name]
    integrated = ours == "integrated_gradients"
    options = {"method": "gausslegendre", "n_steps": 4} if integrated else {}
    oracle = theirs(copy_frozen(network))
    expected = oracle.attribute(images.clone().requires_grad_(), target=1, **options).detach()
    found = explain(network, images, ours, 1, **({"steps": 4} if integrated else {}))
    assert_close(found.attribution, expected, 1e-4)


# Every kind of ReLU


class Net(nn.Module):
    """Two blocks with a skip each, whose ReLUs are whatever `relu` is."""

    def __init__(self, relu: Callable[[Tensor], Tensor], pre_activated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.relu, self.pre_activated = relu, pre_activated
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.one = nn.Conv2d(5, 5, 3, padding=1)
        self.two = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        maps = 8 * self.stem(images)
        for conv in (self.one, self.two):
            if self.pre_activated:  # one tensor feeds a ReLU and the skip
                maps = maps + conv(self.relu(maps))
            else:
                maps = self.relu(maps + conv(self.relu(maps.clone())))
        return self.head(maps.mean((2, 3)))


def make_oracle(rule: str, top: float = torch.inf) -> Callable[[Tensor], Tensor]:
    """A ReLU with a rule, written out as an autograd function of its own."""

    class Oracle(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            ctx.save_for_backward(values)
            return values.clamp(0, top)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (values,) = ctx.saved_tensors
            if rule != "plain":
                gradient = torch.where(gradient > 0, gradient, 0)
            inside = (values > 0) & (values < top)
            return gradient if rule == "deconvolution" else torch.where(inside, gradient, 0)

    return Oracle.apply


KINDS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "one module, reused": nn.ReLU,
    "one module, reused, in place": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: F.relu,
    "F.relu, keyword": lambda: lambda values: F.relu(input=values),
    "F.relu, in place": lambda: lambda values: F.relu(values, inplace=True),
    "torch.relu": lambda: torch.relu,
    "torch.relu_": lambda: torch.relu_,
    "Tensor.relu": lambda: lambda values: values.relu(),
    "Tensor.relu_": lambda: lambda values: values.relu_(),
    "ReLU6": nn.ReLU6,
    "ReLU6, in place": lambda: nn.ReLU6(inplace=True),
    "F.relu6": lambda: F.relu6,
    "clamp from 0 to 6": lambda: lambda values: values.clamp(0, 6),
    "torch.clamp": lambda: lambda values: torch.clamp(values, min=0),
    "clamp, in place": lambda: lambda values: values.clamp_(min=0.0),
    "clip": lambda: lambda values: values.clip(0),
    "clamp_min": lambda: lambda values: torch.clamp_min(values, 0),
    "clamp_min, in place": lambda: lambda values: values.clamp_min_(0),
    "Threshold": lambda: nn.Threshold(0, 0),
    "Threshold, in place": lambda: nn.Threshold(0, 0, inplace=True),
    "torch.threshold_": lambda: lambda values: torch.threshold_(values, 0, 0),
    "maximum": lambda: lambda values: torch.maximum(values, torch.zeros_like(values)),
    "maximum of zero first": lambda: lambda values: torch.zeros(()).double().maximum(values),
    "max of one zero a row": lambda: lambda values: torch.max(values, values.new_zeros(6)),
}
IN_PLACE = {kind for kind in KINDS if "place" in kind or kind.endswith("_")}


@pytest.mark.parametrize("pre_activated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_relu_is_gated(kind: str, pre_activated: bool) -> None:
    if pre_activated and kind in IN_PLACE:
        relu = KINDS[kind]()
        network = Net(lambda values: relu(values.clone()), pre_activated)
    else:
        network = Net(KINDS[kind](), pre_activated)
    images, top = draw_images(2), 6.0 if "6" in kind else torch.inf
    logits, found = backpropagate(copy_frozen(network), images, None, RULES)
    torch.testing.assert_close(logits, Net(make_oracle("plain", top), pre_activated)(images))
    for rule in RULES:
        leaf = images.clone().requires_grad_()
        scores = Net(make_oracle(rule, top), pre_activated)(leaf)
        assert_close(found[rule], differentiate(scores, [leaf])[0], 1e-12)
    assert not torch.allclose(found["guided"], found["plain"])
    if "6" in kind:
        assert (8 * network.stem(images) > 6).any()


@pytest.mark.parametrize(
    "other",
    [
        lambda values: values.clamp(min=0.1),
        lambda values: values.clamp(max=0),
        lambda values: values.clamp(min=torch.zeros_like(values)),
        lambda values: F.threshold(values, 0, 0.1),
        lambda values: F.threshold(values, 0.1, 0),
        lambda values: F.hardtanh(values),
        lambda values: values.max(),
        lambda values: values.max(1),
        lambda values: torch.max(values, dim=2, keepdim=True),
        lambda values: torch.maximum(values, torch.full_like(values, 0.1)),
        lambda values: torch.maximum(values, 0 * values),  # zero for now alone
        lambda values: torch.clamp(values.detach(), min=0, out=torch.empty(0).double()),
        lambda values: torch.arange(-3, 4).clamp(min=0),
        lambda values: torch.arange(-3, 4).clamp(0, 2),
    ],
)
def test_what_is_no_relu_is_left_alone(other: Callable[[Tensor], Any]) -> None:
    values = draw_images(2).requires_grad_()
    expected = other(values)
    with ReluRules() as rules:
        found = other(values)
    assert rules.calls == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=0)  # and of the same type


def test_relus_are_counted_and_a_rule_leaves_with_its_context() -> None:
    network, images = Net(F.relu), draw_images(2).requires_grad_()
    rules = ReluRules("guided")
    with rules:
        network(images)
    assert rules.calls == 4
    (found,) = differentiate(network(images), [images])
    (expected,) = differentiate(Net(make_oracle("plain"))(images), [images])
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, nullcontext])
@pytest.mark.parametrize("name", ["guided_backprop", "saliency", "deep_lift", "lrp_epsilon"])
def test_under_every_gradient_mode(name: str, context: Any) -> None:
    network, images = Net(F.relu).float(), draw_images(2).float()
    expected = explain(network, images, name)
    with context():
        found = explain(network, images.clone(), name)
    assert torch.equal(found.attribution, expected.attribution)
    assert not found.attribution.requires_grad
    assert not found.logits.requires_grad


@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution", "deep_lift"])
def test_a_compiled_network_gives_the_same(name: str) -> None:
    network, images = Net(nn.ReLU(inplace=True)).float(), draw_images(2).float()
    expected = explain(network, images, name).attribution
    compiled = torch.compile(network, backend="eager")
    compiled(images)  # Captum's rules are lost on one that has run before
    assert torch.equal(explain(compiled, images, name).attribution, expected)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Identity(), nn.LeakyReLU(0.0)])
def test_a_network_without_relu(name: str, activation: nn.Module) -> None:
    with pytest.raises(MethodError, match=r"need ReLU activations, and Hidden calls none"):
        explain(Hidden(2, activation).float(), draw_images(2).float(), name)


# Options


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("integrated_gradients", "steps"),
        ("smoothgrad", "samples"),
        ("smoothgrad_squared", "samples"),
        ("gradient_shap", "samples"),
        ("expected_gradients", "samples"),
    ],
)
@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_counts_are_whole_and_positive(name: str, option: str, count: float) -> None:
    network, images = make_linear(2), draw_images(2)
    with pytest.raises(OptionError, match=rf"{option} must be a whole number of at least 1, got"):
        explain(network, images, name, **{option: count})


@pytest.mark.parametrize("name", BASELINE)
@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (torch.zeros(1, 2, 5, 7), r"shape that broadcasts to the images' \(3, 2, 5, 6\), got"),
        (torch.full((1, 2, 5, 6), torch.nan), r"must hold finite values only, got NaN"),
    ],
)
def test_bad_baselines(name: str, baseline: Tensor, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        explain(make_linear(2), draw_images(2), name, **{BASELINE[name]: baseline})


@pytest.mark.parametrize("name", ["integrated_gradients", "gradient_shap", "deep_lift"])
def test_baselines_of_every_form(name: str) -> None:
    """A number, an image, and one image for each are the same where they say the same."""
    network, images = Hidden(2, nn.ReLU()), draw_images(2)
    expected = attribute(network, images, name, baseline=0.5)[1]
    for shape in [(), (1,), (5, 6), (1, 2, 5, 6), (3, 2, 5, 6)]:
        full = torch.full(shape, 0.5)
        assert_close(attribute(network, images, name, baseline=full)[1], expected, 1e-12)
    default = attribute(network, images, name)[1]
    assert_close(attribute(network, images, name, baseline=0)[1], default, 1e-12)
    assert not torch.allclose(default, expected)


def test_a_background_set_of_every_form() -> None:
    """A number is a set of one image, as are pictures of a channel or a level alone."""
    network, images = Hidden(2, nn.ReLU()), draw_images(2)
    full = torch.full((1, 2, 5, 6), 0.5)
    expected = attribute(network, images, "expected_gradients", baselines=full)[1]
    for same in (0.5, torch.tensor(0.5), full.expand(7, 2, 5, 6), full[..., :1, :1], full[:, :1]):
        assert_close(attribute(network, images, "expected_gradients", baselines=same)[1], expected)
    several = torch.cat([full, -full])
    mixed = attribute(network, images, "expected_gradients", baselines=several)[1]
    assert not torch.allclose(mixed, expected)


@pytest.mark.parametrize(
    ("background", "message"),
    [
        (torch.zeros(0, 2, 5, 6), r"with at least one image, for .*, got \(0, 2, 5, 6\)"),
        (
            torch.zeros(2, 5, 6),
            r"of shape \(N, channel, \*spatial\) .*, got \(2, 5, 6\)\. Give one",
        ),
        (torch.zeros(3), r"got \(3,\)"),
        (torch.zeros(4, 2, 5, 7), r"shape that broadcasts to the images' \(3, 2, 5, 6\), got"),
        (torch.full((2, 2, 5, 6), torch.inf), r"finite values only"),
        (torch.nan, r"finite values only"),
        ("blur", r"must be a number or a tensor, got 'blur'"),
    ],
)
def test_bad_background_sets(background: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        attribute(make_linear(2), draw_images(2), "expected_gradients", baselines=background)


def test_gradients_are_zero_where_a_class_does_not_see_the_image() -> None:
    class Half(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen = images.flatten(1).sum(1)
            return torch.stack([seen, torch.ones_like(seen)], dim=1)

    _, found = attribute(Half(), draw_images(2), "input_x_gradient")
    assert (found[:, 1] == 0).all()
    assert_close(found[:, 0], draw_images(2).sum(1))


def test_one_forward_serves_all_classes_and_rules() -> None:
    calls: list[int] = []
    network = copy_frozen(Hidden(2, nn.ReLU()))
    network.first.register_forward_hook(lambda *_: calls.append(1))
    _, gradients = backpropagate(network, draw_images(2), None, RULES)
    assert len(calls) == 1
    assert all(g.shape == (3, 3, 2, 5, 6) for g in gradients.values())


def test_select_and_differentiate_against_one_class_at_a_time() -> None:
    network, images = Hidden(3, nn.Tanh()), draw_images(3).requires_grad_()
    logits = network(images)
    scores = select_logits(logits, [2, 0])
    (together,) = differentiate(scores, [images], keep_graph=True)
    for place, k in enumerate([2, 0]):
        (alone,) = torch.autograd.grad(logits[:, k].sum(), images, retain_graph=True)
        assert_close(together[:, place], alone, 1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_convolutions_against_numerical_gradients(dims: int) -> None:
    """The finite difference knows nothing of autograd."""
    torch.manual_seed(0)
    network = nn.Sequential(CONVS[dims](2, 3, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))
    network(draw_images(dims).float())
    network, images = network.double().eval(), draw_images(dims)
    _, found = attribute(network, images, "input_x_gradient", 1)
    direction = draw_images(dims, seed=8)
    step = 1e-5
    change = network(images + step * direction) - network(images - step * direction)
    gradient = backpropagate(copy_frozen(network), images, 1)[1]["plain"][:, 0]
    assert_close((gradient * direction).flatten(1).sum(1), change[:, 1].detach() / 2 / step, 1e-8)
    assert_close(found[:, 0], (gradient * images).sum(1), 1e-12)
    assert np.isfinite(found.numpy()).all()


@pytest.mark.parametrize("name", ["smoothgrad", "smoothgrad_squared", "gradient_shap"])
@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_noise_must_be_an_amount(name: str, noise: float) -> None:
    with pytest.raises(OptionError, match="noise must be at least 0, got"):
        explain(make_linear(2), draw_images(2), name, noise=noise)
