"""From heatmap to mask: thresholds against scikit-image, the rest against hand-made shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from heatmask.errors import OptionError
from heatmask.masks.clean import KEEP, clean_mask, crop_to_mask, fill_holes, open_mask, trim_ends
from heatmask.masks.make import make_mask
from heatmask.masks.settings import MaskSettings
from heatmask.masks.snap import snap_mask
from heatmask.masks.threshold import threshold_heatmap
from helpers.planted import draw_ball

CALIBRATION = (-6.0, 4.0)
BIN = 10.0 / 256
SHAPE = (21, 26, 8)
SPACING = (1.0, 2.0, 5.0)


def draw_heatmap(seed: int = 0) -> np.ndarray:
    """Three overlapping modes that reach beyond both ends of the calibration."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(m, s, n) for m, s, n in ((-5, 1, 6000), (-1, 1, 2500), (3, 1, 1500))]
    values = np.concatenate(parts).astype(np.float32)
    return rng.permutation(values).reshape(20, 25, 20)


# --- thresholds ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_otsu_against_scikit_image(seed: int) -> None:
    heatmap = draw_heatmap(seed)
    expected = threshold_otsu(heatmap.clip(*CALIBRATION))
    assert threshold_heatmap(heatmap, "otsu", CALIBRATION) == pytest.approx(expected, abs=BIN)


@pytest.mark.parametrize("seed", range(2))
def test_multi_otsu_against_scikit_image(seed: int) -> None:
    heatmap = draw_heatmap(seed)
    expected = threshold_multiotsu(heatmap.clip(*CALIBRATION), classes=3)
    found = threshold_heatmap(heatmap, "multi_otsu", CALIBRATION)
    assert found == pytest.approx(expected[-1], abs=BIN)
    assert found > threshold_heatmap(heatmap, "otsu", CALIBRATION)


def test_values_beyond_the_calibration_count_as_its_ends() -> None:
    heatmap = draw_heatmap()
    extreme = heatmap.copy()
    extreme[extreme > 4] *= 1e4
    extreme[extreme < -6] *= 1e4
    for rule in ("otsu", "multi_otsu"):
        expected = threshold_heatmap(heatmap, rule, CALIBRATION)
        assert threshold_heatmap(extreme, rule, CALIBRATION) == expected
    assert abs(threshold_otsu(extreme)) > 100, "without clipping a few extremes would decide"


@pytest.mark.parametrize(("level", "value"), [(0.0, -6.0), (0.475, -1.25), (1.0, 4.0)])
def test_a_fixed_level_is_a_share_of_the_calibration(level: float, value: float) -> None:
    assert threshold_heatmap(draw_heatmap(), "fixed", CALIBRATION, level) == pytest.approx(value)


@pytest.mark.parametrize("rule", ["otsu", "multi_otsu"])
@pytest.mark.parametrize("value", [-6.0, 0.0, 4.0, 99.0, -99.0])
def test_a_constant_heatmap_has_no_foreground(rule: str, value: float) -> None:
    assert threshold_heatmap(np.full(SHAPE, value, np.float32), rule, CALIBRATION) == np.inf


def test_a_heatmap_that_is_constant_within_the_calibration_has_no_foreground() -> None:
    heatmap = np.random.default_rng(0).normal(30, 5, SHAPE).astype(np.float32)
    assert threshold_heatmap(heatmap, "otsu", CALIBRATION) == np.inf


@given(low=st.floats(-20, 20), gap=st.floats(0.5, 20), rule=st.sampled_from(["otsu", "multi_otsu"]))
@settings(max_examples=20, deadline=None)
def test_plateaus_are_told_apart(low: float, gap: float, rule: str) -> None:
    """Wherever they lie in their bins: all of the threshold's bin belongs to the lower class."""
    heatmap = np.full(SHAPE, low, np.float32)
    heatmap[:5] += gap
    if rule == "multi_otsu":
        heatmap[5:9] += 0.4 * gap
    found = threshold_heatmap(heatmap, rule, (low - 1, low + gap + 1))
    assert (heatmap > found).sum() == heatmap[:5].size


