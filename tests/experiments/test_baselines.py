import csv

import numpy as np
import pytest
from scipy import ndimage

from heatmask.errors import InputError
from heatmask.experiments import baselines
from heatmask.experiments.baselines import BASELINES, find_inner_head

SPACING_MM = (1.5, 2.0, 6.0)
SHAPE = (70, 60, 9)


def measure_radii_mm(centre=(0, 0)) -> np.ndarray:
    """In-plane distance (X, Y, 1) of every voxel from `centre` mm off the middle."""
    x, y = (
        (np.arange(n) - (n - 1) / 2) * s - c
        for n, s, c in zip(SHAPE, SPACING_MM, centre, strict=False)
    )
    return np.hypot(x[:, None, None], y[None, :, None])


@pytest.fixture
def lesion() -> np.ndarray:
    depth = np.zeros(SHAPE[2], bool)
    depth[3:6] = True
    return (measure_radii_mm((12, -8)) <= 8) & depth


@pytest.fixture
def scan(lesion) -> np.ndarray:
    """A disc head of 44 mm with a bright scalp of 5 mm, dark ventricle, a lesion of 8 mm."""
    rng = np.random.default_rng(0)
    radii = np.broadcast_to(measure_radii_mm(), SHAPE)
    image = np.where(radii <= 44, 100.0, 0.0)
    image[radii <= 6] = 5.0  # a hole in the foreground
    image[(radii > 39) & (radii <= 44)] = 220
    image[lesion] = 180
    return image + rng.normal(0, 4, SHAPE)


def dice(mask, reference) -> float:
    return 2 * (mask & reference).sum() / (mask.sum() + reference.sum())


def test_inner_head_is_the_disc_less_the_erosion(scan):
    head = find_inner_head(scan, SPACING_MM, erosion_mm=8)
    radii = np.broadcast_to(measure_radii_mm(), SHAPE)
    assert head[radii < 33.5].all()  # the ventricle is filled
    assert not head[radii > 37].any()


def test_inner_head_follows_the_slice_axis(scan):
    turned = find_inner_head(
        np.moveaxis(scan, 2, 0), (SPACING_MM[2], *SPACING_MM[:2]), slice_axis=0
    )
    assert (np.moveaxis(turned, 0, 2) == find_inner_head(scan, SPACING_MM)).all()


def test_the_image_border_counts_as_air():
    """A head that is cut off by the image loses its margin there too."""
    image = np.zeros((40, 40, 3))
    image[:30, 5:35] = 1.0
    head = find_inner_head(image, (2, 2, 5), erosion_mm=8)
    assert not head[:3].any()
    assert head[4, 20].all()


def test_every_baseline_gives_a_boolean_mask_on_the_grid(scan):
    head = find_inner_head(scan, SPACING_MM)
    for baseline in BASELINES.values():
        masks = list(baseline.make_candidates(scan, head))
        assert len(masks) == max(1, len(baseline.levels))
        assert all(m.shape == SHAPE and m.dtype == bool for m in masks)


def test_only_the_oracles_are_not_label_free():
    chosen_on_masks = {name for name, baseline in BASELINES.items() if not baseline.label_free}
    assert chosen_on_masks == {"best threshold", "best threshold, largest component"}


def test_the_head_keeps_the_scalp_out(scan, lesion):
    head = find_inner_head(scan, SPACING_MM)
    assert dice(baselines.multi_otsu(scan, head), lesion) < 0.3
    assert dice(baselines.multi_otsu_in_head(scan, head), lesion) > 0.95


def test_percentile_keeps_its_share_of_the_head(scan):
    head = find_inner_head(scan, SPACING_MM)
    mask = baselines.percentile_in_head(scan, head, q=75)
    assert mask.sum() / head.sum() == pytest.approx(0.25, abs=1e-3)
    assert not (mask & ~head).any()
    assert scan[mask].min() >= scan[head & ~mask].max()


def test_bright_voxels_do_not_depend_on_gain_and_offset(scan):
    head = find_inner_head(scan, SPACING_MM)
    one, other = (baselines.bright_in_head(x, head, 1.3) for x in (scan, 7 * scan - 50))
    assert one.any()
    assert (one == other).all()


def test_largest_component_drops_the_smaller(scan, lesion):
    head = find_inner_head(scan, SPACING_MM)
    scan[(measure_radii_mm((-15, 10)) <= 4) & np.ones(SHAPE[2], bool)] = 180
    whole = baselines.bright_in_head(scan, head, 2)
    largest = baselines.largest_bright_in_head(scan, head, 2)
    labels, n = ndimage.label(whole)
    sizes = ndimage.sum_labels(whole, labels, range(1, n + 1))
    assert n > 1
    assert largest.sum() == sizes.max()
    assert not (largest & ~whole).any()


def test_centre_gaussian_is_an_ellipsoid_in_the_middle(scan):
    head = find_inner_head(scan, SPACING_MM)
    mask = baselines.centre_gaussian(scan, head)
    middle = [(n - 1) / 2 for n in SHAPE]
    assert np.argwhere(mask).mean(axis=0) == pytest.approx(middle, abs=0.1)
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        extents = [np.ptp(np.flatnonzero(m.any(axis=other))) + 1 for m in (mask, head)]
        # Half maximum lies 1.177 standard deviations of 1/8 extent out, on both sides.
        assert extents[0] / extents[1] == pytest.approx(0.294, abs=1.2 / extents[1])


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.full(SHAPE, 7.0)])
def test_a_constant_scan_has_no_head_and_no_mask(image):
    head = find_inner_head(image, SPACING_MM)
    assert not head.any()
    for baseline in BASELINES.values():
        assert not any(m.any() for m in baseline.make_candidates(image, head))


def test_two_grey_values_have_no_third_class():
    image = np.zeros(SHAPE)
    image[20:50, 20:40] = 1
    assert not baselines.multi_otsu(image, image > 0).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_slices", [1, 3])
def test_few_slices_work(scan, n_slices):
    image = scan[:, :, 4 : 4 + n_slices]
    assert baselines.multi_otsu_in_head(image, find_inner_head(image, SPACING_MM)).any()


def test_nan_is_refused(scan):
    scan[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="three axes without NaN"):
        find_inner_head(scan, SPACING_MM)


def test_a_flat_image_is_refused():
    with pytest.raises(InputError, match=r"three axes .* got shape \(4, 5\)"):
        find_inner_head(np.zeros((4, 5)), SPACING_MM)


def test_baselines_on_a_real_patient(lgg):
    """A head of plausible size without its scalp, and baselines that find some of the tumour."""
    import nibabel as nib

    with (lgg / "patients.csv").open(encoding="utf-8") as lines:
        patient = next(r["patient"] for r in csv.DictReader(lines) if r["split"] == "test")
    scan = nib.load(lgg / patient / f"{patient}-t2f.nii.gz")
    reference = np.asarray(nib.load(lgg / patient / f"{patient}-seg.nii.gz").dataobj) > 0
    image = np.asarray(scan.dataobj, dtype=np.float32)
    head = find_inner_head(image, scan.header.get_zooms())
    assert 0.1 < head.mean() < 0.5
    inside = dice(baselines.multi_otsu_in_head(image, head), reference)
    assert inside > dice(baselines.multi_otsu(image, head), reference) > 0.05
