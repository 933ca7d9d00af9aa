"""One class a volume: `HeatmapInferer` with a network that has a gate of its own."""

import pytest
import torch
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.errors import OptionError
from heatmask.inferer import HeatmapInferer
from heatmask.networks.gated_cnn import GatedCNN
from helpers.planted import PlantedClassifier

EMPTY = -9.0
VALUES = torch.tensor([4.0, 4.0, 0.1, -5.0])
GATE = torch.tensor([3.0, 2.0, -2.0, 1.0])


class SecondChannel(PlantedClassifier):
    """The gate: it sees what the explained network does not."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 2
        return super().forward(images[:, 1:])


class Gated(nn.Module):
    """Two classes of the first channel, and whether there is any, of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = PlantedClassifier((1.0, -1.0), (-2.0, -2.0))
        self.gate = SecondChannel((1.0,), (0.0,))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images[:, :1])

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.forward_heatmap(images[:, :1])


def make_volume() -> Tensor:
    """Slices for the first, the first, none and, surest of all, the second class."""
    return torch.stack([VALUES, GATE])[None, :, None, None].expand(1, 2, 3, 3, 4)


def make_inferer(**options: object) -> HeatmapInferer:
    return HeatmapInferer(one_class=True, empty_value=EMPTY, **options)


NETWORK = Gated()


def test_the_class_with_the_most_support_where_the_gate_opens() -> None:
    result = make_inferer()(make_volume(), NETWORK)
    classes = torch.stack([VALUES - 2, -VALUES - 2], dim=1).softmax(1)
    expected = classes * GATE.sigmoid()[:, None]
    torch.testing.assert_close(result["slice_probabilities"][0], expected)
    torch.testing.assert_close(result["probabilities"][0], expected.amax(0))
    assert result["shown"][0].tolist() == [[True, False]] * 2 + [[False] * 2] + [[True, False]]
    assert torch.equal(result["predicted"], result["shown"])
    assert result["heatmap"][0, :, 0, 0].tolist() == [[2, 2, EMPTY, -7], [EMPTY] * 4]


def test_slices_behind_the_gate_have_no_vote() -> None:
    """With the gate at 0.99 nothing is left but the last slice, which is for the second class."""
    volume = make_volume().clone()
    volume[:, 1, ..., 3] = 9.0
    result = make_inferer(gate_probability=0.99)(volume, NETWORK)
    assert result["shown"][0].tolist() == [[False, False]] * 3 + [[False, True]]


def test_without_the_gate_every_slice_shows_the_class() -> None:
    result = make_inferer(gate=False)(make_volume(), NETWORK)
    assert result["shown"][0].tolist() == [[True, False]] * 4
    assert result["predicted"][0, :, 0].tolist() == [True, True, False, True]
    closed = make_inferer(gate_probability=1.0)(make_volume(), NETWORK)
    assert not closed["predicted"].any()
    assert (closed["heatmap"] == EMPTY).all()


def test_a_single_slice_needs_no_gate() -> None:
    result = make_inferer()(make_volume()[..., 2:3], NETWORK)
    assert result["shown"][0].tolist() == [[True, False]]
    torch.testing.assert_close(result["slice_probabilities"].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("gate", [True, False])
def test_a_method_is_run_where_the_class_is_shown(gate: bool) -> None:
    explainer = Explainer("input_x_gradient")
    result = make_inferer(explainer=explainer, gate=gate)(make_volume(), NETWORK)
    sums = result["heatmap"][0, 0].sum(dim=(0, 1))
    shown = result["shown"][0, :, 0]
    torch.testing.assert_close(sums[shown], VALUES[shown])  # completeness: the offset aside
    assert (result["heatmap"][0, 1] == EMPTY).all()


def test_a_volume_whose_other_slices_are_empty_still_needs_the_gate() -> None:
    """One slice that is not all zero is not one that somebody has chosen."""
    volume = make_volume().clone()
    volume[..., [0, 1, 3]] = 0
    assert not make_inferer()(volume, NETWORK)["shown"].any()


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_single_slice_lies_along_its_own_axis(axis: int) -> None:
    volume = make_volume()[..., :1].movedim(4, axis)
    result = make_inferer()(volume, NETWORK)
    assert result["heatmap"].shape == (1, 2, *volume.shape[2:])
    assert result["shown"].tolist() == [[[True, False]]]
    assert (result["heatmap"][0, 0] == 2).all()


def test_a_network_without_gate_is_refused() -> None:
    with pytest.raises(OptionError, match="must have a gate, and PlantedClassifier has none"):
        make_inferer()(make_volume()[:, :1], NETWORK.classifier)
    ungated = GatedCNN(2, 2, 3, (4, 8))
    with pytest.raises(OptionError, match="GatedCNN has none"):
        make_inferer(explainer=Explainer("saliency"), check=False)(make_volume(), ungated)


def test_none_logit_and_gate_are_two_ways_to_say_the_same() -> None:
    with pytest.raises(OptionError, match="one_class must not be given with none_logit"):
        make_inferer(none_logit=True)


def test_the_classifier_takes_the_first_channel_and_the_gate_all() -> None:
    torch.manual_seed(0)
    network = GatedCNN(2, 2, 3, (4, 8), gate_features=(4, 6)).eval()
    images = torch.rand(2, 2, 8, 8)
    changed = images.clone()
    changed[:, 1] = 0
    with torch.no_grad():
        assert torch.equal(network(images), network(changed))
        assert network(images).shape == (2, 3)
        assert network.gate(images).shape == (2, 1)
        assert not torch.equal(network.gate(images), network.gate(changed))
    assert GatedCNN(2, 2, 3, (4, 8)).classifier.stage1[0].in_channels == 2
