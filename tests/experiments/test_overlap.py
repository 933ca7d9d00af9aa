import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from heatmask.errors import InputError
from heatmask.experiments.overlap import EMPTY_RULE, score_mask

SHAPE = (7, 5, 4)
SPACING_MM = (0.5, 2.0, 6.0)  # 6 mm3 a voxel


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.random(SHAPE) > 0.6, rng.random(SHAPE) > 0.5


def test_overlap_equals_an_independent_implementation(pair):
    scores = score_mask(*pair, SPACING_MM)
    mask, reference = (m.ravel() for m in pair)
    assert scores["dice"] == pytest.approx(f1_score(reference, mask))
    assert scores["iou"] == pytest.approx(jaccard_score(reference, mask))


def test_overlap_is_symmetric_and_ignores_label_values(pair):
    mask, reference = pair
    there = score_mask(mask.astype(np.uint8) * 3, reference.astype(np.int16), SPACING_MM)
    back = score_mask(reference, mask, SPACING_MM)
    assert there["dice"] == back["dice"]
    assert there["mask_ml"] == back["reference_ml"]


def test_volumes_are_in_ml():
    mask, reference = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    mask[:5, :, 1:3] = True  # 50 voxels of 6 mm3
    reference[:5, :2, 2] = True
    scores = score_mask(mask, reference, SPACING_MM)
    assert scores["mask_ml"] == pytest.approx(0.3)
    assert scores["reference_ml"] == pytest.approx(0.06)
    assert scores["tumour_free_slices_ml"] == pytest.approx(0.15)  # all of slice 1


def test_tumour_free_slices_follow_the_slice_axis():
    mask, reference = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    reference[0] = True  # one of 7 slices along axis 0, a part of each along the others
    ml = [score_mask(mask, reference, SPACING_MM, axis)["tumour_free_slices_ml"] for axis in (0, 2)]
    assert ml == pytest.approx([6 * 20 * 0.006, 0])


def test_empty_against_empty_is_not_counted():
    empty = np.zeros(SHAPE, np.uint8)
    scores = score_mask(empty, empty, SPACING_MM)
    assert np.isnan([scores["dice"], scores["iou"]]).all()
    assert "not counted" in EMPTY_RULE


def test_empty_against_something_is_nought_both_ways():
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    for mask, reference in ((empty, full), (full, empty)):
        scores = score_mask(mask, reference, SPACING_MM)
        assert scores["dice"] == scores["iou"] == 0


def test_full_against_full_is_one():
    full = np.ones(SHAPE, bool)
    scores = score_mask(full, full, SPACING_MM)
    assert scores["dice"] == scores["iou"] == 1


def test_another_shape_is_refused_and_both_are_named():
    message = r"shape, got \(7, 5, 4\) against \(5, 7, 4\)"
    with pytest.raises(InputError, match=message):
        score_mask(np.zeros(SHAPE, bool), np.zeros((5, 7, 4), bool), SPACING_MM)


def test_a_heatmap_is_refused():
    with pytest.raises(InputError, match="whole numbers or booleans, got float32"):
        score_mask(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool), SPACING_MM)
