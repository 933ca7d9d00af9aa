"""The CAM family: closed forms and plain loops in float64, Captum and MONAI, and the invariants."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GuidedGradCam, LayerGradCam
from monai.networks.nets import DenseNet121, resnet18
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution import Explainer, Explanation, get_method, list_methods
from heatmask.attribution import explain as explain_checked
from heatmask.attribution.cam.channel import project_on_first_vector
from heatmask.attribution.cam.layers import find_stages
from heatmask.attribution.cam.replay import Replay
from heatmask.attribution.explainer import average_views
from heatmask.attribution.frozen import copy_frozen
from heatmask.errors import MethodError, OptionError

GRADIENT_CAMS = "grad_cam grad_cam_plus_plus hires_cam xgrad_cam layer_cam".split()
OTHERS = "cam eigen_cam guided_grad_cam multi_stage_cam score_cam ablation_cam".split()
CAMS = GRADIENT_CAMS + OTHERS
SIZES = {2: (7, 9), 3: (6, 5, 7)}
LINEAR = {2: "bilinear", 3: "trilinear"}


def make_small(dims: int, head: str = "pool", classes: int = 3, bias: bool = True) -> nn.Module:
    """Return `features`, `act`, and a `head`: pooled, linear, or deep; in float64."""
    torch.manual_seed(dims)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    relu = nn.ReLU(inplace=True)
    network = nn.Sequential()
    network.features = nn.Sequential(
        conv(2, 5, 3, padding=1, bias=bias), relu, conv(5, 6, 3, stride=2, padding=1, bias=bias)
    )
    network.act = relu  # one module for both ReLUs, as in MONAI's residual blocks
    heads = {
        "pool": [{2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims](1), nn.Flatten()],
        "flat": [nn.Flatten()],
        "deep": [conv(6, 4, 2, bias=bias), nn.ReLU() if not bias else nn.SiLU(), nn.Flatten()],
    }
    network.head = nn.Sequential(*heads[head], nn.LazyLinear(classes, bias=bias))
    network(torch.zeros(1, 2, *SIZES[dims]))
    return network.double().eval()


def draw_images(dims: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 2, *SIZES[dims], generator=generator, dtype=torch.float64)


def attribute(
    network: nn.Module, images: Tensor, name: str, class_idx: Any = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Call a method as the explainer does, but keep its resolution and float64."""
    return get_method(name).function(copy_frozen(network), images, class_idx, **options)


def explain(*args: Any, **options: Any) -> Explanation:
    """`explain` without the checks, which have tests of their own."""
    return explain_checked(*args, check=False, **options)


def differentiate_plainly(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The oracle: logits (B, K), maps of `act` (B, C, *s), gradients (B, K, C, *s)."""
    maps = network.act(network.features(images)).detach().requires_grad_()
    logits = network.head(maps)
    columns = logits.unbind(1)
    gradients = [torch.autograd.grad(c.sum(), maps, retain_graph=True)[0] for c in columns]
    return logits.detach(), maps.detach(), torch.stack(gradients, 1)


def randomise(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics of its own, as training would."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def resnets() -> dict[int, nn.Module]:
    """MONAI's ResNet-18, and what it explains: three classes in 2D, two in 3D."""
    torch.manual_seed(0)
    return {
        2: randomise(resnet18(spatial_dims=2, n_input_channels=1, num_classes=3)),
        3: randomise(resnet18(spatial_dims=3, n_input_channels=1, num_classes=2, conv1_t_stride=2)),
    }


@pytest.fixture(scope="module")
def densenets() -> dict[int, nn.Module]:
    torch.manual_seed(0)
    return {
        dims: randomise(DenseNet121(spatial_dims=dims, in_channels=1, out_channels=2))
        for dims in (2, 3)
    }


@pytest.fixture(scope="module")
def scans() -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        2: torch.rand(2, 1, 64, 64, generator=generator),
        3: torch.rand(2, 1, 40, 33, 48, generator=generator),
    }


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """Within this share of the largest magnitude, which is not zero."""
    largest = expected.abs().max().item()
    assert found.shape == expected.shape
    assert largest > 0
    assert (found - expected).abs().max().item() <= relative * largest


