"""TypeInferer: one class of a volume, where the gate finds any."""

import pytest
import torch
from planted import PlantedClassifier
from torch import Tensor

from heatmask.attribution import Explainer
from heatmask.errors import OptionError
from heatmask.type_inferer import TypeInferer

EMPTY = -9.0
VALUES = torch.tensor([4.0, 4.0, 0.1, -5.0])
GATE = torch.tensor([3.0, 2.0, -2.0, 1.0])


class SecondChannel(PlantedClassifier):
    """The gate: it sees what the explained network does not."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 2
        return super().forward(images[:, 1:])


def make_volume() -> Tensor:
    """Slices for the first, the first, none and, surest of all, the second class."""
    return torch.stack([VALUES, GATE])[None, :, None, None].expand(1, 2, 3, 3, 4)


def make_inferer(**options: object) -> TypeInferer:
    return TypeInferer(SecondChannel((1.0,), (0.0,)), empty_value=EMPTY, **options)


NETWORK = PlantedClassifier((1.0, -1.0), (-2.0, -2.0))


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


@pytest.mark.parametrize("channels", [0, 1.5])
def test_channels_are_counted(channels: object) -> None:
    with pytest.raises(OptionError, match="channels must be a whole number from 1"):
        make_inferer(channels=channels)
