"""The checks: right networks pass, and each way to a plausible wrong map is refused."""

import copy
import math
import sys

import pytest
import torch
from monai.networks.nets import DenseNet121, ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from heatmask.attribution import Explainer, explain, list_methods, register, registry
from heatmask.attribution.checks import inspect_network, judge_methods, require_sound
from heatmask.attribution.checks.operations import ActivationCounter
from heatmask.attribution.checks.probe import draw_probe, prepare_subject
from heatmask.attribution.relu_rules import ReluRules
from heatmask.errors import InputError, MethodError, OptionError
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.resnet import make_resnet

FORWARDS: list[int] = []
"""Batch sizes of the forwards of `SmallNet`, whichever copy made them."""

ONE_OF_EACH = (
    "saliency", "guided_backprop", "integrated_gradients", "deep_lift", "cam", "grad_cam",
    "guided_grad_cam", "multi_stage_cam", "eigen_cam", "occlusion",
)  # fmt: skip


class SmallNet(nn.Module):
    """Two convolutions, pooled; `trick` is done to the first one's ReLU."""

    def __init__(self, trick: str = "", channels: int = 1, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trick = trick
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6, track_running_stats=trick != "batch statistics")
        self.second = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.last = nn.ReLU()
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        FORWARDS.append(len(images))
        x = self.norm(self.first(images))
        x = self.act(x)
        x = self.last(self.second(x))
        logits = self.head(x.flatten(2).mean(2))
        return self.finish(logits)

    def act(self, x: Tensor) -> Tensor:
        tricks = {
            "silu": F.silu,
            "dropout": lambda x: F.dropout(x.relu(), 0.2),
            "batch norm in forward": lambda x: F.batch_norm(x, None, None, training=True).relu(),
            "detach": lambda x: x.relu() + 2 * x.sigmoid().detach(),
            "data": lambda x: x.relu() + (2 * x).relu().data,
            "no_grad": lambda x: x.detach().relu(),
            "pooled in single": lambda x: x.float().relu().to(x.dtype),
            "single only": lambda x: x.relu() + F.conv2d(x, torch.full((6, 6, 1, 1), 0.2)),
            "single only, detach": lambda x: (
                x.relu() + F.conv2d(3 * x.detach(), torch.ones(6, 6, 1, 1))
            ),
        }
        return tricks.get(self.trick, F.relu)(x)

    def finish(self, logits: Tensor) -> Tensor:
        tricks = {
            "map of logits": lambda y: y[..., None, None],
            "tuple": lambda y: (y, y),
            "nan": lambda y: y / (y - y),
        }
        return tricks.get(self.trick, lambda y: y)(logits)


class OwnHeatmap(SmallNet):
    """A network that explains itself, in one way or another."""

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.forward(images)
        heatmap = self.second(F.relu(self.norm(self.first(images))))[:, :2]
        return {
            "other logits": (logits + 0.01, heatmap),
            "one channel": (logits, heatmap[:, :1]),
            "no axes": (logits, heatmap.mean((2, 3))),
        }.get(self.trick, (logits, heatmap))