# Closed forms and plain loops


@pytest.mark.parametrize("dims", [2, 3])
def test_closed_forms_of_a_pooled_head(dims: int) -> None:
    """CAM = W . A, Grad-CAM = relu(W . A) / positions, and the others' closed forms."""
    network, images = make_small(dims), draw_images(dims)
    logits, maps, _ = differentiate_plainly(network, images)
    weight, bias = (p.detach() for p in network.head[-1].parameters())
    positions = maps.shape[2:].numel()
    cam = torch.einsum("kc,bc...->bk...", weight, maps)

    found_logits, found = attribute(network, images, "cam")
    torch.testing.assert_close(found, cam)
    torch.testing.assert_close(found_logits, logits)
    torch.testing.assert_close(found.flatten(2).mean(2) + bias, logits)
    for name in ("grad_cam", "xgrad_cam"):
        torch.testing.assert_close(attribute(network, images, name)[1], cam.relu() / positions)
        signed = attribute(network, images, name, signed=True)[1]
        torch.testing.assert_close(signed, cam / positions)
    torch.testing.assert_close(attribute(network, images, "hires_cam")[1], cam / positions)
    positive = torch.einsum("kc,bc...->bk...", weight.relu(), maps)
    torch.testing.assert_close(attribute(network, images, "layer_cam")[1], positive / positions)
    falls = torch.einsum("kc,bc,bc...->bk...", weight, maps.flatten(2).mean(2), maps)
    torch.testing.assert_close(attribute(network, images, "ablation_cam", signed=True)[1], falls)


@pytest.mark.parametrize("dims", [2, 3])
def test_hires_cam_sums_to_the_logit_where_only_linear_layers_follow(dims: int) -> None:
    network, images = make_small(dims, head="flat"), draw_images(dims)
    logits, found = attribute(network, images, "hires_cam")
    torch.testing.assert_close(found.flatten(2).sum(2), logits - network.head[-1].bias.detach())


def weigh_by_loop(name: str, maps: Tensor, gradient: Tensor, logit: float) -> Tensor:
    """The papers' formulae, for one image and class: (C, *s) twice to (*s)."""
    total = torch.zeros_like(maps[0])
    for a, g in zip(maps, gradient, strict=True):
        if name == "grad_cam":
            total += g.mean() * a
        elif name == "hires_cam":
            total += g * a
        elif name == "layer_cam":
            total += g.clamp(min=0) * a
        elif name == "xgrad_cam" and a.sum() != 0:
            total += (a / a.sum() * g).sum() * a
        elif name == "grad_cam_plus_plus":
            first, second, third = (np.exp(logit) * g**order for order in (1, 2, 3))
            alpha = (second / (2 * second + a.sum() * third)).nan_to_num()
            total += (alpha * first.clamp(min=0)).sum() * a / np.exp(logit)
    return total if name == "hires_cam" else total.clamp(min=0)


@pytest.mark.parametrize("name", GRADIENT_CAMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_cams_against_a_plain_loop(name: str, dims: int) -> None:
    """`act` is called twice, in place: its last call counts."""
    network, images = make_small(dims, head="deep"), draw_images(dims)
    logits, maps, gradients = differentiate_plainly(network, images)
    expected = torch.stack(
        [weigh_by_loop(name, maps[b], gradients[b, k], logits[b, k].item())
         for b in range(3) for k in range(3)]
    ).unflatten(0, (3, 3))  # fmt: skip
    found_logits, found = attribute(network, images, name, target_layer="act")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_logits, logits)


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 40, 2, 3), (2, 30, 2, 3, 2)])
@pytest.mark.parametrize("after_relu", [True, False])
def test_eigen_cam_against_svd(shape: tuple[int, ...], after_relu: bool) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    maps = maps.relu() if after_relu else maps
    found = project_on_first_vector(maps)
    for one, a in zip(found, maps.flatten(2).numpy(), strict=True):
        projection = a.T @ np.linalg.svd(a.T)[2][0]
        np.testing.assert_allclose(one.flatten(), projection * np.sign(projection.sum()), atol=1e-9)
        assert one.sum() > 0
    assert torch.equal(project_on_first_vector(torch.zeros(shape)), torch.zeros(shape)[:, 0])


