"""Metrics on toy masks against independent ones, and the rules for what is empty or constant."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from heatmask.errors import InputError, OptionError
from heatmask.experiments.bootstrap import bootstrap_cluster_mean, bootstrap_clusters
from heatmask.experiments.faithfulness import measure_deletion, measure_insertion
from heatmask.experiments.filtered import (
    Condition,
    Slices,
    filter_images,
    find_reference,
    list_conditions,
)
from heatmask.experiments.metrics import measure_auprc, score_heatmap, score_surface
from heatmask.experiments.statistics import (
    adjust_holm,
    compare_paired,
    estimate_optimism,
    mean_by_cluster,
    measure_risk_coverage,
)

# --- heatmaps ------------------------------------------------------------------------------


def make_pair(seed: int = 0, noise: float = 1.0) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    reference = np.zeros((9, 11, 4), bool)
    reference[2:6, 3:8, 1:3] = True
    return (reference + noise * rng.normal(size=reference.shape)).astype(np.float32), reference


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
def test_auprc_is_scikit_learns_at_any_scale(scale: float) -> None:
    heatmap, reference = make_pair()
    wanted = average_precision_score(reference.ravel(), heatmap.ravel())
    assert measure_auprc(heatmap * np.float32(scale), reference) == pytest.approx(wanted, abs=2e-3)


def test_heatmaps_that_are_right_constant_or_wrong() -> None:
    _, reference = make_pair()
    right = score_heatmap(reference.astype(np.float32), reference, 0.0)
    assert right == {"auprc": 1.0, "pointing": 1.0, "energy": 1.0}
    flat = score_heatmap(np.full(reference.shape, 3, np.float32), reference, 3.0)
    share = reference.mean()
    assert flat == {"auprc": pytest.approx(share), "pointing": pytest.approx(share), "energy": 0.0}
    wrong = score_heatmap((~reference).astype(np.float32), reference, 0.0)
    assert wrong["pointing"] == wrong["energy"] == 0.0
    empty = score_heatmap(right["auprc"] * reference, np.zeros_like(reference), 0.0)
    assert np.isnan(list(empty.values())).all()


def test_energy_counts_what_exceeds_the_low_end() -> None:
    heatmap, reference = np.zeros((2, 2, 1), np.float32), np.zeros((2, 2, 1), bool)
    heatmap[0, 0], heatmap[1, 1], heatmap[0, 1] = 4.0, 2.0, -9.0
    reference[0, 0] = True
    assert score_heatmap(heatmap, reference, 1.0)["energy"] == pytest.approx(3 / 4)


def test_a_heatmap_must_be_finite_and_fit() -> None:
    heatmap, reference = make_pair()
    with pytest.raises(InputError, match="finite"):
        score_heatmap(np.full_like(heatmap, np.nan), reference, 0.0)
    with pytest.raises(InputError, match="reference's shape"):
        score_heatmap(heatmap[1:], reference, 0.0)


# --- outlines ------------------------------------------------------------------------------


def find_outline(mask: NDArray, spacing: tuple[float, ...]) -> NDArray:
    inner = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1))
    return np.argwhere(mask & ~inner) * np.array(spacing)


def measure_by_hand(
    mask: NDArray, reference: NDArray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float]:
    ours, theirs = find_outline(mask, spacing), find_outline(reference, spacing)
    distances = cdist(ours, theirs)
    to_theirs, to_ours = distances.min(axis=1), distances.min(axis=0)
    near = (to_theirs <= tolerance).sum() + (to_ours <= tolerance).sum()
    worst = max(np.percentile(to_theirs, 95), np.percentile(to_ours, 95))
    return float(worst), near / (len(ours) + len(theirs))


@pytest.mark.parametrize(("spacing", "shift"), [((1, 1, 5), 2), ((0.5, 2, 3), 1), ((1, 1, 1), 3)])
def test_outlines_are_as_far_apart_as_by_hand(
    spacing: tuple[float, float, float], shift: int
) -> None:
    reference = np.zeros((20, 18, 9), bool)
    reference[4:12, 5:11, 2:6] = True
    mask = np.roll(reference, shift, axis=0) | np.roll(reference, 1, axis=1)
    found = score_surface(mask, reference, spacing, 2.0)
    distance, agreement = measure_by_hand(mask, reference, spacing, 2.0)
    assert found["hd95"] == pytest.approx(distance)
    assert found["surface_dice"] == pytest.approx(agreement)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_pictures_outline_lies_in_its_plane(axis: int) -> None:
    reference = np.zeros((20, 18), bool)
    reference[4:12, 5:11] = True
    mask = np.roll(reference, 4, axis=0)
    pair = (np.expand_dims(part, axis) for part in (mask, reference))
    found = score_surface(*pair, np.insert([1.0, 2.0], axis, 9.0), 2.0)
    wanted = measure_by_hand(mask, reference, (1, 2), 2.0)
    assert (found["hd95"], found["surface_dice"]) == pytest.approx(wanted)
    assert found["surface_dice"] < 1


def test_outlines_of_empty_masks() -> None:
    empty, full = np.zeros((5, 5, 3), bool), np.ones((5, 5, 3), bool)
    for pair in ((empty, full), (full, empty)):
        found = score_surface(*pair, (1, 1, 1), 2.0)
        assert np.isnan(found["hd95"])
        assert found["surface_dice"] == 0
    assert np.isnan(list(score_surface(empty, empty, (1, 1, 1), 2.0).values())).all()


# --- statistics ----------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_what_its_definition_says(p_values: list[float]) -> None:
    """The smallest level at which the step-down test rejects, found by trying levels."""
    adjusted = adjust_holm(p_values)
    order = np.argsort(p_values, kind="stable")
    for place, index in enumerate(order):
        steps = [(len(p_values) - i) * p_values[order[i]] for i in range(place + 1)]
        assert adjusted[index] == pytest.approx(min(1, max(steps)))


def test_holm_leaves_out_what_was_not_tested() -> None:
    np.testing.assert_allclose(adjust_holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_paired_tests_count_a_cluster_once() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(12), rng.random(12)
    clusters = [f"c{i // 2}" for i in range(12)]
    means = (a - b).reshape(6, 2).mean(axis=1)
    assert compare_paired(a, b, clusters) == pytest.approx(stats.wilcoxon(means).pvalue)
    assert compare_paired(a, a, clusters) == 1
    assert np.isnan(compare_paired(a, b, ["one"] * 12))
    with pytest.raises(InputError, match="every case"):
        compare_paired(a, b, clusters[:3])


def test_what_is_not_counted_is_no_part_of_a_clusters_mean() -> None:
    values = [1.0, np.nan, np.nan, 4.0]
    np.testing.assert_allclose(mean_by_cluster(values, ["a", "a", "b", "c"]), [1.0, np.nan, 4.0])


def test_the_mean_over_clusters_is_the_general_bootstraps() -> None:
    rng = np.random.default_rng(3)
    values, clusters = rng.random(60), rng.integers(0, 9, 60)
    values[[3, 7]] = np.nan
    quick = bootstrap_cluster_mean(values, clusters)
    slow = bootstrap_clusters(lambda i: float(np.nanmean(values[i])), clusters)
    np.testing.assert_allclose(quick, slow)
    assert np.isnan(bootstrap_cluster_mean(values, np.zeros(60))[1:]).all()
    assert np.isnan(bootstrap_cluster_mean([np.nan], ["a"])).all()


def test_risk_coverage_of_a_classifier_that_knows_and_one_that_does_not() -> None:
    dice = np.array([0.9, 0.1, 0.5, np.nan])
    knows = measure_risk_coverage([0.8, 0.2, 0.5, 1.0], dice)
    np.testing.assert_allclose(knows.coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(knows.dice, [0.9, 0.7, 0.5])
    assert knows.area == knows.ideal == pytest.approx(0.7)
    assert knows.rank_correlation == pytest.approx(1)
    same = measure_risk_coverage([0.5, 0.5, 0.5, 0.5], dice)
    np.testing.assert_allclose(same.dice, [0.5, 0.5, 0.5])
    assert np.isnan(same.rank_correlation)
    assert np.isnan(measure_risk_coverage([1.0], [np.nan]).area)
    assert measure_risk_coverage([np.nan, 0.2, 0.9], [0.0, 0.3, 0.5]).dice.size == 2


# --- faithfulness --------------------------------------------------------------------------


def look_at_corner(images: torch.Tensor, scale: float) -> torch.Tensor:
    """A classifier that sees nothing but how bright the first 2 x 2 pixels are."""
    return ((images[:, 0, :2, :2].mean(dim=(1, 2)) / scale - 1) / 4).clamp(0, 1)


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(("ask", "right_wins"), [(measure_deletion, -1), (measure_insertion, 1)])
def test_the_pixels_that_decide_are_told_from_others(
    ask: Callable[..., torch.Tensor], right_wins: int, scale: float
) -> None:
    """Whatever ordinary tissue is, 1 of a normalised head or a tenth of white."""
    images = torch.full((2, 1, 10, 10), scale)
    images[:, 0, :2, :2] *= 5
    right = torch.zeros(2, 10, 10)
    right[:, :2, :2] = 1
    wrong = right.flip(1) - right  # so that what decides comes last of all
    look = partial(look_at_corner, scale=scale)
    found = [float(ask(look, images, m, (0.04, 0.1))) for m in (right, wrong)]
    assert right_wins * (found[0] - found[1]) > 0.9
    assert found[0] == pytest.approx(0.0 if right_wins < 0 else 1.0, abs=1e-6)


# --- filtered images -----------------------------------------------------------------------


def make_slices(seed: int = 0) -> Slices:
    torch.manual_seed(seed)
    images = torch.rand(8, 2, 20, 16) + 0.5
    images[:, :, :3] = 0
    images[:4, :, :, :2] = 0  # heads of two sizes
    reference = torch.zeros(8, 20, 16, dtype=torch.bool)
    reference[0, 5:9, 4:8] = True
    reference[5, 9:14, 6:9] = True
    return Slices(
        images,
        labels=torch.tensor([1, 0, 0, 0, 0, 1, 0, 0]),
        positions=torch.tensor([0.1, 0.4, 0.6, 0.9] * 2),
        patients=torch.tensor([0] * 4 + [1] * 4),
        heatmap=torch.randn(8, 20, 16),
        reference=reference,
    )


@pytest.mark.parametrize("kind", ["hot", "random", "other"])
@pytest.mark.parametrize("quantile", [0.05, 0.4])
def test_every_mask_holds_the_same_share_of_the_head(kind: str, quantile: float) -> None:
    slices = make_slices()
    kept = filter_images(slices, Condition(kind, quantile)) != 0
    removed = filter_images(slices, Condition(kind, quantile, keep=False)) != 0
    assert torch.equal(kept | removed, slices.images != 0)
    assert not (kept & removed).any()
    share = kept[:, 0].flatten(1).sum(1) / slices.head.flatten(1).sum(1)
    spread = 0.3 if kind == "other" else 0.01  # another head may end where the mask goes on
    assert (share - quantile).abs().max() < spread
    shape = filter_images(slices, Condition(kind, quantile, blank=True))
    assert torch.equal(shape, kept.float())


def test_the_hottest_pixels_are_kept() -> None:
    slices = make_slices()
    kept = filter_images(slices, Condition("hot", 0.1))[:, 0] != 0
    for mask, heat, head in zip(kept, slices.heatmap, slices.head, strict=True):
        assert heat[mask].min() > heat[head & ~mask].max()


def test_another_patients_mask_is_of_the_same_height_whatever_its_label() -> None:
    slices = make_slices()
    slices.heatmap.zero_()
    for number in range(8):
        slices.heatmap[number, 4 + number, 4:14] = 1.0  # each slice has a row of its own
    kept = filter_images(slices, Condition("other", 10 / 256))[:, 0].flatten(1).reshape(8, 20, 16)
    rows = [int(part.sum(dim=1).argmax()) - 4 for part in kept]
    assert rows == [4, 5, 6, 7, 0, 1, 2, 3]
    assert not torch.equal(slices.labels[rows], slices.labels), "or the shape would tell it"


def test_pictures_borrow_from_one_and_all() -> None:
    """They have no height: without a draw all would take the mask of the same first picture."""
    images = torch.ones(30, 1, 5, 30)
    maps = torch.eye(30)[:, None].expand(30, 5, 30)  # each has a column of its own
    labels, patients = torch.arange(30) % 3, torch.arange(30)
    slices = Slices(images, labels, torch.full((30,), 0.5), patients, maps)
    kept = filter_images(slices, Condition("other", 1 / 30))[:, 0, 0] != 0
    lenders = kept.float().argmax(dim=1)
    assert not (lenders == patients).any()
    assert len(lenders.unique()) > 10
    again = filter_images(slices, Condition("other", 1 / 30), seed=1)[:, 0, 0] != 0
    assert not torch.equal(kept, again)


def test_a_reference_is_lent_where_there_is_no_tumour() -> None:
    slices = make_slices()
    masks = find_reference(slices)
    assert torch.equal(masks[0], slices.reference[0])
    assert masks.flatten(1).any(1).all(), "an empty mask would tell the label"
    assert torch.equal(masks[1], slices.reference[5]), "of the other patient"
    bare = Slices(slices.images, slices.labels, slices.positions, slices.patients, slices.heatmap)
    with pytest.raises(InputError, match="reference masks"):
        find_reference(bare)


def test_conditions_that_make_no_sense() -> None:
    with pytest.raises(OptionError, match="kind must be"):
        Condition("cold")
    with pytest.raises(OptionError, match="quantile must lie"):
        filter_images(make_slices(), Condition("hot", 1.5))
    names = [condition.name for condition in list_conditions((0.05, 0.4))]
    assert len(names) == len(set(names)) == 15


# --- the best of many -----------------------------------------------------------------------


def test_the_best_of_equal_methods_owes_all_of_its_lead_to_the_choice() -> None:
    rng = np.random.default_rng(0)
    leads, found = [], []
    for _ in range(60):
        scores = rng.normal(0.5, 0.2, (20, 16))
        leads.append(scores.mean(axis=1).max() - 0.5)
        found.append(estimate_optimism(scores, np.arange(16), 300))
    assert np.mean(found) == pytest.approx(np.mean(leads), rel=0.1)


def test_a_method_that_is_far_better_owes_nothing_to_the_choice() -> None:
    scores = np.random.default_rng(1).normal(0.5, 0.05, (5, 30))
    scores[2] += 0.3
    assert estimate_optimism(scores, np.arange(30)) == pytest.approx(0, abs=0.002)


def test_patients_are_left_out_whole_and_what_is_not_counted_is_not() -> None:
    # Each of two methods is perfect on one patient: chosen on the one, it fails on the other.
    scores = np.array([[1, 1, np.nan, 0, 0], [0, 0, 0, 1, np.nan]], float)
    assert estimate_optimism(scores, ["a", "a", "a", "b", "b"]) == pytest.approx(0.5)
    assert np.isnan(estimate_optimism(scores, ["a"] * 5))
    assert np.isnan(estimate_optimism(np.full((2, 5), np.nan), ["a", "a", "b", "c", "d"]))
