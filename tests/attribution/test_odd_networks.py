"""Networks and images that are odd, and what a refusal of them says."""

import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from heatmask.attribution import explain, list_methods
from heatmask.attribution.checks import inspect_network
from heatmask.attribution.frozen import copy_frozen
from heatmask.errors import HeatmaskError, InputError, MethodError

pytestmark = [
    pytest.mark.fault("G"),
    pytest.mark.filterwarnings("ignore:.*(torch.jit|quantization|weight_norm|grad attribute)"),
]

CHEAP = {"samples": 2, "steps": 3, "segments": 6, "window": 12}
IMAGES = torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(0))


def make_plain(classes: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    ).eval()


class Then(nn.Module):
    """The plain network, and something done to its logits."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = 2) -> None:
        super().__init__()
        self.network, self.end = make_plain(classes), end

    def forward(self, images: Tensor) -> Any:
        return self.end(self.network(images))


class Undifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = make_plain()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Remembering(nn.Module):
    """Keeps its last logits and their graph, as many networks do to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_plain()
        self(IMAGES)

    def forward(self, images: Tensor) -> Tensor:
        self.last = self.network(images)
        return self.last


def quantise() -> nn.Module:
    network = nn.Sequential(
        quantization.QuantStub(), *make_plain(), quantization.DeQuantStub()
    ).eval()
    network.qconfig = quantization.get_default_qconfig("x86")
    quantization.prepare(network, inplace=True)
    network(IMAGES)
    return quantization.convert(network)


def change_first(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = make_plain()
    network[0] = change(network[0])
    return network


def make_in_inference() -> nn.Module:
    with torch.inference_mode():
        return make_plain()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "traced": lambda: torch.jit.trace(make_plain(), IMAGES),
    "scripted": lambda: torch.jit.script(make_plain()),
    "frozen TorchScript": lambda: torch.jit.freeze(torch.jit.script(make_plain())),
    "TorchScript inside": lambda: nn.Sequential(torch.jit.trace(make_plain(), IMAGES)),
    "a scripted layer": lambda: change_first(torch.jit.script),
    "data parallel": lambda: nn.DataParallel(make_plain()),
    "training": lambda: make_plain().train(),
    "half precision": lambda: make_plain().half(),
    "quantised": quantise,
    "quantised dynamically": lambda: quantization.quantize_dynamic(make_plain(), {nn.Linear}),
    "no gradients": Undifferentiable,
    "made in inference mode": make_in_inference,
    "pruned": lambda: change_first(lambda conv: prune.l1_unstructured(conv, "weight", 0.3)),
    "weight norm": lambda: change_first(parametrizations.weight_norm),
    "old weight norm": lambda: change_first(torch.nn.utils.weight_norm),
    "remembering": Remembering,
}
NOTHING_RUNS = {"quantised dynamically"}
EVERYTHING_RUNS = {
    "data parallel", "training", "half precision", "made in inference mode", "pruned",
    "weight norm", "old weight norm", "remembering",
}  # fmt: skip


def run(network: nn.Module, name: str) -> Tensor | str:
    """Return the attribution, or what the refusal says."""
    method = next(method for method in list_methods() if method.name == name)
    options = {option: value for option, value in CHEAP.items() if option in method.options}
    kind = next((p.dtype for p in network.parameters()), torch.float32)
    try:
        return explain(network, IMAGES.to(kind), name, class_idx=1, **options).attribution
    except HeatmaskError as error:
        return str(error)


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_odd_network_is_explained_or_refused_with_methods_that_run(kind: str) -> None:
    network = NETWORKS[kind]()
    results = {method.name: run(network, method.name) for method in list_methods()}
    sound = {name for name, result in results.items() if isinstance(result, Tensor)}
    for name in sound:
        assert results[name].isfinite().all(), name
        assert results[name].unique().numel() > 1, name
    refusals = {name: results[name] for name in results.keys() - sound}
    for name, refusal in refusals.items():
        advised = re.search(r"Use (\w+)(?: or (\w+))? instead\.$", refusal)
        assert bool(advised) == (kind not in NOTHING_RUNS), refusal
        if advised:
            assert sound >= set(filter(None, advised.groups())), f"{name}: {refusal}"
    if kind in EVERYTHING_RUNS:
        assert refusals.keys() == {"inherent"}
    elif kind not in NOTHING_RUNS:
        assert "occlusion" in sound


def test_layers_of_torchscript_are_refused_by_that_name() -> None:
    scripted = torch.jit.script(make_plain())
    for options in ({}, {"target_layer": "1"}):
        with pytest.raises(
            MethodError, match=r"as it was before torch\.jit\..* Use integrated_grad"
        ):
            explain(scripted, IMAGES, "grad_cam", **options)


