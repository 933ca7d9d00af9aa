"""Air becomes 0 whatever number it has, and nothing else changes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from heatmask.bundle import read_bundle, run_bundle
from heatmask.data.background import count_frequent, zero_background, zero_channels
from helpers.phantom import make_phantom
from helpers.scan_files import write_nifti

SHAPE = (40, 37, 18)


def draw_head(seed: int = 0, skull: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Tissue of 40 to 240, at most a third of the volume, and where it is; air is exactly 0."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    inside = np.linalg.norm((grid - np.array(SHAPE) / 2) / (15, 13, 8), axis=-1) < 1
    tissue = rng.uniform(40 if not skull else 4, 240, SHAPE).round()
    return np.where(inside, tissue, 0).astype(np.float32), inside


@given(seed=st.integers(0, 200), size=st.sampled_from([1, 3, 9, 10, 11, 30, 1000]))
def test_what_is_frequent_is_counted(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.integers(-5, rng.integers(-4, 40), size).astype(np.float32)
    numbers, counts = np.unique(values, return_counts=True)
    expected = {v: n for v, n in zip(numbers, counts, strict=True) if n / size >= 0.1}
    assert count_frequent(values, 0.1) == expected


def test_a_volume_without_a_background_of_its_own_is_not_copied():
    head, inside = draw_head()
    plain = MetaTensor(torch.from_numpy(head)[None], np.diag([-2.0, 1.0, 3.0, 1.0]))
    assert zero_channels(plain) is plain
    filled = MetaTensor(torch.from_numpy(np.where(inside, head, -1000)), plain.affine)
    out = zero_channels(torch.cat([plain, filled[None]]))
    assert torch.equal(out[0], plain[0])
    assert torch.equal(out[1], plain[0])
    assert torch.equal(out.affine, plain.affine)


@given(
    offset=st.sampled_from([-32768, -1000, -100, -1, 1, 40, 80, 1000, 32768]),
    scale=st.sampled_from([0.01, 1.0, 16.0]),
    skull=st.booleans(),
)
def test_an_offset_of_everything_changes_nothing(offset, scale, skull):
    """Without a skull nothing tells a negative offset from a fill: there it is taken as one."""
    head, _ = draw_head(skull=skull or offset < 0)
    out = zero_background((scale * head + np.float32(offset)).astype(np.float32))
    np.testing.assert_allclose(out, scale * head, atol=0.005 * 240 * scale)


@given(value=st.sampled_from([-32768.0, -2000.0, -1000.0, -100.0, -20.0, 1000.0, 4095.0]))
def test_a_background_with_a_number_of_its_own_is_air(value):
    head, inside = draw_head()
    np.testing.assert_array_equal(zero_background(np.where(inside, head, value)), head)


@pytest.mark.parametrize("value", [-1000.0, -100.0])
def test_corners_filled_after_a_rotation(value):
    """A few voxels of padding outside the field of view, around noisy air."""
    head, inside = draw_head()
    noise = np.random.default_rng(1).rayleigh(2, SHAPE).astype(np.float32)
    scan = np.where(inside, head, noise)
    padded = scan.copy()
    padded[:4, :4] = value
    out = zero_background(padded)
    assert (out[:4, :4] == 0).all()
    np.testing.assert_allclose(out[4:], scan[4:], atol=0.5)


def test_a_z_normalised_head():
    """Its background lies in the middle of its range; its own lowest voxel becomes 0."""
    head, inside = draw_head(skull=False)
    scored = np.where(inside, (head - 140.5) / 50, 0).astype(np.float32)
    out = zero_background(scored)
    assert (out[~inside] == 0).all()
    np.testing.assert_allclose(out[inside], (head[inside] - 40) / 50, atol=0.05)


def test_a_background_among_the_numbers_of_tissue():
    """What tissue encloses is tissue then."""
    head, inside = draw_head()
    scan = np.where(inside, head, 100.5).astype(np.float32)
    scan[20, 18, 9] = 100.5
    out = zero_background(scan)
    assert out[20, 18, 9] == 100.5
    assert not out[~inside].any()


@pytest.mark.fault("B")
@pytest.mark.parametrize("value", [300.0, 4095.0])
def test_a_background_above_all_tissue_is_air_inside_the_head_too(value):
    """As when all zeros of a scan are replaced, those of fluid with those of air."""
    head, _ = draw_head()
    head[18:22, 17:20, 8:10] = 0
    np.testing.assert_array_equal(zero_background(np.where(head == 0, value, head)), head)


@pytest.mark.fault("B")
@pytest.mark.parametrize("values", [(-1024, -2000), (-2000, -1024), (3000, -1024), (3000, 3000)])
def test_two_fills_beside_air(values):
    head, _ = draw_head()
    padded = head.copy()
    padded[:6], padded[:, :6] = values
    np.testing.assert_array_equal(zero_background(padded), head)


@pytest.mark.fault("B")
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("place", [(0, 0, 0), (20, 18, 9)])
def test_a_few_voxels_far_below_all_others_are_defects(offset, place):
    head, _ = draw_head()
    head[place] = 0
    scan = head + np.float32(offset)
    scan[place] = -32768
    np.testing.assert_allclose(zero_background(scan), head, atol=0.02 * 240)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_ordinary_scans_are_left_alone(dtype):
    """Noise of a few grey levels has a most frequent number too, and it is no background."""
    head, inside = draw_head()
    noise = np.random.default_rng(1).rayleigh(3, SHAPE)
    scan = np.where(inside, head, noise).astype(dtype).astype(np.float32)
    assert zero_background(scan) is scan
    phantom = make_phantom(3, (56, 64, 8), (4.0, 4.0, 20.0)).image
    assert zero_background(phantom) is phantom


@pytest.mark.fault("B")
@pytest.mark.parametrize(("background", "offset"), [(-1000, 0), (-100, 0), (0, 1000), (300, 0)])
def test_the_mask_is_that_of_the_plain_scan(bundle_dir, tmp_path, background, offset):
    phantom = make_phantom(77, (112, 128, 10), (2.0, 2.0, 15.0))
    image = np.where(phantom.image < 3, 0, phantom.image)
    shifted = np.where(phantom.image < 3, background, phantom.image) + offset
    plain_path = write_nifti(tmp_path / "plain.nii", image, phantom.affine)
    odd_path = write_nifti(tmp_path / "odd.nii", shifted.astype(np.float32), phantom.affine)
    options = {"input": str(plain_path), "device": "cpu"}
    pipeline = run_bundle(read_bundle(bundle_dir, options=options), "evaluator")
    plain, odd = (pipeline(str(path)) for path in (plain_path, odd_path))
    assert plain.mask.any()
    # Air within the head cannot be told from tissue where the background has a number of tissue.
    assert np.count_nonzero(odd.mask != plain.mask) <= (5 if background > 0 else 0)
    np.testing.assert_allclose(odd.probabilities, plain.probabilities, rtol=1e-3)


def test_a_single_slice_has_edges_for_faces():
    head, inside = (array[:, :, 9:10] for array in draw_head())
    np.testing.assert_array_equal(zero_background(np.where(inside, head, -1000)), head)


def test_a_scan_without_tissue_comes_back():
    empty = np.zeros(SHAPE, np.float32)
    assert zero_background(empty) is empty