def test_eigen_cam_is_the_same_for_every_class() -> None:
    network, images = make_small(2), draw_images(2)
    maps = network.act(network.features(images)).detach()
    _, found = attribute(network, images, "eigen_cam", [2, 0])
    expected = project_on_first_vector(maps)
    torch.testing.assert_close(found, torch.stack([expected, expected], 1))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_score_cam_against_a_plain_loop(dims: int, chunk: int) -> None:
    """On a layer of both signs, one of whose channels is flat."""
    network, images = make_small(dims, head="deep"), draw_images(dims)
    with torch.no_grad():
        network.features[2].weight[1] = 0
        maps = network.features(images)
        expected = []
        for image, channels in zip(images, maps, strict=True):
            scores = []
            for channel in channels[[0, 2, 3, 4, 5]]:
                mask = F.interpolate(channel[None, None], image.shape[1:], mode=LINEAR[dims])[0]
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                scores.append(network((image * mask)[None])[0])
            weights = torch.stack(scores).softmax(0)
            expected.append(
                torch.einsum("ck,c...->k...", weights, channels[[0, 2, 3, 4, 5]]).relu()
            )
    _, found = attribute(network, images, "score_cam", chunk=chunk, target_layer="features.2")
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_ablation_cam_against_a_plain_loop(dims: int, chunk: int) -> None:
    network, images = make_small(dims, head="deep"), draw_images(dims)
    with torch.no_grad():
        maps = network.act(network.features(images))
        expected = torch.zeros(3, 3, *maps.shape[2:], dtype=torch.float64)
        for channel in range(maps.shape[1]):
            ablated = maps.clone()
            ablated[:, channel] = 0
            fall = network.head(maps) - network.head(ablated)
            expected += torch.einsum("bk,b...->bk...", fall, maps[:, channel])
    options = {"chunk": chunk, "target_layer": "act"}
    _, found = attribute(network, images, "ablation_cam", signed=True, **options)
    torch.testing.assert_close(found, expected)
    _, found = attribute(network, images, "ablation_cam", **options)
    torch.testing.assert_close(found, expected.relu())


def test_guided_grad_cam_is_guided_backprop_times_grad_cam() -> None:
    network, images = make_small(2), draw_images(2)
    options = {"target_layer": "features.2"}
    _, found = attribute(network, images, "guided_grad_cam", **options)
    _, cam = attribute(network, images, "grad_cam", **options)
    _, guided = attribute(network, images, "guided_backprop")
    cam = F.interpolate(cam, SIZES[2], mode="bilinear")
    torch.testing.assert_close(found, cam * guided)
    assert found.abs().max() > 0


@pytest.mark.parametrize("base", ["grad_cam", "layer_cam", "hires_cam"])
@pytest.mark.parametrize("dims", [2, 3])
def test_multi_stage_cam_by_hand(base: str, dims: int) -> None:
    """Each stage times its positions, on the finest grid, fused."""
    network, images = make_small(dims, head="deep"), draw_images(dims)
    layers = ["features.0", "act"]
    stages = []
    for layer in layers:
        one = attribute(network, images, base, target_layer=layer)[1]
        one = one * one.shape[2:].numel()
        stages.append(F.interpolate(one, SIZES[dims], mode=LINEAR[dims]))
    expected = {
        "mean": (stages[0] + stages[1]) / 2,
        "max": torch.maximum(*stages),
        "product": (stages[0].relu() * stages[1].relu()).sqrt(),
    }
    for fuse, fused in expected.items():
        options = {"base": base, "fuse": fuse, "target_layer": layers}
        torch.testing.assert_close(
            attribute(network, images, "multi_stage_cam", **options)[1], fused
        )