def test_torchscript_gives_what_its_original_gives_and_is_left_alone() -> None:
    network = make_plain().train()
    scripted = torch.jit.script(network)
    for name in ("saliency", "integrated_gradients", "occlusion"):
        found, expected = run(scripted, name), run(network, name)
        torch.testing.assert_close(found, expected)
    assert scripted.training
    assert all(p.requires_grad and p.grad is None for p in scripted.parameters())
    assert not any(p.requires_grad for p in copy_frozen(scripted).parameters())


def test_advice_is_tried_in_the_networks_own_precision() -> None:
    """The checks look at a copy in double precision."""

    class NoSingleGradient(Then):
        def forward(self, images: Tensor) -> Tensor:
            if torch.is_grad_enabled() and images.dtype == torch.float32:
                raise NotImplementedError("no gradient in single precision")
            return super().forward(images)

    refusal = run(NoSingleGradient(lambda logits: logits), "inherent")
    assert (
        "offers no forward_heatmap. Use occlusion_coarse_to_fine or occlusion instead." in refusal
    )


WITHOUT_WEIGHTS = {
    "lazy": (
        nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten()),
        "'0.weight' of this Sequential has no size yet. Run it once on an image",
    ),
    "meta": (make_plain().to("meta"), "'0.weight' .* is on the device 'meta', which holds none"),
    "function": (lambda images: images, "must be a torch.nn.Module, got function"),
    "class": (nn.Sequential, "must be a torch.nn.Module, got the class Sequential"),
    "weights": (OrderedDict(a=torch.ones(1)), "got OrderedDict. .*load_state_dict"),
}


@pytest.mark.parametrize("kind", WITHOUT_WEIGHTS)
def test_what_is_no_network_or_has_no_weights(kind: str) -> None:
    network, message = WITHOUT_WEIGHTS[kind]
    for name in ("saliency", "grad_cam", "occlusion", "inherent"):
        for check in (True, False):
            with pytest.raises(MethodError, match=message):
                explain(network, IMAGES, name, check=check)
    with pytest.raises(MethodError, match=message):
        inspect_network(network, (1, 24, 20))


# Probabilities


def one_against_all(logits: Tensor) -> Tensor:
    present = logits[:, :1].sigmoid()
    return torch.cat([1 - present, present], dim=1)


def by_hand(logits: Tensor) -> Tensor:
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


ENDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sigmoid": (nn.Sigmoid(), "a sigmoid"),
    "function": (torch.sigmoid, "a sigmoid"),
    "in place": (lambda y: y.sigmoid_(), "a sigmoid"),
    "with a temperature": (lambda y: F.sigmoid(y / 3), "a sigmoid"),
    "shaped anew": (lambda y: y.sigmoid().flatten().unflatten(0, (-1, 2)), "a sigmoid"),
    "cut off": (lambda y: y.sigmoid().clamp(1e-6, 1 - 1e-6), "a sigmoid"),
    "rounded": (lambda y: y.double().sigmoid().float(), "a sigmoid"),
    "mean of several": (lambda y: torch.stack([y.sigmoid(), (2 * y).sigmoid()]).mean(0), "a sig"),
    "detached": (lambda y: y.sigmoid().detach().clone(), "a sigmoid"),
    "one and the rest": (one_against_all, "a sigmoid"),
    "logarithm": (lambda y: y.sigmoid().log(), "a sigmoid"),
    "in per cent": (lambda y: 100 * y.sigmoid(), "a sigmoid"),
    "log-sigmoid": (nn.LogSigmoid(), "a log-sigmoid"),
    "hard sigmoid": (nn.Hardsigmoid(), "a hard sigmoid"),
    "softmax": (nn.Softmax(1), "a softmax"),
    "last of a softmax": (lambda y: y.softmax(1)[:, 1:], "a softmax"),
    "log-softmax": (nn.LogSoftmax(1), "a log-softmax"),
    "softmax by hand": (by_hand, "a softmax"),
    "log-softmax by hand": (lambda y: y - y.logsumexp(1, keepdim=True), "a log-softmax"),
    "decision": (lambda y: (y > 0).float(), "a threshold"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_probabilities_are_refused(kind: str) -> None:
    end, name = ENDS[kind]
    with pytest.raises(MethodError, match=rf"ends in {name}.* put nn\.Identity\(\) in place"):
        explain(Then(end), IMAGES, "saliency")


@pytest.mark.parametrize("method", [method.name for method in list_methods()])
def test_saturated_probabilities_are_refused_by_every_method(method: str) -> None:
    network = nn.Sequential(*make_plain(1), nn.Sigmoid())
    network[4].bias.data += 30
    assert "ends in a sigmoid" in run(network, method)
    assert "As it is no method is sound." in run(network, method)


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda network: torch.jit.trace(network, IMAGES)]
)
def test_probabilities_of_torchscript_are_refused(make: Callable[..., nn.Module]) -> None:
    network = make(nn.Sequential(*make_plain(1), nn.Sigmoid()))
    with pytest.raises(MethodError, match="ends in a sigmoid"):
        explain(network, IMAGES, "occlusion")


