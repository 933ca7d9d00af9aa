"""What every method of the registry must keep: one invariant per test, over all of them."""

import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution import Explainer, get_method, list_methods, register, registry
from heatmask.attribution.classes import ClassIdx, differentiate, index_classes, select_logits
from heatmask.attribution.explainer import average_views
from heatmask.attribution.frozen import copy_frozen
from heatmask.attribution.images import resize_to
from heatmask.attribution.layers import find_layer
from heatmask.errors import (
    DeviceError,
    InputError,
    MethodError,
    OptionError,
)
from helpers.attribution_cases import CONVS, assert_close, explain, randomise
from helpers.planted import make_affine

NAMES = [method.name for method in list_methods()]
SEEDED = [name for name in NAMES if "seed" in get_method(name).options]
CHEAP = {"samples": 2, "steps": 3, "window": 4, "segments": 6, "compactness": 10.0, "halvings": 1}
SHAPES = {2: (5, 2, 16, 12), 3: (3, 2, 8, 6, 10)}
CLASSES = 3
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MEANS = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Everything(nn.Module):
    """Has what any method needs: ReLUs, a skip, a pooled linear head, and its own heatmap."""

    def __init__(self, dims: int = 2, fails_at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(dims)
        self.stem, self.norm = CONVS[dims](2, 6, 3, padding=1), NORMS[dims](6)
        self.conv, self.norm2 = CONVS[dims](6, 6, 3, padding=1, stride=1), NORMS[dims](6)
        self.act = nn.ReLU(inplace=True)
        self.pool, self.flatten = MEANS[dims](1), nn.Flatten()
        self.head = nn.Linear(6, CLASSES)
        self.calls, self.fails_at = 0, fails_at
        randomise(self)

    def run_body(self, images: Tensor) -> Tensor:
        maps = self.act(self.norm(self.stem(images)))
        self.calls += 1
        if self.calls == self.fails_at:
            raise ZeroDivisionError("planted failure")
        out = self.norm2(self.conv(maps))
        out += maps
        return self.act(out)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.run_body(images))))

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.run_body(images)
        logits = self.head(self.flatten(self.pool(maps)))
        return logits, torch.einsum("kc,bc...->bk...", self.head.weight, maps)


def make_options(name: str) -> dict[str, Any]:
    options = get_method(name).options
    return {option: value for option, value in CHEAP.items() if option in options}


def make_scans(dims: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(SHAPES[dims], generator=torch.Generator().manual_seed(seed))


def run(name: str, network: nn.Module, images: Tensor, **options: Any) -> Tensor:
    return explain(network, images, name, **make_options(name), **options).attribution


@pytest.fixture(scope="module")
def networks() -> dict[int, Everything]:
    return {dims: Everything(dims) for dims in (2, 3)}


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers goes with it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


# Invariants of every method


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_another_batch_size_changes_nothing(
    name: str, dims: int, networks: dict[int, nn.Module]
) -> None:
    images = make_scans(dims)
    images[1] *= 5  # an image unlike the others, and an empty one
    images[2] = 0
    whole = explain(networks[dims], images, name, batch_size=5, **make_options(name))
    assert whole.attribution.shape == (len(images), CLASSES, *images.shape[2:])
    for size in (1, 2):
        parts = explain(networks[dims], images, name, batch_size=size, **make_options(name))
        torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-5, atol=1e-6)
        # A difference of logits cannot be closer than the logits are.
        slack = 1e-7 * whole.logits.abs().max() if "occlusion" in name or "abla" in name else 0
        for one, other in zip(parts.attribution, whole.attribution, strict=True):
            assert (one - other).abs().max() <= 1e-5 * other.abs().max() + slack
    assert (whole.attribution[0] != 0).any()


