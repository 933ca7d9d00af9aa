import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from heatmask.errors import InputError
from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.classifier_metrics import (
    auroc_within_position_deciles,
    compute_relative_positions,
    expected_calibration_error,
    position_only_auroc,
    score_slices,
)


def count_pairs(labels, scores) -> float:
    """AUROC by its definition: how often a positive outranks a negative, ties half."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    above = positive[:, None] > negative[None]
    return float((above + 0.5 * (positive[:, None] == negative[None])).mean())


@pytest.fixture
def slices():
    """Ten stacks of 30 slices; tumour in the middle only; probabilities to one digit, so ties."""
    rng = np.random.default_rng(11)
    positions = np.tile(compute_relative_positions(30), 10)
    labels = (rng.random(300) < np.where(abs(positions - 0.5) < 0.35, 0.6, 0)).astype(int)
    probabilities = np.clip(0.3 * labels + 0.7 * rng.random(300), 0, 1).round(1)
    return labels, probabilities, positions


def test_relative_positions_are_slice_middles():
    assert compute_relative_positions(4) == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert compute_relative_positions(1) == pytest.approx([0.5])


def test_auroc_equals_counting_pairs(slices):
    labels, probabilities, _ = slices
    assert slice_auroc(labels, probabilities) == pytest.approx(count_pairs(labels, probabilities))
    assert slice_auroc(labels, -probabilities) == pytest.approx(
        1 - slice_auroc(labels, probabilities)
    )


def test_deciles_equal_counting_pairs_in_each(slices):
    labels, probabilities, positions = slices
    mean, per_decile, excluded = auroc_within_position_deciles(labels, probabilities, positions)
    assert excluded == [0, 9]
    assert np.isnan([per_decile[0], per_decile[9]]).all()
    expected = [
        count_pairs(labels[inside], probabilities[inside])
        for inside in ((positions >= d / 10) & (positions < (d + 1) / 10) for d in range(1, 9))
    ]
    assert per_decile[1:9] == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(expected))


def test_position_alone_scores_well_overall_and_like_chance_within_deciles():
    """Why the deciles are there: a score made of nothing but the position."""
    rng = np.random.default_rng(2)
    positions = np.tile(compute_relative_positions(40), 60)
    labels = (rng.random(2400) < np.where(abs(positions - 0.5) < 0.3, 0.7, 0.05)).astype(int)
    scores = 1 - abs(positions - 0.5)
    assert slice_auroc(labels, scores) > 0.8
    assert auroc_within_position_deciles(labels, scores, positions).mean == pytest.approx(
        0.5, abs=0.06
    )


def test_no_decile_with_both_classes():
    mean, per_decile, excluded = auroc_within_position_deciles([0, 1], [0.1, 0.9], [0.05, 0.95])
    assert np.isnan(mean)
    assert np.isnan(per_decile).all()
    assert excluded == list(range(10))


def test_position_table_ranks_by_the_training_rate():
    """Training: tumour only above the middle; the test set is the other way round."""
    positions = compute_relative_positions(40)
    above = (positions > 0.5).astype(int)
    assert position_only_auroc(positions, above, positions, above) == 1
    assert position_only_auroc(positions, above, positions, 1 - above) == 0


def test_position_table_gives_an_unseen_bin_the_overall_rate():
    train = ([0.01, 0.02, 0.51, 0.52], [0, 0, 1, 1])
    # The unseen bin at 0.9 lies between a bin without and a bin with tumour.
    assert position_only_auroc(*train, [0.01, 0.9], [0, 1]) == 1
    assert position_only_auroc(*train, [0.51, 0.9], [1, 0]) == 1


def test_position_table_needs_training_slices():
    with pytest.raises(InputError, match="needs training slices, got none"):
        position_only_auroc([], [], [0.5], [1])


def test_calibration_error_equals_the_calibration_curve(slices):
    labels, _, _ = slices
    told = np.random.default_rng(8).random(labels.size)
    rate, mean_told = calibration_curve(labels, told, n_bins=10)
    weight = np.histogram(told, bins=10, range=(0, 1))[0] / labels.size
    assert (weight > 0).all()  # or the curve would leave bins out
    expected = float((weight * abs(rate - mean_told)).sum())
    assert expected_calibration_error(labels, told) == pytest.approx(expected)


def test_calibration_error_of_known_cases():
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    assert expected_calibration_error([1, 0], [0.0, 1.0]) == 1
    assert expected_calibration_error([1, 0, 0, 0], [0.25] * 4) == pytest.approx(0)
    assert np.isnan(expected_calibration_error([], []))


def test_scores_at_one_half_of_a_table_counted_by_hand():
    # 2 hits (one at exactly 0.5), 1 false alarm, 1 miss, 1 right rejection.
    scores = score_slices([1, 1, 0, 1, 0], [0.9, 0.5, 0.7, 0.2, 0.1])
    assert scores["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["accuracy"] == pytest.approx(3 / 5)
    # Ranks of the positives: 1, 3, 4, so precisions 1, 2/3 and 3/4.
    assert scores["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_scores_without_tumour_told_or_true():
    scores = score_slices([0, 0], [0.1, 0.2])
    assert scores["accuracy"] == 1
    assert np.isnan([scores["f1"], scores["auroc"], scores["average_precision"]]).all()


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.5], r"one length, got \(2,\) and \(1,\)"),
        ([0, 2], [0.5, 0.5], "must be 0 or 1, got"),
        ([0, 1], [0.5, np.nan], "must be finite"),
        ([0, 1], [0.5, 1.5], r"in \[0, 1\], got 0.5 to 1.5"),
    ],
)
def test_bad_input_is_refused(labels, scores, message):
    with pytest.raises(InputError, match=message):
        score_slices(labels, scores)


@pytest.mark.parametrize("positions", [[0.5], [0.5, 1.0], [0.5, np.nan]])
def test_bad_positions_are_refused(positions):
    with pytest.raises(InputError, match=r"2 numbers in \[0, 1\)"):
        auroc_within_position_deciles([0, 1], [0.1, 0.2], positions)