class Gated(nn.Module):
    """Sigmoids, softmaxes and thresholds on the way, logits at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.gate = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images).relu()
        attention = self.gate(maps).flatten(2).softmax(2).reshape(maps.shape)
        pooled = (maps * attention * self.gate(maps).sigmoid()).sum((2, 3))
        logits = self.head(pooled)
        return (
            torch.where(logits > 0, logits, 0.1 * logits) * pooled.mean(1, keepdim=True).sigmoid()
        )


LOGITS: dict[str, Callable[[], nn.Module]] = {
    "gated": Gated,
    "between 0 and 1": lambda: Then(lambda y: 0.5 + 0.01 * y),
    "never negative": lambda: Then(F.relu),
    "bounded": lambda: Then(torch.tanh),
    "logits again": lambda: Then(lambda y: y.sigmoid().logit()),
}


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_that_look_like_probabilities_are_explained(kind: str) -> None:
    explained = explain(LOGITS[kind](), IMAGES, "saliency")
    assert explained.attribution.any()


# Other outputs

OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "no class": (lambda y: y[:, 0], r"got \(2,\)\. .*return logits\[:, None\]"),
    "axes of one": (lambda y: y[..., None, None], r"got \(2, 2, 1, 1\)\. .*logits\.flatten\(1\)"),
    "a segmentation": (lambda y: y[..., None, None].expand(-1, -1, 4, 4), "a segmentation network"),
    "class numbers": (lambda y: y.argmax(1, keepdim=True), "got .*int64. .*before the argmax"),
    "a dict": (lambda y: {"out": y, "aux": y}, "got dict with 'out', 'aux'. Wrap the network"),
    "a pair": (lambda y: (y, y), "got tuple of 2. Wrap the network"),
    "an object": (lambda y: SimpleNamespace(logits=y), r"SimpleNamespace\. .*output\.logits"),
    "too many rows": (lambda y: torch.cat([y, y]), "2 images give 4 rows"),
    "no numbers": (lambda y: y / 0, r"not finite. Look for NaN"),
    "constant": (lambda y: 0 * y + 1, "the logits are the same for every image"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_is_no_logits_is_refused_with_the_way_out(kind: str) -> None:
    end, message = OUTPUTS[kind]
    for name in ("saliency", "occlusion"):
        with pytest.raises(MethodError, match=message):
            explain(Then(end), IMAGES, name)


# Images


def test_images_of_another_device_or_library() -> None:
    with pytest.raises(InputError, match=r"network is on cpu, the images on meta\. .*to\('cpu'\)"):
        explain(make_plain(), IMAGES.to("meta"))
    with pytest.raises(InputError, match=r"got ndarray\. Convert them with torch\.as_tensor"):
        explain(make_plain(), IMAGES.numpy())
    with pytest.raises(InputError, match="at least one image"):
        explain(make_plain(), IMAGES[:0])


def test_images_that_want_a_gradient_or_come_from_inference() -> None:
    expected = explain(make_plain(), IMAGES).attribution
    wanting = IMAGES.clone().requires_grad_()
    assert torch.equal(explain(make_plain(), wanting).attribution, expected)
    assert wanting.grad is None
    with torch.inference_mode():
        assert torch.equal(explain(make_plain(), IMAGES.clone()).attribution, expected)


def test_a_forward_that_was_compiled_is_named() -> None:
    def fail(logits: Tensor) -> Tensor:  # as torch does, which takes seconds to compile
        raise RuntimeError("This backward function was compiled with non-empty donated buffers")

    with pytest.raises(MethodError, match=r"compiled .* give one class_idx at a time"):
        explain(Then(fail), IMAGES, check=False)


def test_a_map_of_zeros_is_not_passed_on_without_a_word(caplog) -> None:
    """No pixel of the first image is bright enough to matter."""
    network = Then(lambda y: y)
    network.network.insert(0, nn.Threshold(5.0, 0.0))
    images = torch.cat([IMAGES[:1], 10 * IMAGES[1:]])
    with caplog.at_level(logging.WARNING):
        explain(network, images, "saliency")
        explain(network, images, "grad_cam")
    (record,) = caplog.records
    assert "saliency is zero everywhere on 1 of 2 images" in record.getMessage()
