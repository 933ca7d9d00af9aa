"""GP-ShuffleUNet, GP-ReconResNet and the plain CNN: structure, invariants of their heads, sizes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import nn

from heatmask.attribution.inherent import ExplainedClassifier
from heatmask.errors import InputError, OptionError
from heatmask.networks.cnn import CNN
from heatmask.networks.global_pooling import crop_to, pad_to_multiple, pool_top
from heatmask.networks.gp_recon_resnet import GPReconResNet
from heatmask.networks.gp_shuffle_unet import GPShuffleUNet, shuffle_down, shuffle_up
from heatmask.networks.gp_unet import GPUNet

SMALL = {
    GPShuffleUNet: {"features": 8, "levels": 2},
    GPReconResNet: {"features": 4, "blocks": 2},
}


def make(kind: type, spatial_dims: int = 2, **options: object) -> nn.Module:
    torch.manual_seed(0)
    shape = {"spatial_dims": spatial_dims, "in_channels": 2, "num_classes": 3}
    return kind(**{**shape, **SMALL.get(kind, {}), **options}).eval()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("pool_at", ["features", "map"])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize("size", [(17, 22), (16, 24), (9, 10, 13)])
def test_any_size_gives_a_heatmap_on_its_grid(kind, pool_at, norm, size) -> None:
    network = make(kind, len(size), pool_at=pool_at, norm=norm)
    assert isinstance(network, ExplainedClassifier)
    images = torch.randn(2, 2, *size)
    with torch.no_grad():
        logits, heatmap = network.forward_heatmap(images)
        torch.testing.assert_close(network(images), logits)
    assert logits.shape == (2, 3)
    assert heatmap.shape == (2, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", SMALL)
def test_the_logits_follow_from_the_features_in_closed_form(kind) -> None:
    network, images = make(kind, pooling="max"), torch.randn(2, 2, 17, 22)
    with torch.no_grad():
        features = network.forward_features(images).flatten(2).numpy()
        logits, heatmap = network.forward_heatmap(images)
    weight = network.head.weight.detach().flatten(1).numpy()
    bias = network.head.bias.detach().numpy()
    np.testing.assert_allclose(logits.numpy(), features.max(-1) @ weight.T + bias, atol=1e-5)
    expected = np.einsum("kf,bfn->bkn", weight, features) + bias[:, None]
    np.testing.assert_allclose(heatmap.flatten(2).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_an_image_does_not_feel_its_batch(kind) -> None:
    network, images = make(kind), torch.randn(3, 2, 17, 22)
    with torch.no_grad():
        together = network.forward_heatmap(images)[1]
        alone = torch.cat([network.forward_heatmap(image[None])[1] for image in images])
    scale = float(together.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * scale)


def test_the_published_shuffle_unet() -> None:
    """Three levels from 64 features, no pooling, no transposed convolution, no norm."""
    network = GPShuffleUNet(in_channels=4, num_classes=3)
    assert [down.decompose[0].in_channels for down in network.down] == [64, 128, 256]
    # Four 3x3 convolutions side by side have the weights of one with four times the channels.
    assert all(down.decompose[0].out_channels == 4 * width
               for down, width in zip(network.down, (64, 128, 256), strict=True))  # fmt: skip
    for down, width in zip(network.down, (64, 128, 256), strict=True):
        assert down.narrow.out_channels == width // 4  # shuffling down gives width again
        assert down.convolutions[-2].out_channels == 2 * width
    for up, width in zip(network.up, (256, 128, 64), strict=True):
        assert up.widen.in_channels == 2 * width
        assert up.convolutions[0].in_channels == 5 * width
    kinds = {type(module).__name__ for module in network.modules()}
    assert not [kind for kind in kinds if "Pool" in kind or "Transpose" in kind or "Norm" in kind]
    assert (network.pool_at, network.pooling) == ("features", "max")


def test_the_parts_are_added_across_the_skip() -> None:
    """Without the way up, what remains of the sums is the way down's parts."""
    network = make(GPShuffleUNet, levels=1)
    seen = []
    network.up[0].convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        for parameter in network.up[0].decompose.parameters():
            parameter.zero_()
        network(images)
        whole = network.entry(images)
        parts = network.down[0].decompose(whole)
    torch.testing.assert_close(seen[0], torch.cat([whole, parts], dim=1))


def test_the_published_recon_resnet() -> None:
    """14 residual blocks, 64 features, two halvings, instance norm, PReLU, dropout 0.2."""
    network = GPReconResNet(in_channels=4, num_classes=3)
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("_Residual") == 14
    assert kinds.count("InstanceNorm2d") == 1 + 2 + 2 * 14 + 2
    assert kinds.count("PReLU") == 1 + 2 + 14 + 2
    assert "ReLU" not in kinds
    plain = [m for m in network.body if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    channels = [plain[0].in_channels, *(m.out_channels for m in plain)]
    assert list(pairwise(channels)) == [(4, 64), (64, 128), (128, 256), (256, 128), (128, 64)]
    assert plain[0].kernel_size == (7, 7)
    dropouts = [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)]
    assert dropouts == [0.2] * 14


