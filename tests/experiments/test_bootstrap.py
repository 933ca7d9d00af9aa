import numpy as np
import pytest

from heatmask.errors import InputError
from heatmask.experiments.bootstrap import bootstrap_clusters, bootstrap_mean

VALUES = np.random.default_rng(5).beta(2, 3, size=24)


def test_interval_equals_resampling_by_hand():
    interval = bootstrap_mean(VALUES, n=20_000)
    rng = np.random.default_rng(99)
    means = VALUES[rng.integers(0, VALUES.size, (20_000, VALUES.size))].mean(axis=1)
    assert interval.mean == pytest.approx(VALUES.mean())
    assert (interval.low, interval.high) == pytest.approx(
        np.percentile(means, [2.5, 97.5]), abs=4e-3
    )


def test_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        interval = bootstrap_mean(rng.normal(0.5, 0.1, 60), n=500)
        hits += interval.low <= 0.5 <= interval.high
    assert 178 <= hits <= 199


def test_the_seed_decides():
    assert bootstrap_mean(VALUES, 500, seed=4) == bootstrap_mean(VALUES, 500, seed=4)
    assert bootstrap_mean(VALUES, 500, seed=4) != bootstrap_mean(VALUES, 500, seed=5)


def test_equal_values_leave_no_width():
    assert bootstrap_mean([0.25] * 6, 200) == pytest.approx((0.25, 0.25, 0.25))


def test_one_patient_has_no_interval():
    interval = bootstrap_mean([0.4])
    assert interval.mean == 0.4
    assert np.isnan([interval.low, interval.high]).all()


def test_nan_is_refused_and_counted():
    with pytest.raises(InputError, match="finite values, got 2 of 3 that are NaN"):
        bootstrap_mean([0.1, np.nan, np.inf])


@pytest.mark.parametrize("values", [[], [[0.1, 0.2]]])
def test_other_than_a_list_of_numbers_is_refused(values):
    with pytest.raises(InputError, match="one value per patient"):
        bootstrap_mean(values)


# --- statistics of many observations a patient ----------------------------------------------


def test_clusters_of_one_are_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).normal(3, 2, 40)
    plain = bootstrap_mean(values)
    found = bootstrap_clusters(lambda chosen: float(values[chosen].mean()), range(40), n=10_000)
    assert found.mean == plain.mean
    np.testing.assert_allclose(found[1:], plain[1:], atol=0.03)


def test_copies_within_a_patient_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).normal(0, 1, 12)
    copies = np.repeat(values, 30)

    def measure(clusters: np.ndarray) -> float:
        found = bootstrap_clusters(lambda chosen: float(copies[chosen].mean()), clusters)
        return found.high - found.low

    patients = np.repeat([f"p{k}" for k in range(12)], 30)
    assert measure(patients) > 4 * measure(np.arange(360))


def test_resamples_without_a_value_are_left_out() -> None:
    labels = np.array([1, 0, 0, 0])

    def find(chosen: np.ndarray) -> float:
        return 0.5 if labels[chosen].any() else float("nan")

    assert bootstrap_clusters(find, list("abcd")) == (0.5, 0.5, 0.5)
    nothing = bootstrap_clusters(lambda _: float("nan"), list("abcd"))
    assert np.isnan(nothing).all()


def test_one_cluster_has_no_interval() -> None:
    found = bootstrap_clusters(lambda chosen: float(len(chosen)), ["a"] * 5)
    assert found.mean == 5
    assert np.isnan(found[1:]).all()


def test_the_seed_decides_which_clusters_are_drawn() -> None:
    values = np.arange(9.0)
    runs = [
        bootstrap_clusters(lambda chosen: float(values[chosen].mean()), range(9), seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