class OwnScale(SmallNet):
    """Divides an image by its spread, so that it sees no difference between black and grey."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images / (images.std((1, 2, 3), keepdim=True) + 1e-6))


@pytest.fixture(autouse=True)
def forget_forwards() -> None:
    FORWARDS.clear()


@pytest.fixture
def own_method(monkeypatch):
    """Return a function that registers methods, which are gone after the test."""
    list_methods()  # first: what is loaded later would be gone too
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    def add(function, invariant: str, **options: object) -> None:
        entry = {"family": "gradient", "paper": "none", "invariants": (invariant,)}
        register("own", **entry, **options)(function)

    return add


def make_type_a(spatial_dims: int) -> nn.Module:
    torch.manual_seed(0)
    return ResNet(
        "basic", [1, 1, 1, 1], [8, 16, 16, 16], spatial_dims=spatial_dims, n_input_channels=1,
        num_classes=2, shortcut_type="A",
    )  # fmt: skip


def find_check(checks, name: str):
    (check,) = [check for check in checks if check.name == name]
    return check


def list_refused(checks, methods=ONE_OF_EACH) -> set[str]:
    return {name for name, check in judge_methods(checks, methods).items() if check}


RIGHT = {
    "small": (SmallNet, (1, 40, 33)),
    "three channels": (lambda: SmallNet(channels=3), (3, 40, 33)),
    "resnet 2d": (lambda: make_resnet(18, 2, num_classes=2, widen_factor=0.25), (1, 60, 72)),
    "resnet 3d": (lambda: make_resnet(10, 3, num_classes=2, widen_factor=0.125), (1, 40, 36, 32)),
    "densenet": (lambda: DenseNet121(2, 1, 2, init_features=16, growth_rate=8), (1, 96, 96)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_networks_pass(name: str) -> None:
    make, shape = RIGHT[name]
    torch.manual_seed(1)
    checks = inspect_network(make(), shape, ONE_OF_EACH)
    assert [check for check in checks if not check.passed] == []
    assert find_check(checks, "input gradient").measured < 1e-6
    assert {m for check in checks for m in check.methods} == set(ONE_OF_EACH)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_network_that_explains_itself_passes(norm: str) -> None:
    torch.manual_seed(0)
    network = GPUNet(2, 1, 2, features=(6, 8), norm=norm, pool_at="map", pooling="top")
    methods = ("inherent", "saliency", "guided_backprop", "grad_cam", "occlusion")
    checks = inspect_network(network, (1, 40, 40), methods)
    assert list_refused(checks, methods) == set()
    assert find_check(checks, "heatmap").measured < 1e-12


def test_all_methods_but_the_inherent_one_are_sound_on_a_plain_network() -> None:
    checks = inspect_network(SmallNet(), (1, 32, 32))
    names = [method.name for method in list_methods()]
    refused = list_refused(checks, names)
    assert "inherent" in refused
    assert all(name == "inherent" or name.startswith("lrp") for name in refused)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_detached_shortcuts_of_type_a_are_refused(spatial_dims: int) -> None:
    shape = (1, *[32] * spatial_dims)
    checks = inspect_network(make_type_a(spatial_dims), shape, ONE_OF_EACH)
    gradient = find_check(checks, "input gradient")
    assert gradient.measured > 0.1
    assert "shortcut_type='B'" in gradient.advice
    assert gradient.advice.endswith("Use grad_cam or occlusion_coarse_to_fine instead.")
    assert list_refused(checks) == {
        "saliency", "guided_backprop", "integrated_gradients", "deep_lift", "guided_grad_cam",
        "multi_stage_cam",
    }  # fmt: skip


@pytest.mark.parametrize("trick", ["detach", "data", "no_grad", "single only, detach"])
def test_a_cut_gradient_is_refused(trick: str) -> None:
    check = find_check(
        inspect_network(SmallNet(trick), (1, 40, 40), ["saliency"]), "input gradient"
    )
    assert not check.passed
    assert check.measured > 0.3
    assert "detach() or .data" in check.advice


@pytest.mark.parametrize("trick", ["pooled in single", "single only"])
def test_single_precision_inside_is_no_reason_to_refuse(trick: str) -> None:
    check = find_check(
        inspect_network(SmallNet(trick), (1, 40, 40), ["saliency"]), "input gradient"
    )
    assert check.passed
    exact = prepare_subject(SmallNet(trick), (1, 40, 40)).exact
    assert exact == (trick == "pooled in single")
    assert check.measured < (1e-6 if exact else 0.05)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_networks_are_looked_at_in_double(kind: torch.dtype) -> None:
    checks = inspect_network(SmallNet().to(kind), (1, 40, 40), ["saliency", "grad_cam"])
    assert all(check.passed for check in checks)
    assert find_check(checks, "input gradient").measured < 1e-6


def test_the_gradient_of_a_layer_is_wrong_only_below_the_cut() -> None:
    network = SmallNet("data")
    checks = {
        layer: inspect_network(network, (1, 40, 40), ["grad_cam"], target_layer=layer)
        for layer in ("norm", "second")
    }
    assert find_check(checks["second"], "layer gradient").measured < 1e-6
    failed = find_check(checks["norm"], "layer gradient")
    assert failed.measured > 0.1
    assert "a later target_layer" in failed.advice


def test_layers_that_cannot_be_explained() -> None:
    network = SmallNet()
    network.unused = nn.Conv2d(1, 1, 1)
    for layer, finding in (("unused", "was not called"), ("head", "must give a map")):
        checks = inspect_network(network, (1, 32, 32), ["grad_cam"], target_layer=layer)
        assert finding in find_check(checks, "target layer").finding
        assert list_refused(checks, ["grad_cam"]) == {"grad_cam"}
    with pytest.raises(OptionError, match=r"got 'secondd'. Closest: 'second'"):
        inspect_network(network, (1, 32, 32), ["grad_cam"], target_layer="secondd")


def test_a_layer_on_which_the_logits_do_not_depend() -> None:
    class Beside(SmallNet):
        def finish(self, logits: Tensor) -> Tensor:
            if self.trick != "zero":
                self.decoder(torch.ones(2, 1, 9, 7).to(logits))
            return logits

    network = Beside()
    network.decoder = nn.Conv2d(1, 3, 3)
    methods = ("grad_cam", "score_cam", "eigen_cam", "ablation_cam", "multi_stage_cam")
    checks = inspect_network(network, (1, 40, 33), methods, target_layer="decoder")
    assert find_check(checks, "target layer").finding == "the logits do not depend on 'decoder'"
    gradient = find_check(checks, "layer gradient")
    assert not gradient.passed
    assert "cannot be measured: the logits do not depend on it" in gradient.finding
    assert list_refused(checks, methods) == set(methods)
    assert list_refused(inspect_network(network, (1, 40, 33), methods), methods) == set()

    with torch.no_grad():  # a class that nothing speaks for has a gradient of zero, rightly
        network.head.weight[0].zero_()
    assert list_refused(inspect_network(network, (1, 40, 33), methods), methods) == set()
    with torch.no_grad():
        network.head.weight.zero_()
    assert list_refused(inspect_network(network, (1, 40, 33), methods), methods) == set(methods)


def test_a_dead_layer_may_still_matter() -> None:
    class Brightness(SmallNet):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + images.mean((1, 2, 3))[:, None]

    network = Brightness()
    with torch.no_grad():
        network.second.weight.zero_()
        network.second.bias.zero_()
    (check,) = [
        c for c in inspect_network(network, (1, 40, 33), ["eigen_cam"]) if c.name == "target layer"
    ]
    assert check.passed


class SingleOnly(nn.Module):
    """Runs in single precision alone; its logits are raised by `offset`."""

    def __init__(self, offset: float, detached: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.offset, self.detached = offset, detached
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.float64:
            raise TypeError("single only")
        maps = self.first(images).relu()
        skip = maps.detach() if self.detached else maps
        return self.head((self.second(maps).relu() + skip).mean((2, 3))) + self.offset


@pytest.mark.parametrize("detached", [False, True])
def test_a_gradient_that_drowns_in_rounding_is_refused(detached: bool) -> None:
    def look(offset: float):
        checks = inspect_network(SingleOnly(offset, detached), (1, 40, 33), ["saliency"])
        return find_check(checks, "input gradient")

    assert look(0).passed != detached
    failed = look(1e6)
    assert not failed.passed
    assert math.isnan(failed.measured)
    assert "cannot be measured: the logits do not depend on it, or by less" in failed.finding
    assert "runs in float64 or with smaller logits" in failed.advice


def test_cam_needs_its_head() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    network(torch.rand(1, 1, 12, 12))
    checks = inspect_network(network, (1, 12, 12), ["cam", "grad_cam"])
    assert list_refused(checks, ["cam", "grad_cam"]) == {"cam"}
    assert "global average pooling" in find_check(checks, "pooled head").finding


def test_activations_that_are_no_relu_are_counted() -> None:
    checks = inspect_network(SmallNet("silu"), (1, 32, 32), ["guided_backprop", "saliency"])
    check = find_check(checks, "ReLU activations")
    assert check.finding == "1 ReLUs gated, 1 other activations (silu)"
    assert check.methods == ("guided_backprop",)
    assert list_refused(checks, ["guided_backprop", "saliency"]) == {"guided_backprop"}
    assert "silently the plain gradient" in check.advice
    assert "Use grad_cam or integrated_gradients instead." in check.advice


class Own(torch.autograd.Function):
    """A ReLU with a backward pass of its own."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0] > 0)