@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 7),
    batch_size=st.integers(1, 9),
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    name=st.sampled_from(["saliency", "guided_backprop", "smoothgrad", "deep_lift", "grad_cam"]),
)
def test_any_number_of_images(
    count: int, batch_size: int, shape: tuple[int, int], name: str
) -> None:
    network = Everything()
    images = torch.rand(count, 2, *shape, generator=torch.Generator().manual_seed(count))
    together = run(name, network, images, batch_size=batch_size)
    for index in range(count):
        alone = run(name, network, images[index : index + 1])
        assert_close(alone[0], together[index], 1e-5)


def describe(network: nn.Module) -> dict[str, Any]:
    """Everything of a network that a call might leave changed."""
    state: dict[str, Any] = {}
    for name, value in network.state_dict(keep_vars=True).items():
        grad = None if value.grad is None else value.grad.numpy().tobytes()
        bytes_ = value.detach().numpy().tobytes()
        state[name] = (id(value), value.data_ptr(), bytes_, value.requires_grad, grad)
    for name, module in network.named_modules():
        hooks = {key: dict(value) for key, value in vars(module).items() if "_hooks" in key}
        state["module " + name] = (module.training, hooks, sorted(vars(module)))
    return state


def prepare_for_change(fails_at: int = 0) -> Everything:
    """A network in the middle of its training, with a hook of the user's."""
    network = Everything(fails_at=fails_at).train()
    network.norm2.eval()
    network.stem.weight.requires_grad_(False)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    network.conv.register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_left_as_it_was(name: str) -> None:
    network, images = prepare_for_change(), make_scans()
    given = images.clone()
    before = describe(network)
    found = run(name, network, images)
    assert describe(network) == before
    assert torch.equal(images, given)
    assert images.grad is None
    assert not images.requires_grad
    expected = run(name, deepcopy(network).eval(), images)
    assert torch.equal(found, expected)  # explained as it is after training


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_left_as_it_was_after_an_exception(name: str) -> None:
    network, images = prepare_for_change(fails_at=1), make_scans()
    before = describe(network)
    with pytest.raises(ZeroDivisionError, match=r"planted failure"):
        run(name, network, images)
    assert describe(network) == before
    assert not images.requires_grad
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.overrides._get_current_function_mode_stack() == []


