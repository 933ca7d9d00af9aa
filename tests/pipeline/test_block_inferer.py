"""BlockInferer: a 3D network's blocks, blended, whatever their depth, overlap and axis."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.block_inferer import BlockInferer, blend, resample_slices
from heatmask.errors import InputError, OptionError

EMPTY = -9.0


class Brightness(nn.Module):
    """A logit is the mean of the block's brightest voxels in each slice; the heatmap the image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.flatten(1, 3).amax(1).mean(-1, keepdim=True) - 3

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), self.scale * images


def record_blocks(network: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of what the network gets from now on; a copy of it takes the hook along."""
    shapes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, args: shapes.extend([tuple(args[0].shape[1:])]))
    return shapes


def make_volume(slices: int, axis: int = 2, empty: int = 0) -> Tensor:
    stack = torch.rand(slices, 5, 6, generator=torch.Generator().manual_seed(slices)) + 0.5
    stack[: len(stack) // 2] += 1
    stack = torch.cat([torch.zeros(empty, 5, 6), stack])
    return stack.movedim(0, axis)[None, None]


def explain_naively(volume: Tensor, axis: int, depth: int, step: int) -> tuple[Tensor, Tensor]:
    """Slice by slice, over every block that holds it."""
    planes = [p for p in volume[0, 0].movedim(axis, 0) if p.any()]
    last = len(planes) - depth
    starts = sorted({*range(0, last, step), last})
    logits, total = [0.0] * len(planes), [0.0] * len(planes)
    for start in starts:
        bright = sum(float(p.max()) for p in planes[start : start + depth]) / depth
        for place in range(depth):
            weight = min(place + 1, depth - place)
            logits[start + place] += weight * (2 * bright - 3)
            total[start + place] += weight
    return torch.tensor(logits) / torch.tensor(total), 2 * torch.stack(planes)


@settings(deadline=None, max_examples=40)
@given(
    slices=st.integers(1, 17),
    depth=st.integers(1, 6),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.75]),
    axis=st.integers(0, 2),
    batch_size=st.integers(1, 4),
    empty=st.integers(0, 2),
)
def test_against_one_slice_at_a_time(slices, depth, overlap, axis, batch_size, empty) -> None:
    volume = make_volume(slices, axis, empty)
    inferer = BlockInferer(
        block_slices=depth, overlap=overlap, slice_axis=axis, batch_size=batch_size, gate=False,
        check=False, empty_value=EMPTY,
    )  # fmt: skip
    if slices < depth:
        with pytest.raises(InputError, match=f"a block, {depth}; got {slices}"):
            inferer(volume, Brightness())
        return
    network = Brightness()
    blocks = record_blocks(network)
    result = inferer(volume, network)
    step = max(1, round(depth * (1 - overlap)))
    logits, heatmap = explain_naively(volume, axis, depth, step)
    found = result["slice_probabilities"][0, :, 0]
    torch.testing.assert_close(found[empty:], logits.sigmoid())
    assert not found[:empty].any()
    maps = result["heatmap"][0, 0].movedim(axis, 0)
    torch.testing.assert_close(maps[empty:], heatmap)
    assert (maps[:empty] == EMPTY).all()
    in_plane = [n for i, n in enumerate(volume.shape[2:]) if i != axis]
    assert set(blocks) == {(1, *in_plane, depth)}, "slices last, whatever their axis"


def test_the_whole_volume_is_one_block() -> None:
    volume = make_volume(11)
    network = Brightness()
    blocks = record_blocks(network)
    result = BlockInferer(block_slices=None, gate=False, check=False)(volume, network)
    assert blocks == [(1, 5, 6, 11)]
    torch.testing.assert_close(result["heatmap"], 2 * volume)
    expected = network(volume).sigmoid().expand(11, 1)
    torch.testing.assert_close(result["slice_probabilities"][0], expected)


def test_only_blocks_with_a_prediction_are_explained() -> None:
    """And what they show is what a run over all of them shows."""
    volume, options = make_volume(16), {"empty_value": EMPTY, "check": False}
    explainer = Explainer("occlusion", window=2, stride=1)
    network = Brightness()
    blocks = record_blocks(network)
    result = BlockInferer(block_slices=4, explainer=explainer, **options)(volume, network)
    count = len(blocks)
    everything = BlockInferer(block_slices=4, explainer=explainer, gate=False, **options)(
        volume, network
    )
    assert count < 0.8 * (len(blocks) - count)
    shown = result["shown"][0, :, 0]
    assert shown.any()
    assert not shown.all()
    torch.testing.assert_close(result["slice_probabilities"], everything["slice_probabilities"])
    torch.testing.assert_close(result["heatmap"][..., shown], everything["heatmap"][..., shown])
    assert (result["heatmap"][..., ~shown] == EMPTY).all()


def test_gradients_reach_the_voxels_that_a_block_looks_at() -> None:
    volume = make_volume(9)
    saliency = BlockInferer(
        block_slices=3, overlap=0, explainer=Explainer("saliency"), gate=False, check=False
    )
    result = saliency(volume, Brightness())
    brightest = volume[0, 0].flatten(0, 1).argmax(0)
    assert torch.equal(result["heatmap"][0, 0].flatten(0, 1).argmax(0), brightest)


def test_the_memory_promised_is_kept_by_smaller_batches() -> None:
    volume = make_volume(20)
    plenty = BlockInferer(block_slices=4, batch_size=64, gate=False, check=False)
    little = BlockInferer(block_slices=4, batch_size=64, gate=False, check=False, max_memory_gb=0.5)
    for key, value in plenty(volume, Brightness()).items():
        torch.testing.assert_close(value, little(volume, Brightness())[key])


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 12), depth=st.integers(1, 5), step=st.integers(1, 5))
def test_blending_agreeing_blocks_changes_nothing(count: int, depth: int, step: int) -> None:
    depth, step = min(depth, count), min(step, depth)
    starts = torch.tensor([*range(0, count - depth, step), count - depth])
    members = starts[:, None] + torch.arange(depth)
    values = torch.rand(count, 2, 3)
    torch.testing.assert_close(blend(values[members], members, count), values)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thin_slices_are_brought_to_the_spacing_of_training(axis: int) -> None:
    """Each thick slice cut into five thin ones: every one of them gets what the thick one got."""
    thick, affine = make_volume(12, axis), np.eye(4)
    affine[axis, axis] = 5.0
    options = {"slice_axis": axis, "slice_spacing_mm": 5.0, "check": False, "empty_value": EMPTY}
    expected = BlockInferer(block_slices=4, **options)(MetaTensor(thick, affine), Brightness())
    affine[axis, axis] = 1.0
    thin = MetaTensor(thick.repeat_interleave(5, axis + 2), affine)
    network = Brightness()
    blocks = record_blocks(network)
    result = BlockInferer(block_slices=4, **options)(thin, network)
    assert {shape[-1] for shape in blocks} == {4}
    assert not expected["shown"].all()
    assert expected["shown"].any()
    for key in ("shown", "predicted", "slice_probabilities"):
        torch.testing.assert_close(result[key], expected[key].repeat_interleave(5, 1))
    maps = expected["heatmap"].as_tensor().repeat_interleave(5, axis + 2)
    torch.testing.assert_close(result["heatmap"].as_tensor(), maps)
    assert torch.equal(result["heatmap"].affine, thin.affine)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 30), wanted=st.integers(1, 30), value=st.floats(-3, 3))
def test_resampling_keeps_a_constant_and_the_mean(count: int, wanted: int, value: float) -> None:
    volume = torch.full((1, 2, 3, 4, count), value)
    resampled = resample_slices(volume, 4, wanted)
    torch.testing.assert_close(resampled, torch.full((1, 2, 3, 4, wanted), value))
    ramp = torch.arange(float(count)).expand(1, 1, 2, 2, count)
    if count % wanted == 0:
        torch.testing.assert_close(resample_slices(ramp, 4, wanted).mean(), ramp.mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_slices": 0}, "whole number of at least 1 or none, got 0"),
        ({"block_slices": True}, "whole number of at least 1 or none, got True"),
        ({"overlap": 1}, "number from 0 to 0.9, got 1"),
        ({"slice_axis": 3}, "slice_axis"),
        ({"slice_spacing_mm": 0}, "at least 0.001 or none, got 0"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BlockInferer(**options)