def put_zeros(values: Tensor) -> Tensor:
    values = values.clone()
    values[values < 0] = 0
    return values


GATES = {
    "where": (lambda x: torch.where(x > 0, x, 0), "where"),
    "times its sign": (lambda x: x * (x > 0), "mul"),
    "times its sign, in place": (lambda x: x.clone().mul_(x > 0), "mul"),
    "filled": (lambda x: x.masked_fill(x < 0, 0), "masked_fill"),
    "by index": (put_zeros, "masked_fill"),
    "half of a sum": (lambda x: (x + x.abs()) / 2, "add"),
    "the other half": (lambda x: x - x.clamp(max=0), "clamp"),
    "past Python": (torch.ops.aten.relu, "relu"),
    "zero as a tensor": (lambda x: x.clamp(min=torch.zeros_like(x)), "clamp"),
    "squared": (lambda x: x * x.relu(), "mul"),
    "scripted": (torch.jit.script(nn.ReLU()), "scripted"),
    "its own backward": (Own.apply, "no gradient"),
}


class Gated(SmallNet):
    """Has a ReLU that rules see, and one of another kind."""

    def __init__(self, gate) -> None:
        super().__init__()
        self.gate = gate

    def act(self, x: Tensor) -> Tensor:
        return self.gate(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", GATES)
def test_relus_that_rules_do_not_reach_are_refused(kind: str) -> None:
    gate, name = GATES[kind]
    checks = inspect_network(Gated(gate), (1, 40, 33), ["guided_backprop", "saliency"])
    check = find_check(checks, "ReLU activations")
    assert not check.passed
    assert name in check.finding
    assert list_refused(checks, ["guided_backprop", "saliency"]) == {"guided_backprop"}
    with pytest.raises(MethodError, match=rf"guided_backprop cannot .*{name}.*Spell ReLUs as nn"):
        require_sound(Explainer("guided_backprop"), Gated(gate), (1, 40, 33))


def test_what_stops_on_the_way_back_is_refused() -> None:
    network = Gated(lambda x: checkpoint(F.relu, x, use_reentrant=True))
    with pytest.raises(MethodError, match=r"saliency cannot .* stops: .*set use_reentrant=False"):
        require_sound(Explainer("saliency"), network, (1, 40, 33))


SEEN = {
    "clamp": lambda x: x.clamp(min=0),
    "checkpoint": lambda x: checkpoint(F.relu, x, use_reentrant=False),
    "with other signs about": lambda x: F.relu(x) * x.mean((2, 3), keepdim=True).sigmoid(),
    "of a mask of the images": lambda x: F.relu(x) * (x.amax(1, keepdim=True) > -9),
    "clamped elsewhere": lambda x: F.relu(x) / x.norm(dim=1, keepdim=True).clamp(min=1e-6),
    "dropped": lambda x: F.dropout(F.relu(x), 0.5, training=False),
}


@pytest.mark.parametrize("kind", SEEN)
def test_what_only_looks_like_another_gate_passes(kind: str) -> None:
    checks = inspect_network(Gated(SEEN[kind]), (1, 40, 33), ["guided_backprop"])
    check = find_check(checks, "ReLU activations")
    assert check.finding == "2 ReLUs gated, 0 other activations"
    assert check.passed


def test_a_network_without_any_activation_has_nothing_to_gate() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    check = find_check(inspect_network(network, (1, 20, 20), ["deconvolution"]), "ReLU activations")
    assert not check.passed
    assert check.finding == "0 ReLUs gated, 0 other activations"


@pytest.mark.parametrize(
    ("module", "counted"),
    [
        (nn.SiLU(), {"silu"}),
        (nn.SiLU(inplace=True), {"silu"}),
        (nn.GELU(), {"gelu"}),
        (nn.ELU(), {"elu"}),
        (nn.LeakyReLU(inplace=True), {"leaky_relu"}),
        (nn.PReLU(), {"prelu"}),
        (nn.Mish(), {"mish"}),
        (nn.Hardswish(), {"hardswish"}),
        (nn.Softplus(), {"softplus"}),
        (nn.Tanh(), {"tanh"}),
        (nn.Sigmoid(), {"sigmoid"}),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid()), set()),
        (nn.ReLU(inplace=True), set()),
        (nn.ReLU6(), set()),
        (nn.Softmax(1), set()),
    ],
)
def test_what_counts_as_another_activation(module: nn.Module, counted: set[str]) -> None:
    with ActivationCounter() as counter, ReluRules():
        module(torch.randn(2, 3, 4, 4))
    assert counter.names == counted
    assert counter.calls == len(counted)