# Captum and MONAI


def explain_with_monai(
    oracle: type[GradCAM], network: nn.Module, layer: str, images: Tensor, class_idx: int
) -> Tensor:
    """MONAI's map (B, 1, *s), on a copy: it leaves hooks behind and switches ReLUs."""
    maps = oracle(deepcopy(network), layer).compute_map(images, class_idx=class_idx)
    return maps.detach()


@pytest.mark.parametrize("dims", [2, 3])
def test_resnet_against_captum_and_monai(
    dims: int, resnets: dict[int, nn.Module], scans: dict[int, Tensor]
) -> None:
    network, images = resnets[dims], scans[dims]
    captum = LayerGradCam(network, network.layer4)
    logits, found = attribute(network, images, "grad_cam")
    _, signed = attribute(network, images, "grad_cam", signed=True)
    for k in range(2):
        assert_close(found[:, k : k + 1], explain_with_monai(GradCAM, network, "layer4", images, k))
        assert_close(signed[:, k : k + 1], captum.attribute(images, target=k).detach())
    with torch.no_grad():
        assert_close(logits, network(images), 1e-5)
        cam_logits, cam = attribute(network, images, "cam")
        assert_close(cam_logits, logits, 1e-5)
        assert_close(cam.flatten(2).mean(2) + network.fc.bias, logits, 1e-5)


@pytest.mark.parametrize("layer", ["layer3", "layer4.1.bn2"])
def test_other_layers_against_captum(
    layer: str, resnets: dict[int, nn.Module], scans: dict[int, Tensor]
) -> None:
    network, images = resnets[2], scans[2]
    captum = LayerGradCam(network, network.get_submodule(layer))
    _, found = attribute(network, images, "grad_cam", 1, target_layer=layer, signed=True)
    assert_close(found, captum.attribute(images, target=1).detach())


@pytest.mark.parametrize(("dims", "layer"), [(2, None), (3, "features.denseblock3")])
def test_densenet_against_captum_and_monai(
    dims: int, layer: str | None, densenets: dict[int, nn.Module], scans: dict[int, Tensor]
) -> None:
    network, images = densenets[dims], scans[dims]
    module = network.get_submodule(layer or "class_layers.relu")
    _, signed = attribute(network, images, "grad_cam", 0, target_layer=layer, signed=True)
    assert_close(signed, LayerGradCam(network, module).attribute(images, target=0).detach())
    _, found = attribute(network, images, "grad_cam", target_layer=layer)
    expected = explain_with_monai(GradCAM, network, layer or "class_layers.relu", images, 1)
    assert_close(found[:, 1:], expected)


def test_grad_cam_plus_plus_against_monai(scans: dict[int, Tensor]) -> None:
    """One image a time, without the factor exp(logit), and with gradients far above its 1e-7."""
    torch.manual_seed(0)
    network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=2, widen_factor=0.25)
    network, images = randomise(network).double(), scans[2].double()
    with torch.no_grad():
        network.fc.weight *= 100
    for image in images.split(1):
        logits, found = attribute(network, image, "grad_cam_plus_plus", 1)
        expected = explain_with_monai(GradCAMpp, network, "layer4", image, 1)
        assert_close(found, expected / logits[0, 1].exp())


def test_guided_grad_cam_against_captum(
    resnets: dict[int, nn.Module], scans: dict[int, Tensor]
) -> None:
    network, images = resnets[2], scans[2].clone().requires_grad_()
    with pytest.warns(UserWarning, match="hooks"):
        expected = GuidedGradCam(network, network.layer4).attribute(
            images, target=1, interpolate_mode="bilinear"
        )
    _, found = attribute(network, images.detach(), "guided_grad_cam", 1)
    assert_close(found, expected.detach())


# Invariants


