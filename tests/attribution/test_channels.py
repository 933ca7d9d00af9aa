"""Absent sequences: an explanation on the channels that are there, and on no others."""

import pytest
import torch
from torch import Tensor, nn

from heatmask.attribution import Explainer, explain
from heatmask.attribution.batches import explain_present_channels
from heatmask.errors import OptionError
from heatmask.networks.cnn import CNN
from heatmask.networks.gp_unet import GPUNet

METHODS = (
    "saliency", "guided_backprop", "deconvolution", "smoothgrad", "integrated_gradients",
    "gradient_shap", "expected_gradients", "deep_lift", "grad_cam", "guided_grad_cam",
    "score_cam", "occlusion", "feature_ablation", "lrp_epsilon",
)  # fmt: skip


def make_network(channels: int = 2) -> CNN:
    torch.manual_seed(3)
    network = CNN(in_channels=channels, num_classes=2, features=(4, 8))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def keep_one_channel(network: CNN, channel: int) -> CNN:
    """The network that never had the other channels: with zeros in them it is the same."""
    single = make_network(1)
    state = network.state_dict()
    first = next(n for n, p in network.named_parameters() if p.ndim == 4)
    state[first] = state[first][:, channel : channel + 1]
    single.load_state_dict(state)
    return single


def make_images(*present: tuple[int, int]) -> Tensor:
    drawn = torch.rand(len(present), 2, 16, 20, generator=torch.Generator().manual_seed(4))
    return drawn * torch.tensor(present)[:, :, None, None]


@pytest.mark.parametrize("method", METHODS)
def test_an_absent_channel_is_as_if_the_network_did_not_have_it(method: str) -> None:
    network, channel = make_network(), METHODS.index(method) % 2
    images = make_images((1 - channel, channel))
    found = explain_present_channels(Explainer(method), network, images)
    alone = keep_one_channel(network, channel)
    expected = explain(alone, images[:, channel : channel + 1], method, check=False)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.attribution, expected.attribution, rtol=1e-4, atol=1e-6)


def test_a_gradient_in_an_absent_channel_would_have_counted() -> None:
    network, images = make_network(), make_images((1, 0))
    found = explain_present_channels(Explainer("saliency"), network, images)
    naive = explain(network, images, "saliency", check=False)
    assert (found.attribution - naive.attribution).abs().max() > 0.1 * naive.attribution.max()


@pytest.mark.parametrize("method", ["guided_backprop", "grad_cam", "occlusion"])
def test_one_class_alone_has_the_map_that_it_has_among_all(method: str) -> None:
    network, images = make_network(), make_images((1, 1), (0, 1), (1, 0))
    everything = explain_present_channels(Explainer(method), network, images)
    for k in range(2):
        found = explain_present_channels(Explainer(method), network, images, k)
        torch.testing.assert_close(found.attribution, everything.attribution[:, k : k + 1])


@pytest.mark.parametrize("method", ["guided_backprop", "grad_cam", "occlusion"])
def test_images_of_any_channels_come_back_in_their_order(method: str) -> None:
    network = make_network()
    images = make_images((1, 1), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1))
    found = explain_present_channels(Explainer(method), network, images, batch_size=2)
    for index, image in enumerate(images):
        alone = explain_present_channels(Explainer(method), network, image[None])
        torch.testing.assert_close(found.logits[index], alone.logits[0])
        torch.testing.assert_close(found.attribution[index], alone.attribution[0])


def test_an_inherent_heatmap_is_the_forward_pass_itself() -> None:
    network = GPUNet(in_channels=2, features=(4, 8)).eval()
    images = make_images((1, 1), (0, 1))
    found = explain_present_channels(Explainer("inherent"), network, images)
    with torch.no_grad():
        torch.testing.assert_close(found.attribution, network.forward_heatmap(images)[1])


def test_the_network_is_left_as_it_was() -> None:
    network, images = make_network(), make_images((0, 1))
    before = network(images)
    explain_present_channels(Explainer("guided_backprop"), network, images)
    torch.testing.assert_close(network(images), before)
    assert not network._forward_pre_hooks


def test_a_baseline_of_each_channel_does_not_fit_those_that_are_absent() -> None:
    network, images = make_network(), make_images((1, 1), (0, 1))
    for shape in ((2, 1, 1), (2, 1, 1, 1)):
        explainer = Explainer("integrated_gradients", baseline=torch.zeros(shape))
        explain_present_channels(explainer, network, images[:1].expand(2, -1, -1, -1))
        with pytest.raises(OptionError, match=r"the same for all channels and images; got shape"):
            explain_present_channels(explainer, network, images)
    for baseline in (0.5, torch.zeros(1, *images.shape[2:])):
        explain_present_channels(
            Explainer("integrated_gradients", baseline=baseline, steps=2), network, images
        )