@pytest.mark.parametrize(
    ("trick", "name", "words"),
    [
        ("batch statistics", "batch against single", "track_running_stats"),
        ("batch norm in forward", "batch against single", "track_running_stats"),
        ("dropout", "determinism", r"F.dropout(x)"),
        ("map of logits", "logits", "(batch, classes)"),
        ("tuple", "logits", "(batch, classes)"),
        ("nan", "logits", "NaN"),
    ],
)
def test_logits_that_nothing_can_rest_on(trick: str, name: str, words: str) -> None:
    checks = inspect_network(SmallNet(trick), (1, 32, 32), ONE_OF_EACH)
    assert checks[-1].name == name
    assert words in checks[-1].finding + checks[-1].advice
    assert checks[-1].advice.endswith("As it is no method is sound.")
    assert [check.passed for check in checks] == [True] * (len(checks) - 1) + [False]
    assert list_refused(checks) == set(ONE_OF_EACH)


@pytest.mark.parametrize("trick", ["", "other logits", "one channel", "no axes"])
def test_a_heatmap_must_belong_to_the_logits(trick: str) -> None:
    checks = inspect_network(OwnHeatmap(trick), (1, 32, 32), ["inherent"])
    check = find_check(checks, "heatmap")
    assert check.passed == (trick == "")
    assert ("forward_heatmap(x)[0]" in check.advice) == (trick != "")


