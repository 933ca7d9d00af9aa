"""The quality of a mask without a reference: what raises it, and what a person reads of it."""

import numpy as np
import pytest
from scipy import ndimage

from heatmask.report.quality import (
    CLOSE_LOOK,
    GAP_MM,
    RING_MM,
    measure_contrast,
    measure_quality,
)
from heatmask.report.summary import advise

SPACING = (1.0, 1.0, 4.0)


def make_head(brightness=3.0):
    scan = np.random.default_rng(3).normal(10, 1, (40, 36, 12))
    scan[:4] = 0
    lesion = np.zeros(scan.shape, bool)
    lesion[15:25, 12:24, 4:8] = True
    scan[lesion] += brightness
    return scan, lesion


def test_sure_and_distinct_is_good():
    scan, lesion = make_head()
    assert measure_quality(scan, lesion, 0.9999, SPACING) > 0.9


@pytest.mark.parametrize(("probability", "brightness"), [(0.55, 3.0), (0.9999, 0.0)])
def test_unsure_or_faint_is_worse(probability, brightness):
    scan, lesion = make_head(brightness)
    assert measure_quality(scan, lesion, probability, SPACING) < CLOSE_LOOK


def test_a_mask_beside_the_lesion_is_worse_than_one_on_it():
    scan, lesion = make_head()
    beside = np.roll(lesion, 14, axis=0)
    on_it, off_it = (measure_quality(scan, m, 0.99, SPACING) for m in (lesion, beside))
    assert off_it < on_it - 0.2


def test_dark_lesions_stand_out_too():
    scan, lesion = make_head()
    dark = np.where(lesion, scan - 6, scan)
    assert measure_contrast(dark, lesion, SPACING) == pytest.approx(
        measure_contrast(scan, lesion, SPACING), rel=0.3
    )


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_units_of_the_scan_do_not_matter(unit):
    scan, lesion = make_head()
    assert measure_contrast(unit * scan, lesion, SPACING) == pytest.approx(
        measure_contrast(scan, lesion, SPACING)
    )


def test_surroundings_are_those_in_the_whole_volume():
    """What is measured in a box around the mask is what the whole volume says, at its edges too."""
    rng = np.random.default_rng(7)
    for place in np.ndindex(3, 3):
        scan = rng.normal(10, 2, (30, 26, 9))
        mask = np.zeros(scan.shape, bool)
        mask[tuple(slice(12 * i, 12 * i + 6) for i in place)] = True
        away = ndimage.distance_transform_edt(~mask, sampling=SPACING)
        ring = (away > GAP_MM) & (away <= RING_MM)
        whole = abs(scan[mask].mean() - scan[ring].mean()) / scan[scan > scan.min()].std()
        for order in "CF":
            stored = np.asarray(scan, order=order)
            assert measure_contrast(stored, mask, SPACING) == pytest.approx(whole, rel=1e-9)


def test_a_picture_is_judged_too():
    scan, lesion = (a[:, :, 5:6] for a in make_head())
    faint = np.where(lesion, scan - 3, scan)
    good, bad = (measure_quality(s, lesion, 0.9999, (1.0, 1.0, 1.0)) for s in (scan, faint))
    assert bad < CLOSE_LOOK < 0.9 < good
    assert "Look closely" in advise(bad)


def test_empty_full_and_constant():
    scan, lesion = make_head()
    assert measure_quality(scan, np.zeros_like(lesion), 0.9, SPACING) is None
    assert measure_contrast(scan, np.ones_like(lesion), SPACING) == 0
    assert measure_contrast(np.ones_like(scan), lesion, SPACING) == 0


def test_a_person_is_asked_to_look_closely_below_the_level_alone():
    assert "Look closely" in advise(CLOSE_LOOK - 0.01)
    assert not advise(CLOSE_LOOK)
    assert not advise(None)
