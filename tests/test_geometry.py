"""Where voxels lie: spacing, masks in the order of their scan's voxels, what is near."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from heatmask.errors import InputError
from heatmask.geometry import find_near, match_voxels, measure_spacing_mm
from helpers.planted import store_as

SHAPE = (7, 5, 4)
SPACING_MM = (0.5, 2.0, 6.0)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.random(SHAPE) > 0.6, rng.random(SHAPE) > 0.5


def make_affine(spacing_mm=SPACING_MM, degrees=30.0) -> np.ndarray:
    """Oblique, anisotropic and left-handed."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-c, s, 0], [s, c, 0], [0, 0, 1]]) * spacing_mm
    affine[:3, 3] = (-40, 25, 310)
    return affine


def test_spacing_survives_rotation():
    assert measure_spacing_mm(make_affine()) == pytest.approx(SPACING_MM)


def test_rounded_affines_agree(pair):
    mask, _ = pair
    rounded = make_affine().astype(np.float32)
    np.testing.assert_array_equal(match_voxels(mask, rounded, SHAPE, make_affine()), mask)


@pytest.mark.fault("E")
@pytest.mark.parametrize("axcodes", ["LPS", "SAL", "IRP", "ASR"])
def test_a_mask_stored_in_another_order_is_brought_to_its_scans(pair, axcodes):
    mask, affine = pair[0], make_affine()
    stored, moved = store_as(mask, affine, axcodes)
    assert stored.shape != SHAPE or not np.array_equal(stored, mask)
    np.testing.assert_array_equal(match_voxels(stored, moved, SHAPE, affine), mask)


@pytest.mark.fault("E")
@pytest.mark.parametrize("change", ["shift", "turn", "flip", "coarser", "identity"])
def test_other_voxels_are_refused_and_both_are_named(pair, change):
    mask, other = pair[0], make_affine()
    if change == "shift":
        other[2, 3] += 1
    elif change == "turn":
        other = make_affine(degrees=35)
    elif change == "flip":
        other[:3, 0] *= -1  # about the origin, not about the volume's middle
    elif change == "coarser":
        mask, other = mask[::2], other @ np.diag([2, 1, 1, 1])
    else:
        other = np.eye(4)
    message = (
        r"\d x 5 x 4 voxels of .* mm \(.*7 x 5 x 4 voxels of 0\.5 x 2 x 6 mm .* -40, 25, 310 mm"
    )
    with pytest.raises(InputError, match=message) as caught:
        match_voxels(mask, other, SHAPE, make_affine())
    assert ("affine is the identity" in str(caught.value)) == (change == "identity")


@given(
    seed=st.integers(0, 1000),
    spacing=st.tuples(*[st.floats(0.3, 7)] * 3),
    reach_mm=st.floats(0, 30),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_near_is_what_the_distance_transform_says(seed, spacing, reach_mm, shape) -> None:
    voxels = np.random.default_rng(seed).random(shape) > 0.9
    away = ndimage.distance_transform_edt(~voxels, sampling=spacing)
    expected = (away <= reach_mm) if voxels.any() else voxels
    found = find_near(voxels, reach_mm, spacing)
    clear = abs(away - reach_mm) > 1e-5 * reach_mm  # float32 must not decide
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert found[voxels].all()


def test_what_lies_at_the_reach_is_near() -> None:
    voxels = np.zeros((9, 9, 3), bool)
    voxels[4, 4, 1] = True
    near = find_near(voxels, 2.0, (0.4, 0.4, 1e6))
    assert near[:, 4, 1].tolist() == [True] * 9
    assert near[7, 8, 1], "3 and 4 steps: 1.2 and 1.6 mm"
    assert near[8, 7, 1]
    assert not near[8, 8, 1]
    assert not near[..., [0, 2]].any()
