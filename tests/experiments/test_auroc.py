import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from heatmask.experiments.auroc import slice_auroc


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auroc(label):
    assert np.isnan(slice_auroc([label] * 4, [0.1, 0.2, 0.3, 0.4]))
    assert np.isnan(slice_auroc([], []))


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 1.0])), min_size=2))
def test_auroc_is_that_of_scikit_learn_ties_and_all(pairs: list[tuple[int, float]]) -> None:
    labels, scores = map(np.array, zip(*pairs, strict=True))
    if labels.min() == labels.max():
        assert np.isnan(slice_auroc(labels, scores))
    else:
        assert slice_auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
