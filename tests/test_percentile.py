"""The same number as numpy's, to the last digit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatmask.percentile import find_percentile


@given(
    count=st.sampled_from([1, 2, 3, 50, 101, 1000, 30_000]),
    percent=st.sampled_from([0.0, 0.1, 1.0, 50.0, 97.0, 99.0, 100.0]),
    rounded=st.booleans(),
    in_order=st.booleans(),
    seed=st.integers(0, 100),
)
def test_as_numpy(count, percent, rounded, in_order, seed):
    values = np.random.default_rng(seed).gamma(2, 50, count).astype(np.float32) - 40
    values = values.round() if rounded else values
    values = np.sort(values) if in_order else values
    assert find_percentile(values, percent) == np.percentile(values, percent)


@pytest.mark.parametrize("percent", [0.1, 99.0])
def test_a_sample_that_misleads(percent):
    """Every value that the sample sees is far from the percentile."""
    values = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    for seen in (-100, 100):
        values[:: values.size // 2000 | 1] = seen
        assert find_percentile(values, percent) == np.percentile(values, percent)