def test_eight_threads_give_the_serial_results(networks: dict[int, nn.Module]) -> None:
    """Different methods, on one network, at once."""
    jobs = [(name, seed) for seed in (0, 1) for name in NAMES]

    def work(job: tuple[str, int]) -> Tensor:
        return run(job[0], networks[2], make_scans(seed=job[1]))

    serial = [work(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(work, jobs))
    for job, one, other in zip(jobs, serial, parallel, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6 * one.abs().max()), job


@pytest.mark.parametrize("name", NAMES)
def test_twice_is_the_same(name: str, networks: dict[int, nn.Module]) -> None:
    images = make_scans()
    first = run(name, networks[2], images)
    torch.manual_seed(99)  # the global generator has no say
    before = torch.random.get_rng_state()
    second = run(name, networks[2], images)
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_decides(name: str, networks: dict[int, nn.Module]) -> None:
    one, again, other = (run(name, networks[2], make_scans(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_forms_of_class_idx(name: str, networks: dict[int, nn.Module]) -> None:
    images = make_scans()
    whole = run(name, networks[2], images)
    forms: list[tuple[ClassIdx, list[list[int]]]] = [
        (1, [[1]] * 5),
        (torch.tensor(2), [[2]] * 5),
        ([2, 0], [[2, 0]] * 5),
        ((1,), [[1]] * 5),
        (torch.tensor([0, 2, 1, 1, 2]), [[0], [2], [1], [1], [2]]),
    ]
    for form, classes in forms:
        found = run(name, networks[2], images, class_idx=form, batch_size=2)
        assert found.shape[:2] == (5, len(classes[0]))
        for index, chosen in enumerate(classes):
            expected = whole[index, chosen]
            assert (found[index] - expected).abs().max() <= 1e-5 * whole[index].abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_results_are_plain_float32(name: str, networks: dict[int, nn.Module]) -> None:
    explanation = explain(networks[2], make_scans(), name, **make_options(name))
    for result in explanation:
        assert type(result) is Tensor
        assert result.dtype == torch.float32
        assert not result.requires_grad
        assert not result.is_inference()
    with torch.no_grad():
        torch.testing.assert_close(explanation.logits, networks[2](make_scans()))


# Refusals of every method


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite(
    name: str, value: float, networks: dict[int, nn.Module]
) -> None:
    images = make_scans()
    images[3, 0, 2, 2] = value
    message = r"the images must be finite, and those of image\(s\) 3 of the batch are not"
    with pytest.raises(MethodError, match=message):
        run(name, networks[2], images)


def test_a_gradient_that_is_not_finite() -> None:
    """The logits are, but the slope of a root at zero is not."""

    class Root(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).sqrt().sum(1, keepdim=True)

    images = make_scans()
    images[1, 0, 0, 0] = 0
    with pytest.raises(MethodError, match=r"saliency of Root: the attribution must be finite"):
        explain(Root(), images, "saliency")


class Wrapped(Everything):
    """Returns something else than logits (B, K)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def wrap(self, logits: Tensor) -> Any:
        return {
            "a vector": logits[:, 0],
            "a map": logits[:, :, None, None],
            "a tuple": (logits, logits),
            "a dict": {"logits": logits},
        }[self.kind]

    def forward(self, images: Tensor) -> Any:
        return self.wrap(super().forward(images))

    def forward_heatmap(self, images: Tensor) -> tuple[Any, Tensor]:
        logits, heatmap = super().forward_heatmap(images)
        return self.wrap(logits), heatmap


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["a vector", "a map", "a tuple", "a dict"])
def test_logits_of_another_rank(name: str, kind: str) -> None:
    with pytest.raises(MethodError, match=r"must return logits of shape \(batch, classes\), got"):
        run(name, Wrapped(kind), make_scans()[:2])


BAD_CLASSES: list[tuple[Any, str]] = [
    (3, r"class_idx must lie in 0 to 2, because the network gives 3 logit\(s\), got 3"),
    (-1, r"class_idx must lie in 0 to 2"),
    ([0, 3], r"class_idx must lie in 0 to 2"),
    (torch.tensor([0, 1, 2, 3, 0]), r"class_idx must lie in 0 to 2"),
    ([], r"class_idx must be whole numbers, at least one, got \[\]"),
    (0.5, r"class_idx must be whole numbers"),
    (torch.ones(5), r"class_idx must be whole numbers"),
    (torch.zeros(5, 1, dtype=torch.int64), r"each of the 5 images, shape \(5,\), got .*\(5, 1\)"),
    (torch.tensor([0, 1]), r"one class for each of the 5 images, .*got shape \(2,\)\. Give a list"),
    (torch.zeros(9, dtype=torch.int64), r"one class for each of the 5 images, .*got shape \(9,\)"),
    ("tumour", r"class_idx must be a whole number or several, got 'tumour'"),
]


@pytest.mark.parametrize(("class_idx", "message"), BAD_CLASSES)
def test_bad_classes(class_idx: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        index_classes(torch.zeros(5, CLASSES), class_idx)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_is_not_there(name: str, networks: dict[int, nn.Module]) -> None:
    with pytest.raises(OptionError, match=r"class_idx must lie in 0 to 2"):
        run(name, networks[2], make_scans(), class_idx=[0, 3])


@pytest.mark.parametrize("name", NAMES)
def test_wrong_number_of_channels(name: str, networks: dict[int, nn.Module]) -> None:
    with pytest.raises(InputError, match=r"another number of channels than the images' 3"):
        run(name, networks[2], torch.rand(2, 3, 16, 12))


@pytest.mark.parametrize("shape", [(16, 12), (0, 2, 16, 12), (1, 2, 3, 4, 5, 6)])
def test_images_of_another_rank(shape: tuple[int, ...], networks: dict[int, nn.Module]) -> None:
    with pytest.raises(InputError, match=r"\(batch, channel, \*spatial\) with at least one image"):
        explain(networks[2], torch.zeros(shape), "saliency")


def test_other_runtime_errors_keep_their_name(networks: dict[int, nn.Module]) -> None:
    network = deepcopy(networks[2])
    network.head = nn.Linear(5, 2)
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
        explain(network, make_scans(), "saliency")


# The private copy


def test_a_copy_shares_memory_and_is_frozen(networks: dict[int, nn.Module]) -> None:
    network = deepcopy(networks[2]).train()
    copy = copy_frozen(network)
    for one, other in zip(network.parameters(), copy.parameters(), strict=True):
        assert one is not other
        assert one.data_ptr() == other.data_ptr()
        assert not other.requires_grad
        assert one.requires_grad
    for one, other in zip(network.buffers(), copy.buffers(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    assert not any(module.training for module in copy.modules())
    assert all(module.training for module in network.modules())


def test_shared_weights_stay_shared() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    copy = copy_frozen(network)
    assert copy[0].weight is copy[1].weight


def test_a_network_that_cannot_be_copied() -> None:
    network = Everything()
    network.lock = threading.Lock()
    with pytest.raises(MethodError, match=r"copy\.deepcopy can copy.*and Everything is not"):
        explain(network, make_scans(), "saliency")


# Batches and memory


@pytest.fixture
def small_gpu(own_registry: None) -> Iterator[list[int]]:
    """A method that runs out of memory with more than two images, and its batches."""
    batches: list[int] = []

    @register("greedy", family="gradient", cost="1 forward", paper="none")
    def explain_greedily(
        network: nn.Module, images: Tensor, class_idx: ClassIdx, most: int = 2
    ) -> tuple[Tensor, Tensor]:
        batches.append(len(images))
        if len(images) > most:
            raise torch.cuda.OutOfMemoryError("planted")
        return get_method("input_x_gradient").function(network, images, class_idx)

    return batches


@pytest.mark.parametrize("class_idx", [None, 1, torch.tensor([0, 2, 1, 1, 2])])
def test_out_of_memory_halves_the_batch(
    class_idx: ClassIdx,
    small_gpu: list[int],
    networks: dict[int, nn.Module],
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = make_scans()
    expected = explain(networks[2], images, "input_x_gradient", class_idx)
    with caplog.at_level(logging.WARNING):
        found = explain(networks[2], images, "greedy", class_idx)
    assert_close(found.attribution, expected.attribution, 1e-5)
    assert_close(found.logits, expected.logits, 1e-5)
    assert small_gpu == [5, 2, 2, 1]
    assert caplog.messages == ["The GPU is out of memory: going on with a batch of 2."]


def test_a_halved_batch_stays_halved(small_gpu: list[int], networks: dict[int, nn.Module]) -> None:
    images = make_scans().repeat(3, 1, 1, 1)
    expected = explain(networks[2], images, "input_x_gradient")
    found = explain(networks[2], images, "greedy", batch_size=5)
    assert small_gpu == [5, *[2] * 7, 1]
    assert_close(found.attribution, expected.attribution, 1e-5)


def test_out_of_memory_with_one_image(small_gpu: list[int], networks: dict[int, nn.Module]) -> None:
    with pytest.raises(DeviceError, match=r"greedy must fit .* with one image of \(2, 16, 12\)"):
        explain(networks[2], make_scans(), "greedy", most=0)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_bad_batch_sizes(size: float, networks: dict[int, nn.Module]) -> None:
    with pytest.raises(OptionError, match=r"batch_size must be a whole number of at least 1, got"):
        explain(networks[2], make_scans(), "saliency", batch_size=size)


def test_geometry_travels_with_the_attribution(networks: dict[int, nn.Module]) -> None:
    affine = make_affine((0.9, 4.0, 1.1), "PSL", tilt_deg=(8, -12, 5))
    images = MetaTensor(make_scans(3), affine=torch.from_numpy(affine))
    found = explain(networks[3], images, "saliency").attribution
    assert isinstance(found, MetaTensor)
    np.testing.assert_array_equal(found.affine, affine)
    plain = explain(networks[3], images.as_tensor(), "saliency").attribution
    assert torch.equal(found.as_tensor(), plain)


# Views


@pytest.mark.parametrize("name", ["input_x_gradient", "grad_cam"])
def test_views_are_averaged(name: str, networks: dict[int, nn.Module]) -> None:
    images = make_scans()
    plain = run(name, networks[2], images)
    mirrored = run(name, networks[2], images.flip(3)).flip(3)
    found = run(name, networks[2], images, flips=[1])
    assert_close(found, (plain + mirrored) / 2, 1e-5)
    larger = resize_to(run(name, networks[2], resize_to(images, (32, 24))), (32, 24))
    found = run(name, networks[2], images, scales=[1.0, 2.0])
    assert_close(found, resize_to((resize_to(plain, (32, 24)) + 4 * larger) / 2, (16, 12)), 1e-5)
    logits = explain(networks[2], images, name, flips=[0], scales=[1.0, 2.0]).logits
    assert_close(logits, explain(networks[2], images, name).logits, 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": [2]}, r"flips must be axes from 0 to 1, got \(2,\)"),
        ({"flips": [-1]}, r"flips must be axes from 0 to 1, got \(-1,\)"),
        ({"scales": []}, r"scales must be positive, at least one, got \(\)"),
        ({"scales": [1, 0]}, r"scales must be positive, at least one, got \(1, 0\)"),
    ],
)
def test_bad_views(options: dict[str, Any], message: str, networks: dict[int, nn.Module]) -> None:
    with pytest.raises(OptionError, match=message):
        explain(networks[2], make_scans(), "saliency", **options)


# The registry


def test_ten_lines_add_a_method(own_registry: None, networks: dict[int, nn.Module]) -> None:
    @register("gradient_sign", family="gradient", cost="1 forward, 1 backward", paper="ours")
    def explain_by_sign(
        network: nn.Module, images: Tensor, class_idx: ClassIdx, gain: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The sign of the gradient."""
        images = images.requires_grad_()
        logits = network(images)
        (gradient,) = differentiate(select_logits(logits, class_idx), [images])
        return logits, gain * gradient.sign().sum(2)

    found = explain(networks[2], make_scans(), "gradient_sign", gain=2.0)
    assert set(found.attribution.unique().tolist()) <= {-4.0, 0.0, 4.0} | {-2.0, 2.0}
    assert not found.logits.requires_grad
    method = get_method("gradient_sign")
    assert method.options == {"gain": 1.0}
    assert method.summary == "The sign of the gradient."
    assert method in list_methods()
    with pytest.raises(OptionError, match=r"'gradient_sign' is registered already"):
        register("gradient_sign", family="gradient", cost="none", paper="none")(explain_by_sign)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"family": "magic"}, r"family must be one of gradient, cam, .*, got 'magic'"),
        ({"needs": ["gpu", "relu"]}, r"needs must be among gradients, relu, .*, got gpu"),
        (
            {"invariants": ["truth"]},
            r"invariants must be among completeness, conservation, got truth",
        ),
    ],
)
def test_bad_entries(entry: dict[str, Any], message: str, own_registry: None) -> None:
    with pytest.raises(OptionError, match=message):
        register("new", **{"family": "gradient", "cost": "none", "paper": "none"} | entry)
    assert "new" not in registry._METHODS