def test_integrated_gradients_that_miss_the_change_of_the_logit() -> None:
    checks = inspect_network(OwnScale(), (1, 32, 32), ["integrated_gradients", "saliency"])
    assert find_check(checks, "input gradient").passed
    check = find_check(checks, "completeness")
    assert check.measured > 0.5
    assert "integrated_gradients misses the change of the logit by" in check.finding
    assert list_refused(checks, ["integrated_gradients", "saliency"]) == {"integrated_gradients"}


def test_a_logit_that_comes_back_does_not_make_an_error_large(own_method) -> None:
    def explain(network, images, class_idx):
        change = network(images) - network(0 * images)
        spread = change[:, class_idx, None, None].expand(-1, -1, *images.shape[2:])
        return network(images), spread / images.shape[2:].numel() + 0.01 / images[0].numel()

    class Bow(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            level = images.mean((1, 2, 3))[:, None] / level_of_probe
            return 4 * level * (1.001 - level)  # 0 to 1 and back to 0.004

    level_of_probe = draw_probe((1, 32, 32), 0)[1].mean()
    own_method(explain, "completeness")
    check = find_check(inspect_network(Bow(), (1, 32, 32), ["own"]), "completeness")
    assert check.measured == pytest.approx(0.01, rel=0.02)


def test_few_steps_are_no_reason_to_refuse(own_method) -> None:
    def explain(network, images, class_idx, steps: int = 3):
        found.append(steps)
        with torch.no_grad():
            logits = network(images)
            change = logits - network(0 * images)
        whole = change[:, class_idx, None, None].expand(-1, -1, *images.shape[2:])
        share = 1 if steps > 3 else 0.4
        return logits, share * whole / images.shape[2:].numel()

    found: list[int] = []
    own_method(explain, "completeness")
    assert find_check(inspect_network(SmallNet(), (1, 20, 20), ["own"]), "completeness").passed
    assert found == [3, 12]


@pytest.mark.parametrize(("factor", "passed"), [(1, True), (254, False), (math.nan, False)])
def test_relevance_that_grows(own_method, factor: float, passed: bool) -> None:
    def explain(network, images, class_idx):
        logits = network(images)
        return logits, factor * logits[:, class_idx, None, None]

    own_method(explain, "conservation")
    check = find_check(inspect_network(SmallNet(), (1, 20, 20), ["own"]), "conservation")
    assert check.passed == passed


@pytest.mark.parametrize("invariant", ["completeness", "conservation"])
def test_a_method_that_stops_is_refused(own_method, invariant: str) -> None:
    def explain(network, images, class_idx):
        raise MethodError("No rule for this.")

    own_method(explain, invariant)
    check = find_check(inspect_network(SmallNet(), (1, 20, 20), ["own"]), invariant)
    assert not check.passed
    assert check.finding == "own stops: No rule for this."


def test_a_package_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zennit", None)
    (check,) = (
        c for c in inspect_network(SmallNet(), (1, 20, 20), ["lrp_epsilon"]) if not c.passed
    )
    assert "needs the package zennit, which is not installed. Install it: pip" in check.finding


def test_require_sound_says_what_by_how_much_and_what_instead() -> None:
    with pytest.raises(
        MethodError,
        match=r"saliency cannot be relied on with ResNet: the gradient by the images is off "
        r"finite differences by \d+\.\d% \(at most 1\.0%\)\. A detach\(\) or \.data .*"
        r"shortcut_type='B'\. Use grad_cam or occlusion_coarse_to_fine instead\.",
    ):
        require_sound(Explainer("saliency"), make_type_a(2), (1, 48, 48))
    require_sound(Explainer("grad_cam"), make_type_a(2), (1, 48, 48))


def test_require_sound_looks_at_the_explainers_own_layer() -> None:
    network = SmallNet("data")
    require_sound(Explainer("grad_cam", target_layer="second"), network, (1, 40, 40))
    for explainer, instead in (
        (Explainer("grad_cam", target_layer="norm"), "occlusion_coarse_to_fine or occlusion"),
        (Explainer("multi_stage_cam", target_layer=["second", "norm"]), "grad_cam or occlusion"),
    ):
        with pytest.raises(MethodError, match=rf"cam cannot be .*by 'norm' is off.*Use {instead}"):
            require_sound(explainer, network, (1, 40, 40))


def test_a_method_that_does_not_suit_is_refused_too() -> None:
    with pytest.raises(MethodError, match=r"SmallNet offers no forward_heatmap\. Use grad_cam"):
        require_sound(Explainer("inherent"), SmallNet(), (1, 32, 32))


def test_checks_are_made_once_for_a_network() -> None:
    network = SmallNet()
    require_sound(Explainer("saliency"), network, (1, 32, 32))
    assert FORWARDS
    FORWARDS.clear()
    require_sound(Explainer("saliency"), network, (1, 32, 32))
    require_sound(Explainer("input_x_gradient"), network, (1, 50, 60))
    assert FORWARDS == []
    require_sound(Explainer("guided_backprop"), network, (1, 32, 32))
    assert 0 < len(FORWARDS) <= 4  # the probe is made ready, and ReLUs are counted


def test_a_failure_is_remembered_too() -> None:
    network = make_type_a(2)
    messages = []
    for _ in range(2):
        with pytest.raises(MethodError) as caught:
            require_sound(Explainer("saliency"), network, (1, 48, 48))
        messages.append(str(caught.value))
        network = copy.deepcopy(network)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("change", ["in place", "replaced", "buffer", "switch", "hook"])
def test_a_network_that_changed_is_looked_at_again(change: str) -> None:
    network = SmallNet()
    require_sound(Explainer("saliency"), network, (1, 32, 32))
    FORWARDS.clear()
    if change == "in place":
        with torch.no_grad():
            network.first.weight.mul_(2)
    elif change == "replaced":
        network.first.weight.data = network.first.weight.detach() * 2
    elif change == "buffer":
        network.norm.running_mean.add_(1)
    elif change == "switch":
        network.trick = "detach"
    else:
        network.first.register_forward_hook(lambda module, inputs, output: output.detach())
    if change in ("switch", "hook"):
        with pytest.raises(MethodError, match="off finite differences"):
            require_sound(Explainer("saliency"), network, (1, 32, 32))
    else:
        require_sound(Explainer("saliency"), network, (1, 32, 32))
    assert FORWARDS


@pytest.mark.parametrize("method", ["grad_cam", "cam"])
def test_a_map_that_is_too_small_is_remembered_for_its_size_alone(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    too_small = "must have a layer with a map of at least 2"
    for _ in range(2):  # new, and from memory
        with pytest.raises(MethodError, match=too_small):
            require_sound(Explainer(method), network, (1, 8, 12))
        require_sound(Explainer(method), network, (1, 64, 48))
    with pytest.raises(MethodError, match=too_small):  # by the method itself, whatever is known
        explain(network, torch.rand(2, 1, 8, 12), method)


def test_the_network_is_left_alone() -> None:
    network = SmallNet().train()
    before = copy.deepcopy(network.state_dict())
    random = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        require_sound(Explainer("guided_grad_cam"), network, (1, 32, 32))
    inspect_network(network, (1, 32, 32))
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_mixed_precision_around_it_changes_no_check() -> None:
    network, methods = SmallNet(), ("integrated_gradients", "guided_grad_cam", "cam")
    plain = inspect_network(network, (1, 32, 32), methods)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert inspect_network(network, (1, 32, 32), methods) == plain


def test_a_compiled_network_is_looked_at_as_it_was_before() -> None:
    network = SmallNet()
    compiled = nn.Module()
    compiled._orig_mod = network  # as of torch.compile, which takes seconds to import
    require_sound(Explainer("saliency"), compiled, (1, 32, 32))
    FORWARDS.clear()
    require_sound(Explainer("saliency"), network, (1, 32, 32))
    assert FORWARDS == []


def test_networks_and_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"SmallNet must run on images of shape \(batch, 2, 32"):
        inspect_network(SmallNet(), (2, 32, 32))
    with pytest.raises(InputError, match="image_shape must be"):
        inspect_network(SmallNet(), (1, 8, 8, 8, 8))
    with pytest.raises(InputError, match="at least 4 x 4 pixels"):
        inspect_network(GPUNet(2, 1, 1), (1, 3, 40))
    with pytest.raises(OptionError, match=r"got 'salience'\. Closest: saliency"):
        inspect_network(SmallNet(), (1, 32, 32), ["salience"])


def test_a_network_of_one_size_gets_a_probe_of_that_size() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 37 * 35, 1)
    )
    assert prepare_subject(network, (1, 150, 140)).images.shape == (2, 1, 150, 140)
    checks = inspect_network(network, (1, 150, 140), ["saliency", "grad_cam"])
    assert all(check.passed for check in checks)


def test_a_network_without_maps_has_no_cam() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(400, 6), nn.ReLU(), nn.Linear(6, 2))
    checks = inspect_network(network, (1, 20, 20), ["guided_backprop", "grad_cam", "cam"])
    assert list_refused(checks, ["guided_backprop", "grad_cam", "cam"]) == {"grad_cam", "cam"}
    assert "must have a layer with a map" in next(c for c in checks if not c.passed).finding


@pytest.mark.parametrize("shape", [(2, 30), (1, 21, 17), (3, 6, 7, 8)])
def test_the_probe_is_positive_without_plateaus_and_of_its_seed(shape: tuple[int, ...]) -> None:
    probe = draw_probe(shape, 0)
    assert probe.shape == (2, *shape)
    assert probe.min() > 0
    assert len(probe.unique()) == probe.numel()
    assert torch.equal(probe, draw_probe(shape, 0))
    assert not torch.equal(probe, draw_probe(shape, 1))
