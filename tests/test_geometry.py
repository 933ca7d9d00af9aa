"""Where voxels lie: the spacing of an affine, and masks in the order of their scan's voxels."""

import numpy as np
import pytest

from heatmask.errors import InputError
from heatmask.geometry import match_voxels, measure_spacing_mm
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