def test_unknown_methods_get_the_closest_names() -> None:
    with pytest.raises(OptionError, match=r"got 'gradcam'\. Closest: .*grad_cam"):
        Explainer("gradcam")
    with pytest.raises(OptionError, match=r"got 'xyz'\. Closest: saliency"):
        get_method("xyz")


def test_unknown_options_get_the_closest_names() -> None:
    with pytest.raises(OptionError, match=r"no option 'step'\. Its options: steps\."):
        Explainer("integrated_gradients", step=3)
    with pytest.raises(OptionError, match=r"no option 'n'\. Its options: samples, noise, seed\."):
        Explainer("smoothgrad", n=3)
    with pytest.raises(OptionError, match=r"saliency has no option 'n'\. Its options: none\."):
        Explainer("saliency", n=3)


def test_shared_options_reach_those_that_have_them() -> None:
    shared = {"target_layer": "act", "baseline": 1.0, "seed": 5}
    for method in list_methods():
        given = Explainer(method.name, **shared).options
        assert given == {k: v for k, v in shared.items() if k in method.options}


def test_entries_are_complete() -> None:
    families = [method.family for method in list_methods()]
    assert families == sorted(families, key=registry.FAMILIES.index)
    assert set(families) == set(registry.FAMILIES)
    for method in list_methods():
        assert method.needs <= set(registry.NEEDS)
        assert method.invariants <= set(registry.INVARIANTS)
        assert method.summary.endswith(".")
        assert method.cost
        assert (method.count_passes() is None) == (method.passes is None)
        assert method.paper
        assert re.search(r"(19|20)\d\d", method.paper)


