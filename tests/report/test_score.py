"""Numbers that order scans: where bundles disagree, and which scan is unlike those labelled."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from heatmask.report.score import (
    describe_finding,
    measure_difference,
    measure_disagreement,
    score_scan,
)
from heatmask.result import Result

TURNED = np.array([[0, -1.5, 0, 12], [0, 0, -4.0, 30], [1.25, 0, 0, -7], [0, 0, 0, 1]])
"""Axes in the order superior, left, posterior, and three edges."""


def make_result(shift=0, affine=TURNED, flip=(), marked=True, grey=1.0):
    """A head with a lesion along the first array axis; the same head may be stored mirrored."""
    scan = np.zeros((30, 20, 12), np.float32)
    scan[3:27, 3:17, 1:11] = 10 + np.random.default_rng(0).normal(0, 1, (24, 14, 10))
    mask = np.zeros(scan.shape, bool)
    mask[6 + shift : 12 + shift, 5:10, 3:7] = True
    scan[mask] += 5
    scan, mask = (np.flip(a, flip).copy() for a in (grey * scan, mask))
    for axis in flip:
        mirror = np.eye(4)
        mirror[axis, axis], mirror[axis, 3] = -1, scan.shape[axis] - 1
        affine = affine @ mirror
    volume = [
        MetaTensor(torch.from_numpy(a)[None], affine=torch.tensor(affine))
        for a in (scan, mask.astype(np.float32), (mask & marked).astype(np.uint8))
    ]
    return Result(
        "case", "", volume[0], volume[1], volume[1], volume[2], torch.tensor([0.9]),
        torch.tensor([[0.9], [0.1]]), torch.tensor([[True], [False]]),
        torch.tensor([[True], [False]]), ("tumour",),
    )  # fmt: skip


def test_the_same_head_has_the_same_features_however_it_is_stored():
    plain = describe_finding(make_result())
    assert describe_finding(make_result(flip=(0, 2))) == pytest.approx(plain, abs=2e-3)
    assert describe_finding(make_result(grey=40.0)) == pytest.approx(plain, abs=2e-3)
    assert describe_finding(make_result(marked=False))[:14] == pytest.approx(plain[:14], abs=2e-3)


def test_a_finding_elsewhere_is_seen_along_the_axis_of_the_world():
    # The first array axis is the head's height: 10 voxels of 1.25 mm, in decimetres.
    change = np.subtract(describe_finding(make_result(shift=10)), describe_finding(make_result()))
    assert change[8:11] == pytest.approx([0, 0, 0.125], abs=2e-3)


def test_disagreement_is_one_less_the_mean_dice():
    a, b, nothing = np.zeros((3, 4, 5, 6), bool)
    a[0], b[0, :, :3] = True, True  # 30 voxels and 15 of them: Dice 2/3
    assert measure_disagreement([a, b]) == pytest.approx(1 / 3)
    assert measure_disagreement([a, b, nothing]) == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert measure_disagreement([nothing, nothing]) == 0
    assert measure_disagreement([a]) is None


def test_what_is_most_different_is_farthest_from_the_nearest_labelled_one():
    # The second number spreads a hundred times as far, and counts no more for it.
    features = {"usual": [0, 0], "like it": [0.1, 0], "odd": [1, 300], "far": [-3, 0]}
    first = measure_difference(features, [])
    assert max(first, key=first.get) == "usual"  # nearest to the mean
    then = measure_difference(features, ["usual", "gone"])
    assert sorted(then, key=then.get) == ["like it", "far", "odd"]
    left = measure_difference(features, ["usual", "odd"])
    assert max(left, key=left.get) == "far"
    assert measure_difference({}, ["usual"]) == {}


def test_a_score_is_plain_and_says_what_is_not_known():
    score = score_scan([make_result()])
    assert score["disagreement"] is None
    assert score["mask_ml"] == pytest.approx(6 * 5 * 4 * 1.5 * 4 * 1.25 / 1000)
    assert 0 < score["quality"] <= 1
    apart = score_scan([make_result(), make_result(shift=12)])
    assert apart["disagreement"] == 1
    empty = score_scan([make_result(marked=False)] * 2)
    assert (empty["quality"], empty["mask_ml"], empty["disagreement"]) == (None, 0, 0)
