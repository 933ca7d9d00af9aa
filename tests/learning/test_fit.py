"""The training of one network: what counts, and going on after a stop."""

from pathlib import Path

import pytest
import torch

from heatmask.learning.attribution_augmentation import AttributionAugmentation
from heatmask.learning.examples import Examples
from heatmask.learning.fit import fit
from heatmask.learning.folds import assign_folds
from heatmask.learning.settings import LearnSettings
from heatmask.networks.gp_unet import GPUNet
from heatmask.training.engine import seed_network

SETTINGS = LearnSettings(slices_per_epoch=16, batch_size=8, learning_rate=0.02, averaging=0.5)


def make_examples(count: int = 12) -> Examples:
    """Slices with a bright square in every second one, half of them corrected."""
    torch.manual_seed(0)
    masks = torch.zeros(count, 1, 16, 20, dtype=torch.bool)
    masks[::2, :, 4:10, 6:14] = True
    labels = (torch.arange(count) % 2 == 0).float()
    return Examples(
        images=(1 + masks.float() + 0.1 * torch.rand(masks.shape)).half(),
        masks=masks,
        attributions=masks.half(),
        labels=labels,
        labelled=torch.ones(count, dtype=torch.bool),
        positions=torch.linspace(0, 1, count),
        corrected=torch.arange(count) < count // 2,
    )


def make_network() -> GPUNet:
    network = GPUNet(2, 1, 1, (4, 8), "batch", pool_at="map", pooling="top")
    return seed_network(network, 3)


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    examples = make_examples()
    whole = fit(make_network(), examples, SETTINGS, 3, pseudo_masks=True)
    shown = 0

    def stop(slices: int, loss: float | None) -> None:
        nonlocal shown
        shown += slices
        if shown > 24:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_network(), examples, SETTINGS, 3, pseudo_masks=True, folder=tmp_path, watch=stop)
    told: list[int] = []
    again = fit(
        make_network(), examples, SETTINGS, 3, pseudo_masks=True, folder=tmp_path,
        watch=lambda slices, loss: told.append(slices),
    )  # fmt: skip
    assert told[0] == 16, "the first epoch was not trained again"
    assert sum(told) == 48
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_masks_that_nobody_corrected_count_only_if_they_are_to() -> None:
    """With every mask wrong but the corrected ones, only who looks at these is misled."""
    examples = make_examples()
    wrong = examples.masks.clone()
    wrong[6:] = ~wrong[6:]
    misled = Examples(**{**vars(examples), "masks": wrong})
    settings = LearnSettings(**{**vars(SETTINGS), "label_weight": 0.0})
    ignoring = [
        fit(make_network(), e, settings, 1, pseudo_masks=False)
        for e in (examples, Examples(**{**vars(misled), "labelled": misled.corrected}))
    ]
    kept = Examples(**{**vars(examples), "labelled": examples.corrected})
    same = fit(make_network(), kept, settings, 1, pseudo_masks=False)
    for name, tensor in same.state_dict().items():
        assert torch.equal(ignoring[1].state_dict()[name], tensor), name
    believing = fit(make_network(), misled, settings, 1, pseudo_masks=True)
    assert not all(
        torch.equal(believing.state_dict()[name], tensor)
        for name, tensor in same.state_dict().items()
    )


def test_corrected_slices_have_their_share_of_what_is_drawn() -> None:
    weights = make_examples(40).weigh(0.8)
    assert float(weights[:20].sum() / weights.sum()) == pytest.approx(0.8)
    assert len(set(make_examples(40).select(torch.arange(20)).weigh(0.8).tolist())) == 1


def test_attribution_brightens_some_images_where_it_points_and_nothing_else() -> None:
    torch.manual_seed(1)
    images = torch.ones(64, 2, 8, 8)
    attributions = torch.zeros(64, 1, 8, 8)
    attributions[:, :, 2:4, 2:4] = 1.0
    fused = AttributionAugmentation(probability=0.5, strength=1.0)(images, attributions)
    where = attributions.bool().expand_as(images)
    assert torch.equal(fused[~where], images[~where])
    share = (fused[:, 0, 2, 2] > 1).float().mean()
    assert 0.3 < share < 0.7
    assert float(fused.max()) <= 2.0


def test_every_patient_is_held_out_once_and_alone_where_there_are_few() -> None:
    assert assign_folds(["b", "a", "b"], 3) == {"a": 0, "b": 1}
    folds = assign_folds([f"p{n}" for n in range(8)], 3)
    assert sorted(list(folds.values()).count(f) for f in range(3)) == [2, 3, 3]