def test_passes_follow_from_the_options() -> None:
    assert get_method("saliency").count_passes() == 2
    assert get_method("integrated_gradients").count_passes() == 64
    assert get_method("integrated_gradients").count_passes(steps=3) == 6
    assert get_method("occlusion").count_passes() is None
    assert get_method("smoothgrad").cost == "2 passes × samples"


def test_a_layer_that_is_not_there_gets_the_closest_names(
    networks: dict[int, nn.Module],
) -> None:
    assert find_layer(networks[2], "norm2") is networks[2].norm2
    with pytest.raises(OptionError, match=r"submodule of Everything, got 'norm3'\. Closest: 'norm"):
        find_layer(networks[2], "norm3")
    with pytest.raises(OptionError, match=r"got 'zzz'\. Closest: 'pool', 'flatten', 'head'"):
        explain(networks[2], make_scans(), "grad_cam", target_layer="zzz")


# What a network or a batch may not do


class WorksInPlace(nn.Module):
    """Writes to its input and to a buffer, as some networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.fc(self.conv(x.clamp_(0.2, 0.8)).relu().mean((-2, -1)))


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"cam", "inherent", "lrp_epsilon", "lrp_epsilon_plus"})
)
def test_images_and_buffers_are_not_written_to(name: str) -> None:
    torch.manual_seed(0)
    network, images = WorksInPlace().eval(), torch.rand(3, 2, 16, 12)
    before = images.clone()
    explain(network, images, name, check=False)
    assert torch.equal(images, before)
    assert network.seen == 0


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "occlusion"])
def test_a_baseline_of_each_image_goes_with_it(
    name: str, batch_size: int, networks: dict[int, nn.Module]
) -> None:
    images = make_scans()
    baselines = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    found = explain(networks[2], images, name, batch_size=batch_size, baseline=baselines)
    for index, (image, baseline) in enumerate(zip(images, baselines, strict=True)):
        alone = explain(networks[2], image[None], name, baseline=baseline)
        assert_close(found.attribution[index], alone.attribution[0], 1e-3)
    with pytest.raises(OptionError, match=r"broadcasts to the images' \(5, 2, 16, 12\)"):
        explain(networks[2], images, name, batch_size=2, baseline=baselines[:2])


def test_compiled_parts_come_back_plain() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), torch.compile(nn.Sequential(nn.ReLU())))
    copy = copy_frozen(torch.compile(network))
    assert [type(module) for module in copy.modules()] == [
        nn.Sequential, nn.Conv2d, nn.Sequential, nn.ReLU,
    ]  # fmt: skip
    assert hasattr(network[1], "_orig_mod")


@pytest.mark.parametrize("name", ["saliency", "grad_cam", "occlusion"])
def test_images_of_another_type(name: str, networks: dict[int, nn.Module]) -> None:
    with pytest.raises(InputError, match=r"floating-point numbers, got torch\.uint8"):
        explain(networks[2], make_scans().byte(), name)
    with pytest.raises(InputError, match=r"one type, and the images are torch\.float64"):
        explain(networks[2], make_scans().double(), name, check=False)


def test_a_built_in_name_cannot_be_taken() -> None:
    with pytest.raises(OptionError, match="'deep_lift' is registered already"):
        register("deep_lift", family="gradient", cost="none", paper="none")(print_nothing)


def print_nothing(network: nn.Module, images: Tensor, class_idx: ClassIdx) -> tuple[Tensor, Tensor]:
    """Nothing."""
    raise NotImplementedError


# Views that differ in size, or have a baseline of their own

BASELINED = [method.name for method in list_methods() if "baseline" in method.options]


def view_plainly(
    name: str,
    network: nn.Module,
    images: Tensor,
    options: dict[str, Any] | None = None,
    **views: Any,
) -> Tensor:
    """The average over views, with the method's own power and an image as a baseline."""
    method = get_method(name)
    options = make_options(name) | (options or {})

    def attribute(network: nn.Module, images: Tensor, class_idx: ClassIdx, **view: Any) -> Any:
        return method.function(copy_frozen(network), images, class_idx, **options | view)

    views = {"flips": (), "scales": (1.0,), "power": method.size_power} | views
    baseline = options.get("baseline")
    return average_views(attribute, network, images, None, baseline=baseline, **views)[1]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", BASELINED)