@pytest.mark.parametrize("name", CAMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_all_classes_at_once_are_class_by_class_and_batches_image_by_image(
    name: str, dims: int
) -> None:
    network, images = make_small(dims), draw_images(dims)
    logits, found = explain(network, images, name)
    assert found.shape == (3, 3, *SIZES[dims])
    assert found.dtype == torch.float32
    assert not found.requires_grad
    for k in range(3):
        assert_close(explain(network, images, name, k).attribution, found[:, k : k + 1], 1e-6)
    assert_close(explain(network, images, name, [2, 0]).attribution, found[:, [2, 0]], 1e-6)
    each = explain(network, images, name, torch.tensor([1, 0, 2])).attribution
    assert_close(each[:, 0], found[torch.arange(3), torch.tensor([1, 0, 2])], 1e-6)
    single = explain(network, images, name, batch_size=1)
    for b in range(3):
        assert_close(single.attribution[b], found[b], 1e-6)
    torch.testing.assert_close(single.logits, logits)


@pytest.mark.parametrize("name", [name for name in CAMS if name != "score_cam"])
def test_batches_change_nothing_in_float32(name: str, scans: dict[int, Tensor]) -> None:
    torch.manual_seed(0)
    network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=2, widen_factor=0.125)
    images = torch.cat([scans[2], 40 * scans[2]])
    together, alone = (
        explain(randomise(network), images, name, batch_size=size).attribution for size in (4, 1)
    )
    for found, expected in zip(together, alone, strict=True):
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "xgrad_cam", "layer_cam", "cam"])
@pytest.mark.parametrize("fuse", ["mean", "max", "product"])
def test_no_map_is_scaled_by_its_own_range(name: str, fuse: str) -> None:
    """Without biases the logit doubles with the image, and so must its map."""
    network, images = make_small(2, head="pool", bias=False), draw_images(2)
    options: dict[str, Any] = {}
    if name != "cam":
        options, name = {"base": name, "fuse": fuse}, "multi_stage_cam"
    _, found = attribute(network, images, name, **options)
    _, doubled = attribute(network, 2 * images, name, **options)
    torch.testing.assert_close(doubled, 2 * found)
    assert found.abs().amax((1, 2, 3)).min() > 0


def snapshot(network: nn.Module) -> list[Any]:
    """Everything of a network that a method could leave changed."""
    state: list[Any] = [{k: v.clone() for k, v in network.state_dict().items()}]
    for module in network.modules():
        hooks = [len(v) for k, v in vars(module).items() if k.endswith("hooks")]
        state.append((module.training, hooks, vars(module).get("forward")))
    state += [(p.requires_grad, p.grad) for p in network.parameters()]
    return state


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert found[1:] == expected[1:]
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())


@pytest.mark.parametrize("name", CAMS)
def test_the_network_stays_as_it_was(name: str) -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), make_small(2).float()).train()
    images = draw_images(2).float()
    before = snapshot(network)
    with torch.no_grad():
        explain(network, images, name)
    assert_same(snapshot(network), before)
    with pytest.raises(OptionError, match="class_idx must lie in 0 to 2"):
        explain(network, images, name, 3)
    assert_same(snapshot(network), before)
    assert not images.requires_grad


@pytest.mark.parametrize("name", CAMS)
def test_averaging_over_flips_and_scales(name: str) -> None:
    """Flips: the map of the mirrored image is the mirrored map. Scales: the average by hand."""
    network, images = make_small(2), draw_images(2, 2)
    flipped = Explainer(name, flips=(0,))
    found = flipped(network, images.flip(2)).attribution
    assert_close(found, flipped(network, images).attribution.flip(2), 1e-6)
    assert not torch.equal(found, explain(network, images.flip(2), name).attribution)

    double = F.interpolate(images, (14, 18), mode="bilinear")
    fine, coarse = (attribute(network, i, name)[1] for i in (double, images))
    coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear")
    power = get_method(name).size_power
    _, found = average_views(
        get_method(name).function, copy_frozen(network), images, None, (), (1, 2), power=power
    )
    assert_close(found, (4**power * fine + coarse) / 2, 1e-10)