def test_without_its_branches_a_residual_block_is_the_identity() -> None:
    network, x = make(GPReconResNet), torch.randn(1, 16, 9, 9)
    block = next(m for m in network.body if type(m).__name__ == "_Residual")
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        torch.testing.assert_close(block(x), x)


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    factors=st.tuples(*[st.integers(1, 8)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_cropping_undoes_padding(sizes: list[int], factors: tuple[int, ...]) -> None:
    x = torch.randn(2, 1, *sizes)
    padded = pad_to_multiple(x, list(factors))
    for size, before, factor in zip(padded.shape[2:], sizes, factors, strict=False):
        assert size % factor == 0
        assert 0 <= size - before < factor
    assert float(padded.sum()) == pytest.approx(float(x.sum()), abs=1e-4)
    assert torch.equal(crop_to(padded, sizes), x)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_cnn_halves_its_grid_from_stage_to_stage(spatial_dims: int) -> None:
    network = make(CNN, spatial_dims, features=(4, 6, 8))
    shapes = {}
    for name in ("stage1", "stage2", "stage3"):
        network.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    size = (16, 24, 20)[:spatial_dims]
    assert network(torch.randn(2, 2, *size)).shape == (2, 3)
    for level, (name, width) in enumerate(zip(shapes, (4, 6, 8), strict=True)):
        assert shapes[name] == (width, *(n // 2**level for n in size))


@pytest.mark.parametrize("fraction", [1.0, 0.25, 1e-9])
def test_the_cnn_pools_the_top_of_its_last_maps(fraction: float) -> None:
    network = make(CNN, features=(4, 6), top_fraction=fraction)
    maps = []
    network.stage2.register_forward_hook(lambda _, inputs, output: maps.append(output.detach()))
    with torch.no_grad():
        logits = network(torch.randn(2, 2, 16, 24))
    values = np.sort(maps[0].flatten(2).numpy(), axis=-1)
    pooled = values[..., -max(1, round(fraction * values.shape[-1])) :].mean(-1)
    expected = pooled @ network.fc.weight.detach().numpy().T + network.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)
    if fraction == 1.0:
        torch.testing.assert_close(pool_top(maps[0], 1.0), maps[0].mean((-2, -1)))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GPShuffleUNet, {"features": 6}, "features must be a multiple of 4, got 6"),
        (GPShuffleUNet, {"norm": "group"}, "norm must be one of none, batch, instance"),
        (GPReconResNet, {"norm": "layer"}, "norm must be one of none, batch, instance"),
        (GPReconResNet, {"pool_at": "end"}, "pool_at must be one of features, map"),
        (CNN, {"top_fraction": 0.0}, r"top_fraction must lie in \(0, 1\], got 0\.0"),
        (CNN, {"norm": "layer"}, "norm must be one of none, batch, instance"),
    ],
)
def test_options_that_cannot_be_are_refused(kind, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        make(kind, **options)


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 8 x 8 pixels .* got 7 x 40"):
        make(GPReconResNet)(torch.randn(1, 2, 7, 40))
    with pytest.raises(InputError, match="at least 4 x 4 pixels"):
        make(CNN, features=(4, 4, 4))(torch.randn(1, 2, 3, 40))
    thick = {"spatial_dims": 3, "pool_size": (2, 2, 1), "features": (4, 4, 4)}
    assert make(CNN, **thick)(torch.randn(1, 2, 4, 40, 1)).shape == (1, 3)
    with pytest.raises(InputError, match=r"at least 4 x 4 x 1 pixels .* got 40 x 3 x 5"):
        make(CNN, **thick)(torch.randn(1, 2, 40, 3, 5))


@pytest.mark.parametrize("spatial", [(6, 8), (6, 8, 4)])
def test_shuffling_is_the_reference_shuffling(spatial: tuple[int, ...]) -> None:
    x = torch.randn(2, 16, *spatial)
    torch.testing.assert_close(shuffle_up(x), pixelshuffle(x, len(spatial), 2))
    torch.testing.assert_close(shuffle_down(x), pixelunshuffle(x, len(spatial), 2))
    torch.testing.assert_close(shuffle_down(shuffle_up(x)), x)


@pytest.mark.parametrize("kind", [GPUNet, GPShuffleUNet, GPReconResNet, CNN])
def test_torchscript_gives_the_same_logits_at_any_size(kind: type[nn.Module]) -> None:
    network = make(kind).eval()
    scripted = torch.jit.script(network)
    for size in (32, 27):
        images = torch.randn(2, 2, size, 40)
        torch.testing.assert_close(scripted(images), network(images))