def test_a_baseline_is_mirrored_with_the_images(
    name: str, dims: int, networks: dict[int, nn.Module]
) -> None:
    images, baseline = make_scans(dims), make_scans(dims, seed=7)[:1]
    plain = view_plainly(name, networks[dims], images, {"baseline": baseline})
    mirrored = {"baseline": baseline.flip(3)}
    mirrored = view_plainly(name, networks[dims], images.flip(3), mirrored).flip(3)
    for same in (baseline, baseline.expand(1, 2, *images.shape[2:])):
        found = view_plainly(name, networks[dims], images, {"baseline": same}, flips=(1,))
        assert_close(found, (plain + mirrored) / 2, 1e-5)
    assert not torch.allclose(found, plain, atol=1e-3 * float(plain.abs().max()))


def test_a_set_of_baselines_is_mirrored_and_resized(networks: dict[int, nn.Module]) -> None:
    """Of expected gradients: a set of as many as there are images is no baseline for each."""
    images, baselines = make_scans(), make_scans(seed=7)
    for background in (baselines, baselines[:3]):
        found = run("expected_gradients", networks[2], images, baselines=background)
        alone = run("expected_gradients", networks[2], images[1:2], baselines=background)
        assert_close(found[1:2], alone, 1e-4)
        mirrored = run(
            "expected_gradients", networks[2], images.flip(3), baselines=background.flip(3)
        ).flip(3)
        both = run("expected_gradients", networks[2], images, baselines=background, flips=[1])
        assert_close(both, (found + mirrored) / 2, 1e-4)
        half = run("expected_gradients", networks[2], images, baselines=background, scales=[0.5])
        assert half.shape == found.shape


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 1), (1, 2, 1, 1)])
def test_a_baseline_without_a_picture_is_left_alone(
    shape: tuple[int, ...], networks: dict[int, nn.Module]
) -> None:
    options = {"baseline": torch.full(shape, 0.3)}
    views = {"flips": (0,), "scales": (1.0, 0.5)}
    found = view_plainly("deep_lift", networks[2], make_scans(), options, **views)
    expected = view_plainly("deep_lift", networks[2], make_scans(), {"baseline": 0.3}, **views)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("shape", [(12,), (16, 1), (16, 12), (1, 2, 16, 12), (5, 2, 16, 12)])