def test_eight_threads_on_one_network() -> None:
    network, images = make_small(2), draw_images(2)
    expected = {name: explain(network, images, name).attribution for name in CAMS}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: explain(network, images, name).attribution, 4 * CAMS))
    for name, one in zip(4 * CAMS, found, strict=True):
        assert torch.equal(one, expected[name])


# Layers


@pytest.mark.parametrize("kind", ["resnets", "densenets"])
@pytest.mark.parametrize("dims", [2, 3])
def test_default_layers(
    kind: str, dims: int, scans: dict[int, Tensor], request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(kind)[dims]
    stages = find_stages(copy_frozen(network), scans[dims])
    if kind == "resnets":
        assert stages[-3:] == ("layer2", "layer3", "layer4")
    elif dims == 2:
        assert stages[-1] == "class_layers.relu"
    else:  # of 40 x 33 x 48 nothing is left to look at after the last halving
        assert stages[-1] == "features.transition3.conv"


class Beside(nn.Module):
    """A classifier with a decoder beside it, whose map comes last and is thrown away."""

    def __init__(self, dims: int, wiring: str = "") -> None:
        super().__init__()
        self.classifier, self.wiring = make_small(dims), wiring
        conv = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
        self.decoder = conv(6, 1, 1).double()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.classifier.act(self.classifier.features(images))
        if self.wiring == "cut above":
            return self.classifier.head(maps).detach()
        logits = self.classifier.head(maps.detach() if self.wiring == "cut in the middle" else maps)
        self.decoder(maps)
        return logits


@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_beside_the_way_to_the_logits_is_no_stage(dims: int) -> None:
    network, images = Beside(dims), draw_images(dims)
    with torch.no_grad():
        stages = find_stages(copy_frozen(network), images)
    assert stages == ("classifier.features.0", "classifier.features.1")
    assert find_stages(copy_frozen(Beside(dims, "cut above")), images) == stages
    # Autograd sees no way at all: no map is left out, and the checks try the one chosen.
    assert find_stages(copy_frozen(Beside(dims, "cut in the middle")), images)[-1] == "decoder"


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "eigen_cam", "ablation_cam"])
def test_a_map_beside_the_way_is_not_explained(name: str) -> None:
    network, images = Beside(2), draw_images(2, 2)
    found = attribute(network, images, name)[1]
    expected = attribute(network, images, name, target_layer="classifier.act")[1]
    assert_close(found, expected, 1e-12)
    _, again = attribute(network, images, name)  # with what was found the first time
    assert torch.equal(again, found)


@pytest.mark.parametrize("first", [0, 1])
def test_a_dead_branch_of_one_network_is_not_that_of_another(first: int) -> None:
    """The same modules in the same order, but the logits of one come from the other's branch."""

    class TwoBranches(nn.Module):
        def __init__(self, alive: int) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.branches = nn.ModuleList(nn.Conv2d(2, 3, 3, padding=1) for _ in range(2))
            self.head, self.alive = nn.Linear(3, 2), alive

        def forward(self, images: Tensor) -> Tensor:
            maps = [branch(images) for branch in self.branches]
            return self.head(maps[self.alive].mean((2, 3)))

    images = torch.rand(2, 2, 8, 8)
    for alive in (first, 1 - first):
        network, layer = TwoBranches(alive), f"branches.{alive}"
        for name in ("grad_cam", "eigen_cam"):
            found = explain(network, images, name).attribution
            named = explain(network, images, name, target_layer=layer).attribution
            assert torch.equal(found, named)
        network.alive = 1 - alive  # and of one network that is changed
        found = explain(network, images, "eigen_cam").attribution
        named = explain(network, images, "eigen_cam", target_layer=f"branches.{1 - alive}")
        assert torch.equal(found, named.attribution)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*grad attribute")