@pytest.mark.parametrize("calibration", [(4.0, -6.0), (1.0, 1.0), (np.nan, 1.0)])
@pytest.mark.parametrize("rule", ["otsu", "fixed"])
def test_a_calibration_the_wrong_way_round(calibration: tuple[float, float], rule: str) -> None:
    with pytest.raises(OptionError, match=r"calibration must be \(low, high\) with low < high"):
        threshold_heatmap(draw_heatmap(), rule, calibration)


def test_an_unknown_rule() -> None:
    with pytest.raises(OptionError, match=r"threshold_rule must be one of .*got 'best'"):
        threshold_heatmap(draw_heatmap(), "best", CALIBRATION)


# --- clean-up ------------------------------------------------------------------------------


def draw_objects() -> np.ndarray:
    """Objects of 24, 6 and 1 voxels, the last touching the first by an edge only."""
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 3:7, 1:3] = True
    mask[12:15, 10:12, 5] = True
    mask[5, 7, 1] = True
    return mask


@pytest.mark.parametrize(
    ("voxel_mm3", "min_volume_mm3", "keep", "voxels"),
    [
        (10.0, 0, "all", 31),
        (10.0, 10.0, "all", 31),
        (10.0, 10.1, "all", 30),
        (10.0, 60.0, "all", 30),
        (10.0, 60.1, "all", 24),
        (10.0, 0, "largest", 24),
        (10.0, 240.0, "largest", 24),
        (10.0, 240.1, "largest", 0),
        (10.0, 0, "strongest", 6),
        (10.0, 60.0, "strongest", 6),
        (10.0, 60.1, "strongest", 24),
        (0.5, 12.0, "all", 24),
        (0.5, 12.1, "all", 0),
    ],
)
def test_objects_are_measured_in_mm3(
    voxel_mm3: float, min_volume_mm3: float, keep: str, voxels: int
) -> None:
    mask = draw_objects()
    before = mask.copy()
    evidence = np.ones(SHAPE, np.float32)
    evidence[12:15] = 5.0  # 30 in the object of 6 voxels, 24 in the largest
    cleaned = clean_mask(mask, evidence, voxel_mm3, min_volume_mm3, keep)
    assert cleaned.sum() == voxels
    assert not (cleaned & ~mask).any()
    np.testing.assert_array_equal(mask, before)
    if voxels == 24:
        assert cleaned[2:5, 3:7, 1:3].all()


def test_the_largest_is_a_volume_not_a_slice() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 2:5, 1] = True  # 9 voxels on a slice
    mask[10:12, 10:12, 2:6] = True  # 16 voxels, 4 a slice
    for keep in ("strongest", "largest"):
        kept = clean_mask(mask, mask.astype(np.float32), 1, 0, keep)
        assert np.argwhere(kept)[:, 0].min() == 10, "the deeper one is kept"


def test_without_evidence_the_strongest_is_the_largest() -> None:
    assert clean_mask(draw_objects(), np.zeros(SHAPE, np.float32), 1.0, 0.0).sum() == 24


def test_cleaning_nothing() -> None:
    empty = np.zeros(SHAPE, bool)
    evidence = np.ones(SHAPE, np.float32)
    for keep in KEEP:
        assert not clean_mask(empty, evidence, 1.0, 0.0, keep).any()
        assert clean_mask(~empty, evidence, 1.0, 0.0, keep).all()


