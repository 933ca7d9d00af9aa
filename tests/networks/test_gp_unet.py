"""GP-UNet: its pooling against numpy, its structure against the paper."""

import numpy as np
import pytest
import torch
from monai.networks import nets
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.attribution.inherent import ExplainedClassifier
from heatmask.attribution.layers import LayerTap
from heatmask.errors import InputError, MethodError, OptionError
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.resnet import make_resnet
from helpers.planted import PlantedClassifier

SIZES = {2: (17, 22), 3: (9, 6, 11)}


def make_network(spatial_dims: int = 2, seed: int = 0, **options: object) -> GPUNet:
    torch.manual_seed(seed)
    defaults = {"features": (4, 6, 8), "in_channels": 2, "num_classes": 3}
    return GPUNet(spatial_dims=spatial_dims, **{**defaults, **options}).eval()


def draw_images(spatial_dims: int, count: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(count, channels, *SIZES[spatial_dims])


def run_with_features(network: GPUNet, images: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
    """The last feature map (B, F, N) beside what forward_heatmap returns."""
    seen: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits, heatmap = network.forward_heatmap(images)
    handle.remove()
    return seen[0].flatten(2).numpy(), logits, heatmap


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("pool_at", ["features", "map"])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_shapes_at_odd_sizes(spatial_dims: int, pool_at: str, norm: str) -> None:
    images = draw_images(spatial_dims)
    network = make_network(spatial_dims, pool_at=pool_at, norm=norm)
    logits, heatmap = network.forward_heatmap(images)
    assert logits.shape == (2, 3)
    assert heatmap.shape == (2, 3, *SIZES[spatial_dims])
    torch.testing.assert_close(network(images), logits)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("pool_at", ["features", "map"])
def test_the_heatmap_is_the_head_on_unpooled_features(spatial_dims: int, pool_at: str) -> None:
    network = make_network(spatial_dims, pool_at=pool_at)
    features, _, heatmap = run_with_features(network, draw_images(spatial_dims))
    weight = network.head.weight.detach().flatten(1).numpy()
    bias = network.head.bias.detach().numpy()
    expected = np.einsum("kf,bfn->bkn", weight, features) + bias[:, None]
    np.testing.assert_allclose(heatmap.flatten(2).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pooled_features_give_the_logits_in_closed_form(spatial_dims: int) -> None:
    """As published: head(max over positions of the features)."""
    network = make_network(spatial_dims, pool_at="features", pooling="max")
    features, logits, heatmap = run_with_features(network, draw_images(spatial_dims))
    weight = network.head.weight.detach().flatten(1).numpy()
    expected = features.max(-1) @ weight.T + network.head.bias.detach().numpy()
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)
    assert not np.allclose(expected, heatmap.flatten(2).amax(-1).numpy(), atol=1e-4)


@pytest.mark.parametrize("top_fraction", [1e-6, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_pooled_map_gives_the_mean_of_its_top_fraction(
    spatial_dims: int, top_fraction: float
) -> None:
    network = make_network(spatial_dims, pool_at="map", pooling="top", top_fraction=top_fraction)
    _, logits, heatmap = run_with_features(network, draw_images(spatial_dims))
    values = np.sort(heatmap.flatten(2).numpy(), axis=-1)
    count = max(1, round(top_fraction * values.shape[-1]))
    np.testing.assert_allclose(logits.numpy(), values[..., -count:].mean(-1), atol=1e-5)


def test_a_pooled_map_with_max_is_its_maximum() -> None:
    network = make_network(pool_at="map", pooling="max")
    _, logits, heatmap = run_with_features(network, draw_images(2))
    torch.testing.assert_close(logits, heatmap.amax((-2, -1)))


def test_top_pooling_of_features_in_closed_form() -> None:
    network = make_network(pool_at="features", pooling="top", top_fraction=0.05)
    features, logits, _ = run_with_features(network, draw_images(2))
    count = round(0.05 * features.shape[-1])
    pooled = np.sort(features, axis=-1)[..., -count:].mean(-1)
    weight = network.head.weight.detach().flatten(1).numpy()
    expected = pooled @ weight.T + network.head.bias.detach().numpy()
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)


def test_the_published_structure() -> None:
    """Three levels of 64, 128 and 256 features, average pooling, no norm (arXiv 2206.05148)."""
    network = GPUNet(in_channels=4, num_classes=3)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    channels = [(m.in_channels, m.out_channels) for m in convolutions]
    assert channels == [
        (4, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256),
        (256 + 128, 128), (128, 128), (128 + 64, 64), (64, 64), (64, 3),
    ]  # fmt: skip
    sizes = [m.kernel_size[0] for m in convolutions]
    assert sizes == [3] * 10 + [1]
    count = sum(p.numel() for p in network.parameters())
    assert count == sum((9 * a + 1) * b for a, b in channels[:-1]) + 64 * 3 + 3
    assert any(isinstance(m, nn.AvgPool2d) for m in network.modules())
    assert not any("Norm" in type(m).__name__ for m in network.modules())
    assert (network.pool_at, network.pooling) == ("features", "max")


def test_depth_follows_features() -> None:
    assert len(make_network(features=(4, 4, 4, 4)).encoder) == 4
    smallest = torch.randn(1, 2, 2, 2)
    assert make_network(features=(4, 6)).forward_heatmap(smallest)[1].shape == (1, 3, 2, 2)


def test_top_pooling_trains_more_than_one_pixel() -> None:
    """The reason for it: with the maximum only one position receives a gradient."""
    touched = {}
    for pooling in ("max", "top"):
        network = make_network(pool_at="map", pooling=pooling, top_fraction=0.1)
        heatmap = torch.randn(1, 3, 17, 22, requires_grad=True)
        network._pool(heatmap).sum().backward()
        touched[pooling] = int((heatmap.grad != 0).sum())
    assert touched == {"max": 3, "top": 3 * round(0.1 * 17 * 22)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "group"}, r"norm must be one of none, batch, instance, got 'group'"),
        ({"pool_at": "end"}, r"pool_at must be one of features, map, got 'end'"),
        ({"pooling": "mean"}, r"pooling must be one of max, top, got 'mean'"),
        ({"top_fraction": 0.0}, r"top_fraction must lie in \(0, 1\], got 0.0"),
        ({"top_fraction": 1.5}, r"top_fraction must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_network(**options)


def test_a_coarse_attribution_comes_to_the_images_grid() -> None:
    network = PlantedClassifier(gains=(1.0, 0.0), offsets=(0.0, 3.0), shrink=4)
    images = torch.randn(2, 1, 16, 24)
    logits, attribution = Explainer("inherent")(network, images)
    assert attribution.shape == (2, 2, 16, 24)
    np.testing.assert_allclose(logits[:, 0].detach(), images.amax((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(attribution[:, 1].detach(), 3.0)
    # A block's centre lies between four coarse pixels of its own value.
    assert attribution[:, 0].std() < images.std()


def test_a_fine_attribution_is_left_alone() -> None:
    images = torch.randn(1, 1, 5, 7)
    _, attribution = Explainer("inherent")(PlantedClassifier((2.0,), (1.0,)), images)
    torch.testing.assert_close(attribution, 2 * images + 1)


def test_gp_networks_explain_themselves_and_others_are_refused() -> None:
    assert isinstance(make_network(), ExplainedClassifier)
    with pytest.raises(
        MethodError, match=r"needs a network that offers forward_heatmap.*and Linear"
    ):
        Explainer("inherent")(nn.Linear(2, 2), torch.zeros(1, 1, 4, 4))


def test_an_image_smaller_than_the_coarsest_level_is_refused() -> None:
    network = GPUNet(features=(4, 8, 16))
    assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 1)
    with pytest.raises(InputError, match=r"at least 4 x 4 pixels.*got 3 x 9"):
        network(torch.zeros(1, 1, 3, 9))


# --- ResNet --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [10, 18, 34, 50])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_resnet_by_depth_is_monais(depth: int, spatial_dims: int) -> None:
    twin = getattr(nets, f"resnet{depth}")(
        spatial_dims=spatial_dims, n_input_channels=1, num_classes=2, shortcut_type="B"
    )
    ours = make_resnet(depth, spatial_dims, num_classes=2)
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes


def test_resnet_without_pooling_has_a_map_twice_as_fine() -> None:
    images = torch.rand(1, 1, 64, 64)
    for max_pool, size in ((True, 4), (False, 8)):
        network = make_resnet(10, widen_factor=0.1, max_pool=max_pool).eval()
        tap = LayerTap(network, ["layer4"])
        network(images)
        assert tap.activations[0].shape[2:] == (size, size)


def test_resnet_of_no_such_depth() -> None:
    with pytest.raises(OptionError, match=r"depth must be one of 10, 18, .*got 20"):
        make_resnet(20)