def test_a_scripted_part_gives_no_layer_but_stops_no_cam() -> None:
    network, images = make_small(2), draw_images(2, 2)
    expected = attribute(network, images, "grad_cam", target_layer="act")[1]
    network.features[2] = torch.jit.trace(network.features[2], network.features[:2](images))
    assert_close(attribute(network, images, "grad_cam")[1], expected, 1e-10)


def test_a_layer_called_again_later_is_no_stage() -> None:
    """The ReLU of both sizes holds its last call, so the first stage is the convolution."""
    for dims in (2, 3):
        assert find_stages(make_small(dims), draw_images(dims)) == ("features.0", "features.1")


def test_a_guess_from_a_network_alike_is_checked() -> None:
    """The same modules in the same order, on other grids: other default layers."""

    def make(strides: tuple[int, ...]) -> nn.Module:
        torch.manual_seed(0)
        convs = [nn.Conv2d(1 if i == 0 else 3, 3, 3, s, 1) for i, s in enumerate(strides)]
        return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    images = torch.rand(2, 1, 8, 8)
    early, late = make((2, 8, 1)), make((2, 1, 2))
    for _ in range(2):
        assert attribute(early, images, "grad_cam")[1].shape[2:] == (4, 4)
        assert attribute(late, images, "grad_cam")[1].shape[2:] == (2, 2)
        for network, layers in ((early, ["0"]), (late, ["1", "2"])):
            found = attribute(network, images, "multi_stage_cam")[1]
            named = attribute(network, images, "multi_stage_cam", target_layer=layers)[1]
            assert torch.equal(found, named)


@pytest.mark.parametrize("name", GRADIENT_CAMS)
def test_the_graph_starts_at_the_layer(name: str) -> None:
    """Below it the forward pass keeps nothing for autograd, and it is the only one."""
    network, images = make_small(2), draw_images(2)
    seen: list[bool] = []
    network.features[0].register_forward_hook(
        lambda m, i, output: seen.append(output.requires_grad)
    )
    explain(network, images, name)
    seen.clear()
    explain(network, images, name)
    assert seen == [False]


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda m, inputs, output: calls.append(len(output)))
    return calls


class Skipping(nn.Module):
    """A skip around the layer, something in place on what lies below, and two uses of `conv`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
        self.conv, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.noise = 0.0

    def forward(self, images: Tensor) -> Tensor:
        low = self.conv(self.stem(images))
        low += 0.5
        high = self.conv(self.layer(low)).tanh_() + self.noise * torch.rand(1)
        low += high
        return self.fc(low.relu_().flatten(2).mean(2))


def test_replay_runs_only_what_lies_above(resnets: dict[int, nn.Module]) -> None:
    network = copy_frozen(resnets[2])
    images = torch.rand(1, 1, 64, 64)
    replay = Replay(network, "layer4")
    logits, activation = replay.record(images)
    calls, above = count_calls(network.layer3[0].conv1), count_calls(network.fc)
    found = replay(torch.cat([activation, activation, 0 * activation]))
    torch.testing.assert_close(found[:2], logits.expand(2, -1))
    torch.testing.assert_close(found[2], network.fc.bias)
    assert (calls, above) == ([], [3])


def test_replay_with_skips_and_in_place_operations() -> None:
    torch.manual_seed(0)
    network, image = Skipping(), torch.rand(1, 2, 8, 8)
    replay = Replay(copy_frozen(network), "layer")
    logits, activation = replay.record(image)
    torch.testing.assert_close(logits, network(image).detach())
    others = torch.cat([activation, 0 * activation, activation.flip(1)])
    handles = [network.layer.register_forward_hook(lambda m, i, o: others)]
    expected = network(image.expand(3, -1, -1, -1)).detach()
    handles[0].remove()
    for _ in range(2):
        torch.testing.assert_close(replay(others), expected)
    torch.testing.assert_close(replay(others[1:2]), expected[1:2])


def test_replay_refuses_a_network_that_gives_other_logits() -> None:
    network = Skipping()
    network.noise = 1.0
    with pytest.raises(MethodError, match="must give the same logits when only what lies above"):
        explain(network, torch.rand(1, 2, 8, 8), "ablation_cam", target_layer="layer")


# What is refused


def test_cam_wants_a_pooled_head() -> None:
    images = draw_images(2)
    for head in ("flat", "deep"):
        with pytest.raises(MethodError, match="CAM needs global average pooling of target_layer"):
            explain(make_small(2, head=head), images, "cam", target_layer="act")
    with pytest.raises(MethodError, match="one linear layer, and the logits"):
        explain(make_small(2), images, "cam", target_layer="features.0")
    probabilities = nn.Sequential(make_small(2), nn.Softmax(1))
    with pytest.raises(MethodError, match="Choose the layer that is pooled"):
        explain(probabilities, images, "cam")


@pytest.mark.parametrize("name", CAMS)
def test_layers_that_cannot_be(name: str) -> None:
    network, images = make_small(2), draw_images(2)
    with pytest.raises(OptionError, match=r"got 'fatures'. Closest: 'features'"):
        explain(network, images, name, target_layer="fatures")
    for layer in ("head.2", "head.0"):
        with pytest.raises(MethodError, match="target_layer must give a map"):
            explain(network, images, name, target_layer=layer)
    with pytest.raises(OptionError, match=r"target_layer must name .*one layer, got 0"):
        explain(network, images, name, target_layer=[])
    if name != "multi_stage_cam":
        with pytest.raises(OptionError, match="take the method 'multi_stage_cam'"):
            explain(network, images, name, target_layer=["act", "features"])


class Sideways(nn.Module):
    """A layer that is never called, and one that the logits do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
        self.aside, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(3, 1)

    def forward(self, images: Tensor) -> Tensor:
        self.aside(images)
        return self.fc(self.conv(images).flatten(2).mean(2))


