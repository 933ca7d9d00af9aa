"""Channel dropout: absent sequences in training, and what of an image is never lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heatmask.errors import OptionError
from heatmask.training.augment import Augmentation

STILL = {
    "rotation_deg": 0,
    "scale": 0,
    "shift": 0,
    "flip": False,
    "gamma": 0,
    "gain": 0,
    "noise": 0,
}


def draw_images(present: list[list[bool]]) -> Tensor:
    """One image (C, 9, 7) for each row, channels that are not present are zeros."""
    torch.manual_seed(0)
    images = 0.5 + torch.rand(len(present), len(present[0]), 9, 7)
    return images * torch.tensor(present)[:, :, None, None]


def list_kept(images: Tensor) -> Tensor:
    return images.flatten(2).any(-1)


@given(
    st.integers(1, 4).flatmap(
        lambda channels: st.lists(
            st.lists(st.booleans(), min_size=channels, max_size=channels), min_size=1, max_size=6
        )
    ),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_absent_channels_stay_absent_and_one_always_stays(present, probability, noise):
    images = draw_images(present)
    options = STILL | {"noise": noise, "channel_dropout": probability}
    before, after = list_kept(images), list_kept(Augmentation(**options)(images))
    seen = before.any(1)
    assert not (after & ~before)[seen].any()
    assert after[seen].any(1).all()
    single = before.sum(1) == 1
    assert torch.equal(after[single], before[single])
    several = before.sum(1) > 1
    if probability == 1:
        assert (after[several].sum(1) == 1).all()
    if probability == 0:
        assert torch.equal(after[seen], before[seen])


def test_what_is_kept_is_unchanged():
    images = draw_images([[True, True, True]] * 5)
    out = Augmentation(**STILL, channel_dropout=1.0)(images)
    kept = list_kept(out)
    torch.testing.assert_close(out[kept], images[kept], rtol=0, atol=1e-5)


def test_each_present_channel_is_kept_as_often_as_the_others():
    images = draw_images([[True, False, True, True]] * 6000)
    kept = list_kept(Augmentation(**STILL, channel_dropout=0.5)(images)).float()
    dropped = kept.sum(1) == 1
    assert float(dropped.float().mean()) == pytest.approx(0.5, abs=0.03)
    shares = kept[dropped].mean(0)
    torch.testing.assert_close(shares, torch.tensor([1, 0, 1, 1]) / 3, rtol=0, atol=0.03)


def test_without_dropout_the_draws_are_those_of_one_channel():
    """Turning it off gives back the very numbers of before; an empty slice has noise, too."""
    images = draw_images([[True], [False]])
    drawn = []
    for more in ({}, {"channel_dropout": 0.0}):
        torch.manual_seed(5)
        drawn.append((Augmentation(**more)(images), torch.rand(3)))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert drawn[0][0][1].any()


def test_contrast_is_drawn_for_each_channel():
    images = torch.ones(3, 2, 5, 6)
    out = Augmentation(**STILL | {"gain": 0.5})(images)[..., 2, 3]
    assert (out[:, 0] - out[:, 1]).abs().min() > 1e-3


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_probability_is_asked_for(value):
    with pytest.raises(OptionError, match="channel_dropout must be 0 to 1"):
        Augmentation(channel_dropout=value)


def test_the_slices_of_a_block_move_together():
    """A block of equal slices is augmented as its slice is, in every channel."""
    slices = torch.rand(5, 2, 9, 12) + 0.5
    torch.manual_seed(3)
    expected = Augmentation(noise=0.0)(slices)
    torch.manual_seed(3)
    out = Augmentation(noise=0.0)(slices[..., None].repeat(1, 1, 1, 1, 3))
    for depth in range(3):
        torch.testing.assert_close(out[..., depth], expected)


def test_slices_of_a_block_keep_their_order():
    block = torch.arange(1.0, 5).expand(1, 2, 6, 6, 4)
    out = Augmentation(**STILL)(block)
    torch.testing.assert_close(out, block, rtol=0, atol=1e-4)