def test_bad_cleaning_options() -> None:
    with pytest.raises(OptionError, match=r"keep must be one of .*got 'both'"):
        clean_mask(draw_objects(), np.ones(SHAPE, np.float32), 1.0, 0.0, "both")
    with pytest.raises(OptionError, match=r"min_volume_mm3 must be at least 0, got -1"):
        clean_mask(draw_objects(), np.ones(SHAPE, np.float32), 1.0, -1)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_holes_are_filled_slice_by_slice(slice_axis: int) -> None:
    """A tube is solid seen along its axis, and has no hole on slices through its axis."""
    tube = np.zeros((8, 9, 6), bool)
    tube[2:6, 2:7] = True
    tube[3:5, 3:6] = False
    filled = fill_holes(tube, slice_axis)
    assert filled.shape == tube.shape
    if slice_axis == 2:
        assert filled[2:6, 2:7].all()
        assert filled.sum() == 4 * 5 * 6
    else:
        np.testing.assert_array_equal(filled, tube)


def test_filling_nothing() -> None:
    assert not fill_holes(np.zeros(SHAPE, bool), 2).any()


@pytest.mark.parametrize("margin", [(0, 0, 0), (2, 1, 0), (50, 50, 50)])
def test_the_box_holds_the_mask_and_its_margin(margin: tuple[int, int, int]) -> None:
    mask = draw_objects()
    box = crop_to_mask(mask, margin)
    assert mask[box].sum() == mask.sum()
    low, high = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
    expected = tuple(
        min(h + m, n - 1) - max(a - m, 0) + 1
        for a, h, m, n in zip(low, high, margin, mask.shape, strict=True)
    )
    assert mask[box].shape == expected


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("areas", "hot", "kept"),
    [
        ([0, 2, 12, 20, 3, 9, 4, 0], [], range(2, 6)),  # small slices between stay
        ([0, 2, 12, 20, 3, 9, 4, 0], [6], range(2, 7)),
        ([0, 2, 12, 20, 3, 9, 4, 0], [1, 7], range(1, 6)),
        ([5, 20, 5, 4, 4, 4, 4, 4], [], range(3)),  # exactly the share stays
        ([0, 0, 0, 1, 0, 0, 0, 0], [], range(3, 4)),
    ],
)
def test_small_slices_at_the_ends_go_unless_they_are_hot(
    slice_axis: int, areas: list[int], hot: list[int], kept: range
) -> None:
    mask, warmth = np.zeros((2, 8, 5, 4), bool)
    for part, area in zip(mask, areas, strict=True):
        part.flat[:area] = True
    warmth[hot, 0, 0] = True
    expected = np.where(np.isin(np.arange(8), kept)[:, None, None], mask, False)
    turned = [np.moveaxis(volume, 0, slice_axis) for volume in (mask, warmth, expected)]
    np.testing.assert_array_equal(trim_ends(*turned[:2], slice_axis, 0.25), turned[2])


def test_trimming_nothing() -> None:
    empty = np.zeros(SHAPE, bool)
    assert not trim_ends(empty, ~empty, 2, 0.25).any()
    np.testing.assert_array_equal(trim_ends(draw_objects(), empty, 2, 0.0), draw_objects())


# --- snapping ------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_shrunken_core_snaps_back_to_the_disc(slice_axis: int) -> None:
    """A bright disc of 10 mm on one slice, found as a core of 6.5 mm, on anisotropic pixels."""
    plane_mm, centre = (1.0, 2.0), (15, 14)
    disc, core = (draw_ball((31, 16), centre, r, plane_mm) for r in (10, 6.5))
    scan = np.ones((7, 31, 16), np.float32)
    mask = np.zeros(scan.shape, bool)
    scan[3][disc], mask[3] = 2.0, core
    scan[2] = scan[4] = scan[3]  # bright neighbours must not be reached
    spacing = [0.5, *plane_mm]
    arrays = [np.moveaxis(a, 0, slice_axis) for a in (mask, scan)]
    spacing.insert(slice_axis, spacing.pop(0))
    snapped = np.moveaxis(snap_mask(*arrays, tuple(spacing), slice_axis, 8.0), slice_axis, 0)
    np.testing.assert_array_equal(snapped[3], disc)
    assert not snapped[[0, 1, 2, 4, 5, 6]].any()