@pytest.mark.parametrize("name", [n for n in CAMS if n != "cam"])
def test_layers_that_do_not_matter(name: str) -> None:
    images = torch.rand(2, 2, 8, 8)
    with pytest.raises(MethodError, match="target_layer must be part of the forward pass"):
        explain(Sideways(), images, name, target_layer="unused")
    if name in (*GRADIENT_CAMS, "multi_stage_cam"):
        with pytest.raises(MethodError, match="The logits must depend on target_layer"):
            explain(Sideways(), images, name, target_layer="aside")


def test_other_refusals() -> None:
    images = draw_images(2)
    with pytest.raises(MethodError, match="must have a layer with a map of at least 2 positions"):
        explain(nn.Sequential(nn.Flatten(), nn.Linear(126, 2)).double(), images, "grad_cam")
    smooth = nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(MethodError, match="need ReLU activations, and"):
        explain(smooth.double(), images, "guided_grad_cam")
    with pytest.raises(OptionError, match=r"base must be one of grad_cam, .*got 'saliency'"):
        explain(make_small(2), images, "multi_stage_cam", base="saliency")
    with pytest.raises(OptionError, match="fuse must be one of mean, max, product, got 'sum'"):
        explain(make_small(2), images, "multi_stage_cam", fuse="sum")
    for name in ("score_cam", "ablation_cam"):
        with pytest.raises(OptionError, match="chunk must be a whole number of at least 1, got 0"):
            explain(make_small(2), images, name, chunk=0)


def test_the_registry_lists_them() -> None:
    assert {m.name for m in list_methods() if m.family == "cam"} == set(CAMS)
    cheap = [name for name in CAMS if get_method(name).in_one_forward]
    assert cheap == [*GRADIENT_CAMS, "cam", "eigen_cam"]


@pytest.mark.parametrize("name", ["grad_cam", "cam", "layer_cam", "eigen_cam", "multi_stage_cam"])
def test_a_blank_image_and_half_precision(name: str) -> None:
    network, images = make_small(2).float(), draw_images(2).float()
    images[1] = 0
    expected = explain(network, images, name).attribution
    assert expected.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(network, images, name).attribution
    both = torch.stack([found.flatten(), expected.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99
