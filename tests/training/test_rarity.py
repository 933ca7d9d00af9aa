"""Where images look like no other, and heads that look there alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from heatmask.errors import InputError
from heatmask.networks.pretrained import CHANNELS
from heatmask.training.features import FeatureDataset, View
from heatmask.training.heads import BinaryLoss, Head, SearchingHead, SearchLoss
from heatmask.training.position import PositionOffsetLoss
from heatmask.training.rarity import RarityMeter, mark_rarest, weigh_maps
from heatmask.training.student import StudentLoss

GRID = 16
PATCH = np.s_[4:7, 9:12]
ODD = list(range(6))
"""Pictures that hold the odd patch."""


class Anatomy(FeatureDataset):
    """Pictures of one anatomy that varies a little, some with an odd patch.

    Two classes in turn; of each patient there are two pictures in a row, unless named.
    """

    def __init__(self, count: int = 40, patients: list[str] | None = None) -> None:
        random = np.random.default_rng(0)
        self.inside = np.ones((count, GRID, GRID), bool)
        self.inside[:, :, :2] = False
        self.searched = self.inside
        self.labels = 1 + torch.arange(count) % 2
        self.patients = np.array(patients or [f"P{n // 2}" for n in range(count)])
        self.stages = []
        for channels, factor in zip(CHANNELS[1:], (1, 1, 2, 4), strict=True):
            size = (channels, GRID // factor, GRID // factor)
            healthy = random.normal(size=size) + 0.2 * random.normal(size=(2, count, *size))
            healthy[1] = healthy[0, ..., ::-1]
            if factor == 1:
                odd = random.normal(size=(channels, 1, 1))
                healthy[0][ODD, :, PATCH[0], PATCH[1]] = odd
                healthy[1][ODD, :, PATCH[0], GRID - 12 : GRID - 9] = odd
            self.stages.append(healthy.astype(np.float16))


def measure(data: Anatomy, meter: RarityMeter, path: Path) -> np.ndarray:
    return meter.measure(data, path / "rarity.npy")


def is_in_patch(rarity: np.ndarray) -> bool:
    hit = np.zeros((GRID, GRID), bool)
    hit[PATCH] = True
    return bool(hit[np.unravel_index(rarity.argmax(), rarity.shape)])


def test_what_others_do_not_have_is_rarest(tmp_path: Path) -> None:
    """Two patients have the patch, and two pictures of one patient are no five."""
    data = Anatomy(patients=[f"P{n // 3}" for n in range(40)])
    rarity = measure(data, RarityMeter(data), tmp_path)
    assert all(is_in_patch(rarity[number]) for number in ODD)
    assert not any(is_in_patch(rarity[number]) for number in range(6, 40))
    assert rarity[:, :, 3:].min() > 0
    assert not rarity[:, :, :2].any()


def test_what_others_have_too_is_not_rare_until_it_is_forgotten(tmp_path: Path) -> None:
    data = Anatomy(patients=[str(n) for n in range(40)])
    meter = RarityMeter(data)
    rarity = measure(data, meter, tmp_path)
    assert not any(is_in_patch(rarity[number]) for number in ODD)
    hot = np.zeros(data.inside.shape, bool)
    hot[ODD, PATCH[0], PATCH[1]] = True
    meter.forget(hot)
    again = meter.measure(data, tmp_path / "second.npy")
    assert all(is_in_patch(again[number]) for number in ODD)


def test_a_patients_own_pictures_are_never_compared_with(tmp_path: Path) -> None:
    """All six with the patch are of one patient, so it is as rare as if there were one."""
    names = [str(max(n, 5)) for n in range(40)]
    data = Anatomy(patients=names)
    meter = RarityMeter(data)
    assert all(is_in_patch(rarity) for rarity in measure(data, meter, tmp_path)[ODD])
    own = meter._describe(data.take(0, slice(0, 1)))
    similar = meter._find_similar(own, "5")
    assert all(data.patients[entry % 40] != "5" for entry in similar)


def test_similar_pictures_are_of_every_class_and_many_patients() -> None:
    data = Anatomy()
    meter = RarityMeter(data)
    similar = meter._find_similar(meter._describe(data.take(0, slice(7, 8))), "P3")
    assert Counter(int(data.labels[entry % 40]) for entry in similar) == {1: 8, 2: 8}
    assert max(Counter(data.patients[entry % 40] for entry in similar).values()) <= 2


def test_rarity_that_was_measured_is_read(tmp_path: Path) -> None:
    data = Anatomy(12)
    first = measure(data, RarityMeter(data), tmp_path)
    np.save(tmp_path / "rarity.npy", first + 1)
    np.testing.assert_array_equal(measure(data, RarityMeter(data), tmp_path), first + 1)


def test_one_patient_is_refused() -> None:
    with pytest.raises(InputError, match="all images are of the patient 'P'"):
        RarityMeter(Anatomy(6, ["P"] * 6))


def test_a_tenth_of_what_is_inside_is_searched() -> None:
    rarity = np.random.default_rng(0).random((3, 20, 20)).astype(np.float32)
    inside = np.zeros((3, 20, 20), bool)
    inside[:, 5:15, 5:15] = True
    searched = mark_rarest(rarity, inside)
    assert (searched.sum((1, 2)) == 10).all()
    assert not searched[~inside].any()
    for where, values in zip(searched, rarity * inside, strict=True):
        assert values[where].min() >= np.sort(values[~where])[-1]


def test_weighed_maps_go_from_zero_at_the_median_to_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    maps, rarity = random.normal(size=(2, 3, 8, 8)), random.random((2, 8, 8))
    weighed = weigh_maps(maps.astype(np.float32), rarity.astype(np.float32))
    np.testing.assert_allclose(weighed.max(axis=(2, 3)), 1)
    assert ((weighed == 0).mean(axis=(2, 3)) == 0.5).all()
    flat = weigh_maps(np.zeros((1, 1, 4, 4), np.float32), np.ones((1, 4, 4), np.float32))
    assert not flat.any()


def make_view(searched: torch.Tensor) -> View:
    torch.manual_seed(0)
    sizes = (GRID, GRID, GRID // 2, GRID // 4)
    features = [torch.randn(2, c, n, n) for c, n in zip(CHANNELS[1:], sizes, strict=True)]
    return View(features, torch.ones_like(searched), searched)


def test_a_head_decides_by_the_places_it_searches_alone() -> None:
    searched = torch.zeros(2, 1, GRID, GRID, dtype=torch.bool)
    searched[..., 4:8, 4:8] = True
    view = make_view(searched)
    head = SearchingHead(Head(3, (8,))).eval()
    torch.nn.init.normal_(head.head.out.weight)
    before = head(view)
    view.features[1][..., 10:, :] += 5
    assert torch.equal(head(view), before)
    view.features[1][..., 5, 5] += 5
    assert not torch.allclose(head(view), before)


def test_a_head_is_taught_to_show_nothing_elsewhere() -> None:
    searched = torch.zeros(2, 1, GRID, GRID, dtype=torch.bool)
    searched[..., 4:8, 4:8] = True
    head = SearchingHead(Head(3, (8,))).train()
    logits, rest = head(make_view(searched))
    assert rest.shape == (2 * (GRID**2 - 16), 3)
    target, loss = torch.tensor([[1.0], [3.0]]), SearchLoss()
    assert loss((logits, rest + 5), target) > loss((logits, rest), target)
    right = torch.tensor([[9.0, -9, -9], [-9, -9, 9]])
    assert loss((right, rest - 20), target) < 0.01


def test_a_head_gains_nothing_from_the_height_of_a_slice() -> None:
    """The shares of the classes at a height are given: a map that says no more is the best."""
    shares = torch.tensor([0.8, 0.15, 0.05])
    labels = torch.tensor([1.0] * 16 + [2.0] * 3 + [3.0])[:, None]
    target = torch.cat([labels, shares.log().expand(20, 3)], dim=1)
    logits = torch.zeros(1, 3, requires_grad=True)
    BinaryLoss()(logits.expand(20, 3), target).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, 0, atol=1e-6)


def lose(
    masks: torch.Tensor, unsure: torch.Tensor, maps: torch.Tensor, tell: bool = False
) -> float:
    loss = StudentLoss(PositionOffsetLoss(negatives=False), tell)
    targets = torch.tensor([[1.0], [2.0]]), torch.stack([masks, unsure], 1)
    return float(loss((torch.zeros(2, 3), maps), targets))


def test_a_mask_teaches_nothing_where_it_is_unsure() -> None:
    torch.manual_seed(0)
    masks, unsure, maps = (
        torch.zeros(2, 3, 16, 16),
        torch.zeros(2, 3, 16, 16),
        torch.randn(2, 3, 16, 16),
    )
    masks[:, 0, 4:9, 4:9] = 1
    unsure[:, 0, 2:9, 6:12] = 1
    changed, moved = masks.clone(), maps.clone()
    changed[:, 0, 3:8, 7:11] = 1 - changed[:, 0, 3:8, 7:11]
    moved[:, 0, 3:8, 7:11] += 3
    assert lose(changed, unsure, moved) == pytest.approx(lose(masks, unsure, maps), abs=1e-6)
    assert lose(changed, 0 * unsure, maps) != pytest.approx(lose(masks, 0 * unsure, maps), abs=1e-3)


def test_maps_tell_the_labels_only_where_some_image_has_no_finding() -> None:
    """Else a map lights up the healthy tissue that tells the classes apart."""
    masks, unsure, maps = (
        torch.zeros(2, 3, 16, 16),
        torch.ones(2, 3, 16, 16),
        torch.zeros(2, 3, 16, 16),
    )
    lit = maps.clone()
    lit[0, 0, :4], lit[1, 1, :4] = 3.0, 3.0
    assert lose(masks, unsure, lit) == lose(masks, unsure, maps)
    assert lose(masks, unsure, lit, tell=True) < lose(masks, unsure, maps, tell=True)
