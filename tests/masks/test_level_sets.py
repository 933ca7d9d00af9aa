"""The border that the scan draws inside the warm part of a heatmap."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from heatmask.errors import OptionError
from heatmask.masks.level_sets import draw_level_sets, find_warm_level, smooth_region
from heatmask.masks.make import MaskSettings, make_mask


def draw_lesion(
    shape: tuple[int, int, int] = (40, 36, 6), contrast: float = 50.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy scan with an ellipsoid, the ellipsoid, and a blurred, shifted heatmap of it."""
    places = np.indices(shape).T.astype(float).T
    centre = (np.array(shape) - 1) * (0.45, 0.55, 0.5)
    radii = np.array(shape) * (0.2, 0.15, 0.4)
    distance = sum(((p - c) / r) ** 2 for p, c, r in zip(places, centre, radii, strict=True))
    lesion = distance < 1
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    blur = shape[0] / 10
    heat = ndimage.gaussian_filter(lesion.astype(np.float32), (blur, blur, 1)) * 8 - 4
    return (
        (100 + contrast * lesion + noise).astype(np.float32),
        lesion,
        np.roll(heat, shape[0] // 20, 0).astype(np.float32),
    )


def measure_dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("polarity", ["bright", "dark"])
@pytest.mark.parametrize("shape", [(150, 140, 2), (40, 36, 6), (48, 40, 1)], ids=str)
def test_the_scan_draws_a_better_border_than_the_heatmap(polarity: str, shape) -> None:
    contrast = 50.0 if polarity == "bright" else -50.0
    scan, lesion, heat = draw_lesion(shape, contrast)
    mask = draw_level_sets(heat, scan, 2, 0.35, polarity)
    warm = heat > find_warm_level(heat, 0.35)
    assert measure_dice(mask, lesion) > measure_dice(warm, lesion) + 0.1
    other = draw_level_sets(heat, -scan, 2, 0.35, polarity)
    assert measure_dice(other, lesion) < measure_dice(mask, lesion)


@given(
    seed=st.integers(0, 50),
    level=st.floats(0.1, 0.8),
    gain=st.sampled_from([0.5, 2.0, 64.0]),
    shift=st.sampled_from([-512.0, 0.0, 128.0]),
)
@settings(max_examples=6, deadline=None)
def test_laws(seed: int, level: float, gain: float, shift: float) -> None:
    """Inside the warm part; the same for mirrored, turned, brighter and shifted scans."""
    scan, _, heat = draw_lesion((24, 20, 3), seed=seed)
    scan = scan.round()  # so that gain and shift change no digit
    mask = draw_level_sets(heat, scan, 2, level, "bright")
    assert mask.any()
    assert not (mask & (heat <= find_warm_level(heat, level))).any()
    again = draw_level_sets(heat * 2 + 8, scan * gain + shift, 2, level, "bright")
    assert measure_dice(mask, again) > 0.99
    for axis in range(3):
        mirrored = draw_level_sets(np.flip(heat, axis), np.flip(scan, axis), 2, level, "bright")
        assert measure_dice(np.flip(mirrored, axis), mask) > 0.99
    turned = draw_level_sets(heat.transpose(2, 1, 0), scan.transpose(2, 1, 0), 0, level, "bright")
    assert measure_dice(turned.transpose(2, 1, 0), mask) > 0.99


def test_pixels_of_any_size_give_the_same_border() -> None:
    scan, _, heat = draw_lesion((128, 112, 2))
    fine = [np.kron(volume, np.ones((3, 3, 1), np.float32)) for volume in (heat, scan)]
    mask, larger = (
        draw_level_sets(*pair, 2, 0.35, "bright") for pair in ((heat, scan), tuple(fine))
    )
    assert measure_dice(larger, np.kron(mask, np.ones((3, 3, 1), bool))) > 0.95


def test_only_the_hottest_part_is_drawn() -> None:
    scan, lesion, heat = draw_lesion()
    scan[:4, :4], heat[:4, :4] = 200, heat.min() + 0.5 * np.ptp(heat)
    mask = draw_level_sets(heat, scan, 2, 0.35, "bright")
    assert not mask[:4, :4].any()
    assert (mask & lesion).any()


@pytest.mark.parametrize("level", [0.0, 0.35, 1.0])
def test_a_flat_heatmap_or_scan_gives_no_error(level: float) -> None:
    scan, _, heat = draw_lesion()
    assert not draw_level_sets(np.zeros_like(heat), scan, 2, level, "bright").any()
    flat = draw_level_sets(heat, np.ones_like(scan), 2, level, "bright")
    assert not (flat & (heat <= find_warm_level(heat, level))).any()


def make(heat: np.ndarray, scan: np.ndarray, shown: np.ndarray, **given: object) -> np.ndarray:
    options = {"threshold_rule": "level_sets", "min_volume_mm3": 0.0} | given
    return make_mask(
        heat, scan, (1.0, 1.0, 3.0), 2, shown, MaskSettings(calibration=(-4.0, 4.0), **options)
    )


def test_the_rule_is_an_option_of_the_masks() -> None:
    scan, _, heat = draw_lesion()
    shown = np.ones(6, bool)
    mask = make(heat, scan, shown, snap=False)
    np.testing.assert_array_equal(mask, draw_level_sets(heat, scan, 2, 0.35, "bright"))
    assert not make(heat, scan, ~shown).any()
    assert not make(heat, scan, shown, min_volume_mm3=1e6).any()
    shown[0] = False
    heat[..., 0] = 1e6  # what fills the slices that are not shown decides nothing
    some = make(heat, scan, shown)
    assert some.any()
    assert not some[..., 0].any()
    with pytest.raises(OptionError, match="polarity must be one of bright, dark"):
        make(heat, scan, shown, polarity="grey")


def test_a_mask_does_not_trail_off_into_small_lukewarm_slices() -> None:
    column = np.zeros((40, 36, 8), bool)
    column[12:28, 10:26, 1:5] = True
    tail = np.zeros_like(column)
    tail[16:23, 14:21, 5:7] = True
    noise = np.random.default_rng(0).normal(0, 5, column.shape)
    scan = (100 + 50 * (column | tail) + noise).astype(np.float32)
    heat = np.select([column, tail], [4.0, 0.0], -4.0).astype(np.float32)
    shown = np.ones(8, bool)
    assert make(heat, scan, shown, keep="all")[tail].mean() > 0.7
    mask = make(heat, scan, shown)
    assert measure_dice(mask, column) > 0.95
    assert not mask[..., 5:].any()
    heat[tail] = 5.0
    assert make(heat, scan, shown)[tail].mean() > 0.7


def test_ten_slices_take_seconds() -> None:
    scan, _, heat = draw_lesion((256, 256, 10))
    start = time.process_time()
    draw_level_sets(heat, scan, 2, 0.35, "bright")
    assert time.process_time() - start < 5


def test_the_rule_warm_takes_all_above_its_level() -> None:
    scan, _, heat = draw_lesion()
    plain = {"threshold_rule": "warm", "warm_level": 0.45, "snap": False, "smooth_mm": 0.0}
    mask = make(heat, scan, np.ones(6, bool), **plain)
    np.testing.assert_array_equal(mask, heat > find_warm_level(heat, 0.45))
    assert not make(np.zeros_like(heat), scan, np.ones(6, bool), **plain).any()


@pytest.mark.parametrize("seed", range(4))
def test_a_region_is_smoothed_slice_by_slice(seed: int) -> None:
    """As its definition says, whatever of the slice it fills."""
    rng = np.random.default_rng(seed)
    region = ndimage.gaussian_filter(rng.random((6, 40, 36)), (0, 2, 2)) > 0.5
    region[seed] = False
    expected = region.copy()
    for part in expected:
        radius = max(1.0, 0.2 * np.sqrt(part.sum() / np.pi))
        core = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1] > radius
        if core.any():
            part[:] = ndimage.binary_fill_holes(ndimage.distance_transform_edt(~core) <= radius)
    assert (expected != region).any()
    np.testing.assert_array_equal(smooth_region(region), expected)


@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_bright_lesions_are_snapped_and_dark_ones_are_not(polarity: str) -> None:
    scan, lesion, heat = draw_lesion(contrast=50.0 if polarity == "bright" else -50.0)
    shown = np.ones(scan.shape[2], bool)
    drawn, snapped = (
        make_mask(
            heat, scan, (1.0, 1.0, 4.0), 2, shown,
            MaskSettings((-4, 4), threshold_rule="level_sets", polarity=polarity, snap=snap,
                         min_volume_mm3=0.0, snap_distance_mm=4.0),
        )
        for snap in (False, True)
    )  # fmt: skip
    if polarity == "dark":
        np.testing.assert_array_equal(snapped, drawn)
    else:
        assert measure_dice(snapped, lesion) > measure_dice(drawn, lesion) + 0.02