def test_a_baseline_of_any_form_is_resized(
    shape: tuple[int, ...], networks: dict[int, nn.Module]
) -> None:
    images, baseline = make_scans(), torch.rand(shape, generator=torch.Generator().manual_seed(3))
    found = view_plainly("deep_lift", networks[2], images, {"baseline": baseline}, scales=(0.5,))
    halves = [resize_to(image, (8, 6)) for image in (images, baseline.expand(5, 2, 16, 12))]
    expected = view_plainly("deep_lift", networks[2], halves[0], {"baseline": halves[1]})
    assert_close(found, expected / 4, 1e-5)


def test_a_baseline_of_another_size(networks: dict[int, nn.Module]) -> None:
    message = r"images' spatial size \(16, 12\), or 1 along an axis, got \(1, 2, 12, 16\)"
    options = {"baseline": torch.zeros(1, 2, 12, 16)}
    with pytest.raises(OptionError, match=message):
        view_plainly("deep_lift", networks[2], make_scans(), options, flips=(0,))


@pytest.mark.parametrize("scales", [(1.0, 0.5), (0.5,), (2.0, 1.0)])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "lrp_epsilon"])
def test_completeness_holds_over_scales(
    name: str, dims: int, scales: tuple[float, ...], networks: dict[int, nn.Module]
) -> None:
    """The sum on the images' grid is the mean of what the sums of the views are."""
    images = make_scans(dims)
    copies = [resize_to(images, [round(n * s) for n in images.shape[2:]]) for s in scales]
    steps = {"steps": 64} if name == "integrated_gradients" else {}
    sums = [view_plainly(name, networks[dims], one, steps).flatten(2).sum(2) for one in copies]
    found = view_plainly(name, networks[dims], images, steps, scales=scales)
    found = resize_to(found, images.shape[2:]).flatten(2).sum(2)
    assert_close(found, torch.stack(sums).mean(0), 1e-5)
    if name != "lrp_epsilon":
        with torch.no_grad():
            changes = [networks[dims](one) - networks[dims](0 * one) for one in copies]
        assert_close(found, torch.stack(changes).mean(0), 0.02)