def test_a_mask_that_spills_over_shrinks_back_to_the_disc() -> None:
    scan = np.ones((31, 31, 3), np.float32)
    disc = draw_ball((31, 31), (15, 15), 10)
    scan[..., 1][disc] = 2.0
    mask = np.zeros(scan.shape, bool)
    mask[..., 1] = draw_ball((31, 31), (15, 15), 12)
    np.testing.assert_array_equal(snap_mask(mask, scan, (1, 1, 5), 2, 3.0)[..., 1], disc)


@pytest.mark.parametrize("distance_mm", [3.9, 4.0, 6.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_reach_is_in_mm(axis: int, distance_mm: float) -> None:
    """A bright line through a single voxel is followed as far as asked, not farther."""
    scan = np.zeros((31, 31, 3), np.float32)
    np.moveaxis(scan, axis, 0)[:, 15] = 1.0  # on all slices
    mask = np.zeros(scan.shape, bool)
    mask[15, 15, 1] = True
    pixel_mm = (1.0, 2.0)
    snapped = snap_mask(mask, scan, (*pixel_mm, 0.1), 2, distance_mm)
    expected = np.zeros(scan.shape, bool)
    reach = int(distance_mm / pixel_mm[axis])
    np.moveaxis(expected[..., 1], axis, 0)[15 - reach : 16 + reach, 15] = True
    np.testing.assert_array_equal(snapped, expected)


@pytest.mark.parametrize("core", [0.5, 1.0])
def test_a_core_that_is_not_brighter_stays_as_it_is(core: float) -> None:
    scan = np.ones(SHAPE, np.float32)
    mask = draw_ball(SHAPE, (10, 13, 4), 3)
    scan[mask] = core
    np.testing.assert_array_equal(snap_mask(mask, scan, SPACING, 2, 8.0), mask)


def test_snapping_with_nowhere_to_go() -> None:
    scan = np.random.default_rng(0).random(SHAPE, np.float32)
    empty = np.zeros(SHAPE, bool)
    assert not snap_mask(empty, scan, SPACING, 2, 8.0).any()
    assert snap_mask(~empty, scan, SPACING, 2, 8.0).all()
    ball = draw_ball(SHAPE, (10, 13, 4), 3)
    np.testing.assert_array_equal(snap_mask(ball, scan, SPACING, 2, 0.0), ball)


def test_a_negative_reach() -> None:
    with pytest.raises(OptionError, match=r"snap_distance_mm must be at least 0, got -1"):
        snap_mask(np.ones(SHAPE, bool), np.ones(SHAPE, np.float32), SPACING, 2, -1)


# --- smoothing -----------------------------------------------------------------------------


def draw_dumbbell() -> np.ndarray:
    """On one slice: two discs of 8 mm, joined by a bridge of one pixel; pixels of 1 x 2 mm."""
    mask = np.zeros((60, 20, 3), bool)
    for x in (12, 46):
        mask[..., 1] |= draw_ball((60, 20), (x, 20), 8, (1, 2))
    mask[12:46, 10, 1] = True
    return mask


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_thin_bridges_go_and_discs_stay(slice_axis: int) -> None:
    mask = draw_dumbbell()
    moved, spacing = np.moveaxis(mask, 2, slice_axis), [1.0, 2.0]
    spacing.insert(slice_axis, 5.0)
    opened = np.moveaxis(open_mask(moved, tuple(spacing), slice_axis, 2.0), slice_axis, 2)
    assert not (opened & ~mask).any()
    assert ndimage.label(mask)[1] == 1
    assert ndimage.label(opened)[1] == 2
    assert opened[12, 10, 1]
    assert not opened[29, 10, 1]
    again = open_mask(opened, (1.0, 2.0, 5.0), 2, 2.0)
    np.testing.assert_array_equal(again, opened, "opening twice is opening once")


def test_what_holds_the_disc_is_left_as_it_is() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[4:12, 3:9, 2:4] = True
    cross = np.zeros((5, 3, 1), bool)  # a disc of 2 mm on pixels of 1 x 2 mm
    cross[:, 1] = cross[2] = True
    expected = ndimage.binary_opening(mask, cross)
    np.testing.assert_array_equal(open_mask(mask, SPACING, 2, 2.0), expected)
    assert expected.sum() == mask.sum() - 2 * 4 * 2, "two pixels of each corner, on two slices"


def test_smoothing_works_on_each_slice_alone() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[4:14, 4:14, 3] = True  # one slice thin, whatever the distance between slices
    assert open_mask(mask, (1.0, 1.0, 0.5), 2, 2.0)[8, 8, 3]


def test_smoothing_changes_nothing() -> None:
    thin = np.zeros(SHAPE, bool)
    thin[3:15, 4, 2] = True
    np.testing.assert_array_equal(open_mask(thin, SPACING, 2, 3.0), thin, "all of it is thin")
    np.testing.assert_array_equal(open_mask(draw_dumbbell(), (1, 2, 5), 2, 0.9), draw_dumbbell())
    np.testing.assert_array_equal(open_mask(draw_dumbbell(), (1, 2, 5), 2, 0.0), draw_dumbbell())
    assert not open_mask(np.zeros(SHAPE, bool), SPACING, 2, 2.0).any()


def test_a_negative_radius() -> None:
    with pytest.raises(OptionError, match=r"smooth_mm must be at least 0, got -2"):
        open_mask(draw_dumbbell(), (1, 2, 5), 2, -2)


# --- all of it -----------------------------------------------------------------------------


def make_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heatmap, scan and the lesion that both show, the heatmap only its inner half."""
    lesion = draw_ball(SHAPE, (10, 24, 20), 9, SPACING)
    core = draw_ball(SHAPE, (10, 24, 20), 6, SPACING)
    heatmap = np.where(core, 3.0, -5.0).astype(np.float32)
    return heatmap, (1.0 + lesion).astype(np.float32), lesion


ALL = np.ones(SHAPE[2], bool)


def make_rules(**options: object) -> MaskSettings:
    """Settings without smoothing and volume limit, unless given."""
    return MaskSettings(
        **{"calibration": CALIBRATION, "min_volume_mm3": 0, "smooth_mm": 0, **options}
    )


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("rule", ["otsu", "fixed"])
def test_the_whole_way_along_every_axis(slice_axis: int, rule: str) -> None:
    heatmap, scan, lesion = make_case()
    shown = np.ones(SHAPE[slice_axis], bool)
    rules = make_rules(threshold_rule=rule, threshold_level=0.6, min_volume_mm3=50)
    mask = make_mask(heatmap, scan, SPACING, slice_axis, shown, rules)
    others = tuple(a for a in range(3) if a != slice_axis)
    held = np.moveaxis(mask, slice_axis, 0)
    on_core = (heatmap > 0).any(axis=others)
    assert mask.dtype == bool
    np.testing.assert_array_equal(held[on_core], np.moveaxis(lesion, slice_axis, 0)[on_core])
    assert not held[~on_core].any(), "snapping stays on the slices the heatmap marks"


def test_without_snapping_it_is_the_core() -> None:
    heatmap, scan, _ = make_case()
    rules = make_rules(snap=False)
    np.testing.assert_array_equal(make_mask(heatmap, scan, SPACING, 2, ALL, rules), heatmap > 0)


def test_slices_that_are_not_shown_neither_decide_nor_appear() -> None:
    heatmap, scan, _ = make_case()
    shown = ALL.copy()
    shown[[3, 6]] = False
    wild = heatmap.copy()
    wild[..., 3], wild[..., 6] = 4.0, np.linspace(-6, 4, 21 * 26).reshape(21, 26)
    rules = make_rules(keep="all")
    mask = make_mask(wild, scan, SPACING, 2, shown, rules)
    assert not mask[..., ~shown].any()
    assert mask.any()
    np.testing.assert_array_equal(mask, make_mask(heatmap, scan, SPACING, 2, shown, rules))
    assert make_mask(wild, scan, SPACING, 2, ALL, rules)[..., 3].any()


@pytest.mark.parametrize("rule", ["otsu", "multi_otsu", "fixed"])
def test_no_shown_slice_gives_an_empty_mask(rule: str) -> None:
    heatmap, scan, _ = make_case()
    rules = make_rules(threshold_rule=rule)
    mask = make_mask(heatmap, scan, SPACING, 2, ~ALL, rules)
    assert mask.shape == SHAPE
    assert mask.dtype == bool
    assert not mask.any()


@pytest.mark.parametrize("rule", ["otsu", "multi_otsu"])
def test_a_constant_heatmap_gives_an_empty_mask(rule: str) -> None:
    _, scan, _ = make_case()
    rules = make_rules(threshold_rule=rule, keep="all")
    heatmap = np.full(SHAPE, 3.0, np.float32)
    assert not make_mask(heatmap, scan, SPACING, 2, ALL, rules).any()


def test_small_lesions_are_dropped_by_volume() -> None:
    heatmap, scan, _ = make_case()
    core_mm3 = float((heatmap > 0).sum() * np.prod(SPACING))
    for limit, left in ((core_mm3, True), (core_mm3 + 1, False)):
        rules = make_rules(min_volume_mm3=limit, snap=False)
        assert make_mask(heatmap, scan, SPACING, 2, ALL, rules).any() == left


def test_holes_in_a_slice_are_filled() -> None:
    heatmap, scan, _ = make_case()
    heatmap[10, 12, 4] = -5.0
    rules = make_rules(snap=False)
    assert make_mask(heatmap, scan, SPACING, 2, ALL, rules)[10, 12, 4]


def test_a_wide_faint_object_does_not_win_over_a_hot_one() -> None:
    """Otherwise the background of a slice that is called tumour by mistake is the mask."""
    heatmap, scan, lesion = make_case()
    heatmap[:, :, 0] = 0.3
    masks = {
        keep: make_mask(
            heatmap,
            scan,
            SPACING,
            2,
            ALL,
            make_rules(keep=keep, snap=False, threshold_rule="fixed", threshold_level=0.6),
        )
        for keep in KEEP
    }
    assert masks["largest"][:, :, 0].all(), "the case is one: the faint object is the largest"
    assert (masks["strongest"] & lesion).any()
    assert not masks["strongest"][:, :, 0].any()


def test_heat_beyond_the_calibration_is_no_further_evidence() -> None:
    """A few extreme pixels, as attribution methods give them, are no lesion."""
    heatmap, scan, lesion = make_case()
    heatmap[1:3, 1, 1] = 1e6
    mask = make_mask(heatmap, scan, SPACING, 2, ALL, make_rules(snap=False))
    assert (mask & lesion).any()
    assert not mask[1:3, 1, 1].any()


def test_all_or_one() -> None:
    heatmap, scan, _ = make_case()
    heatmap[1:4, 1:4, 1] = 3.0
    counts = {}
    for keep in KEEP:
        mask = make_mask(heatmap, scan, SPACING, 2, ALL, make_rules(keep=keep, snap=False))
        counts[keep] = ndimage.label(mask)[1]
    assert counts == {"strongest": 1, "largest": 1, "all": 2}


def test_the_inputs_are_left_as_they_were() -> None:
    heatmap, scan, _ = make_case()
    copies = heatmap.copy(), scan.copy()
    make_mask(heatmap, scan, SPACING, 2, ALL, make_rules())
    np.testing.assert_array_equal(heatmap, copies[0])
    np.testing.assert_array_equal(scan, copies[1])


def test_smoothing_comes_after_snapping() -> None:
    """A bright vessel beside the lesion is snapped to, and cut off again."""
    heatmap, scan, lesion = make_case()
    scan[10, :, 4] = 2.0
    snapped, smoothed = (
        make_mask(heatmap, scan, SPACING, 2, ALL, make_rules(smooth_mm=mm)) for mm in (0, 2)
    )
    assert (snapped & ~lesion).sum() >= 6
    assert (smoothed & ~lesion).sum() <= 2, "its foot at most"
    assert smoothed.sum() > 0.8 * lesion[..., smoothed.any((0, 1))].sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold_rule": "mean"}, "threshold_rule must be one of .*got 'mean'"),
        ({"keep": "smallest"}, "keep must be one of .*got 'smallest'"),
        ({"min_volume_mm3": -5.0}, "min_volume_mm3 must be at least 0, got -5.0"),
        ({"min_volume_mm3": float("nan")}, "min_volume_mm3 must be at least 0, got nan"),
        ({"snap_distance_mm": -0.1}, "snap_distance_mm must be at least 0, got -0.1"),
        ({"smooth_mm": -1.0}, "smooth_mm must be at least 0, got -1.0"),
        ({"calibration": (4.0, -6.0)}, r"calibration must be \(low, high\) with low < high"),
        (
            {"threshold_level": float("nan")},
            "threshold_level must be a number from 0 to 1",
        ),
    ],
)
def test_bad_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        MaskSettings(**{"calibration": CALIBRATION, **options})


class TestPaperPreset:
    """The steps of the GP networks' paper, slice by slice."""

    def make(self, heatmap: np.ndarray, shown: list[bool], **options: float) -> np.ndarray:
        settings = MaskSettings(calibration=(0.0, 1.0), preset="paper", **options)
        scan = np.zeros_like(heatmap)
        return make_mask(heatmap, scan, (1.0, 1.0, 5.0), 2, np.array(shown), settings)

    def draw(self) -> np.ndarray:
        """Background 0, a wide rim of 2, a core of 6; a smaller second core; a slice of nothing."""
        heatmap = np.zeros((60, 70, 3), np.float32)
        heatmap[5:45, 5:45, :2] = 2
        heatmap[10:30, 10:30, :2] = 6
        heatmap[50:59, 50:60, :2] = 6
        heatmap[..., 2] = -1
        return heatmap

    def test_the_largest_core_is_found_on_every_shown_slice(self) -> None:
        mask = self.make(self.draw(), [True, False, True], otsu_offset=0.0)
        expected = np.zeros((60, 70), bool)
        expected[10:30, 10:30] = True
        np.testing.assert_array_equal(mask[..., 0], expected)
        assert not mask[..., 1:].any()

    def test_the_offset_lowers_the_threshold(self) -> None:
        wide = self.make(self.draw(), [True, True, True], otsu_offset=4.0)
        assert wide[5:45, 5:45, 0].sum() == 1600

    def test_small_objects_go_small_holes_are_filled_and_negatives_count_as_zero(self) -> None:
        heatmap = self.draw()[..., :1].copy()
        heatmap[15:20, 15:20] = -50  # a hole of 25 pixels; as a value it would move the threshold
        heatmap[33:40, 33:42] = 6  # 63 pixels
        mask = self.make(heatmap, [True], otsu_offset=0.0)[..., 0]
        assert mask[15:20, 15:20].all()
        assert mask.sum() == 400
        only_small = np.random.default_rng(0).random((60, 70, 1)).astype(np.float32)
        only_small[33:40, 33:42] = 6
        assert not self.make(only_small, [True], otsu_offset=0.0).any()

    def test_a_large_offset_makes_no_object_of_what_is_not_there(self) -> None:
        mask = self.make(self.draw(), [True] * 3, otsu_offset=100.0)
        assert not mask[46:, :40, 0].any()

    def test_an_unknown_preset_and_offset_are_refused(self) -> None:
        with pytest.raises(OptionError, match="preset must be one of default, paper, got 'papr'"):
            MaskSettings(calibration=(0.0, 1.0), preset="papr")
        with pytest.raises(OptionError, match="otsu_offset must be a number, got nan"):
            MaskSettings(calibration=(0.0, 1.0), otsu_offset=float("nan"))