class Layered(nn.Module):
    """Smooth images in, so that a view of half the size shows the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.act = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()
        self.pool, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.act(self.stem(images)))))

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.act(self.stem(images))
        return self.forward(images), torch.einsum("kc,bc...->bk...", self.head.weight, maps)


@pytest.mark.parametrize("name", NAMES)
def test_views_of_all_sizes_have_a_like_part_in_the_average(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = resize_to(torch.rand(2, 2, 6, 5, generator=generator), (64, 48))
    network = Layered().eval()
    options = {"window": 8, "halvings": 1, "samples": 32}
    options = {k: v for k, v in options.items() if k in get_method(name).options}
    whole, half = (
        view_plainly(name, network, images, options, scales=(s,)).abs().mean() for s in (1.0, 0.5)
    )
    assert 0.6 < half / whole < 1.7
    unweighed = view_plainly(name, network, images, options, scales=(0.5,), power=0).abs().mean()
    assert_close(unweighed / half, torch.tensor(4.0 ** get_method(name).size_power), 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": 0}, "flips must be several whole numbers, as in \\(0,\\), got 0"),
        ({"flips": "01"}, "flips must be several whole numbers"),
        ({"scales": 0.5}, "scales must be several numbers, as in \\(1.0, 0.5\\), got 0.5"),
        ({"target_layer": 3}, "target_layer must be a dotted path or several, got 3"),
        ({"target_layer": ["act", 3]}, "target_layer must be a dotted path or several"),
    ],
)
def test_options_of_another_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Explainer("grad_cam", **options)
