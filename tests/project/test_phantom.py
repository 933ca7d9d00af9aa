"""The synthetic head: the same seed is the same head, and its lesion is where it says."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from heatmask.demo import IMAGE, REFERENCE
from heatmask.errors import OutputError
from helpers.phantom import (
    DEMO_SEED,
    STUDY_SEEDS,
    Phantom,
    draw_demo,
    make_phantom,
    write_phantom,
)

SHAPE, SPACING_MM = (112, 128, 30), (2.0, 2.0, 5.0)
SEEDS = (DEMO_SEED, 1000, 1003)


@pytest.fixture(scope="module", params=SEEDS)
def twins(request: pytest.FixtureRequest) -> tuple[Phantom, Phantom]:
    """The same head with and without its lesion."""
    return (
        make_phantom(request.param, SHAPE, SPACING_MM),
        make_phantom(request.param, SHAPE, SPACING_MM, lesion=False),
    )


def test_phantom_same_seed_same_head() -> None:
    first, second = (make_phantom(5, (40, 48, 12), (5, 5, 12)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.lesion, second.lesion)


def test_phantom_other_seed_other_head() -> None:
    first, second = (make_phantom(seed, (40, 48, 12), (5, 5, 12)) for seed in (5, 6))
    assert np.corrcoef(first.image.ravel(), second.image.ravel())[0, 1] < 0.97
    assert (first.lesion != second.lesion).any()


def test_phantom_types_shape_range(twins: tuple[Phantom, Phantom]) -> None:
    for phantom in twins:
        assert phantom.image.dtype == np.float32
        assert phantom.lesion.dtype == np.uint8
        assert phantom.affine.dtype == np.float64
        assert phantom.image.shape == phantom.lesion.shape == SHAPE
        assert phantom.image.min() == 0
        assert phantom.image.max() <= 255
        assert set(np.unique(phantom.lesion)) <= {0, 1}


def test_phantom_without_lesion_is_same_anatomy(twins: tuple[Phantom, Phantom]) -> None:
    ill, healthy = twins
    assert ill.lesion.any()
    assert not healthy.lesion.any()
    # A voxel next to the mask may hold some lesion; nothing farther away does.
    near = binary_dilation(ill.lesion, iterations=4)
    np.testing.assert_array_equal(ill.image[~near], healthy.image[~near])


def test_phantom_slice_labels_agree(twins: tuple[Phantom, Phantom]) -> None:
    ill, healthy = twins
    expected = [int(ill.lesion[:, :, k].sum() > 0) for k in range(SHAPE[2])]
    assert ill.slice_labels.tolist() == expected
    assert 4 <= sum(expected) <= SHAPE[2] - 8
    assert healthy.slice_labels.tolist() == [0] * SHAPE[2]


def test_phantom_lesion_is_1_4_to_2_2_times_brighter(twins: tuple[Phantom, Phantom]) -> None:
    ill, healthy = twins
    where = ill.lesion > 0
    ratio = np.median(ill.image[where]) / np.median(healthy.image[where])
    assert 1.4 <= ratio <= 2.2


def test_phantom_lesion_lies_inside_brain(twins: tuple[Phantom, Phantom]) -> None:
    # Under the lesion lies brain: in the twin without it, neither fluid or bone (0.14 of white
    # matter and less) nor scalp (1.7 and more) make up a noticeable share.
    ill, healthy = twins
    under = healthy.image[ill.lesion > 0]
    middle = np.median(under)
    assert np.mean(under < 0.3 * middle) < 0.02
    assert np.mean(under > 1.5 * middle) < 0.01


def test_phantom_bright_is_not_lesion_alone(twins: tuple[Phantom, Phantom]) -> None:
    ill, _ = twins
    level = np.median(ill.image[ill.lesion > 0])
    assert ((ill.image > level) & (ill.lesion == 0)).sum() > (ill.lesion > 0).sum()


def test_phantom_coarser_grid_is_same_head() -> None:
    fine = make_phantom(1001, (112, 128, 20), (2.0, 2.0, 7.0))
    coarse = make_phantom(1001, (56, 64, 20), (4.0, 4.0, 7.0))
    means = fine.image.reshape(56, 2, 64, 2, 20).mean(axis=(1, 3))
    assert np.corrcoef(means.ravel(), coarse.image.ravel())[0, 1] > 0.97
    assert coarse.lesion.sum() * 4 == pytest.approx(fine.lesion.sum(), rel=0.1)


def test_phantom_affine_gives_spacing_and_centre() -> None:
    phantom = make_phantom(3, (20, 24, 9), (9.0, 8.0, 20.0))
    np.testing.assert_allclose(nib.affines.voxel_sizes(phantom.affine), (9, 8, 20))
    assert nib.aff2axcodes(phantom.affine) == ("L", "P", "S")
    middle = (np.array(phantom.image.shape) - 1) / 2
    np.testing.assert_allclose(nib.affines.apply_affine(phantom.affine, middle), 0, atol=1e-9)


def test_phantom_front_is_front_and_top_is_top() -> None:
    # The face narrows the head to the front, low down; above the vertex there is air.
    phantom = make_phantom(1001, SHAPE, SPACING_MM)
    head = phantom.image > 25
    low = head[:, :, :5].any(axis=(0, 2))
    extent = np.flatnonzero(low)
    quarter = len(extent) // 6
    front, back = extent[:quarter], extent[-quarter:]
    assert head[:, front, :5].sum() < head[:, back, :5].sum()
    assert head[:, :, -2:].sum() < 0.3 * head[:, :, 14:16].sum()


def test_phantom_slice_above_head_is_zero() -> None:
    phantom = make_phantom(4, (30, 36, 40), (8.0, 8.0, 6.0))
    assert not phantom.image[:, :, -3:].any()
    assert phantom.image[:, :, 20].any()


def test_study_seeds_leave_out_demo() -> None:
    assert DEMO_SEED not in STUDY_SEEDS
    assert len(STUDY_SEEDS) >= 100


def test_the_demo_has_the_head_that_is_drawn() -> None:
    drawn = draw_demo()
    image, lesion = nib.load(IMAGE), nib.load(REFERENCE)
    assert abs(np.asarray(image.dataobj).astype(int) - drawn.image).max() <= 1
    assert (np.asarray(image.dataobj) != drawn.image).mean() < 1e-3  # of other processors
    np.testing.assert_array_equal(np.asarray(lesion.dataobj), drawn.lesion)
    np.testing.assert_allclose(image.affine, drawn.affine)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_write_phantom_reads_back(tmp_path: Path, ending: str) -> None:
    phantom = make_phantom(2, (24, 30, 12), (7.0, 6.0, 12.0))
    image_path, lesion_path = tmp_path / f"scan{ending}", tmp_path / f"lesion{ending}"
    write_phantom(phantom, image_path, lesion_path)
    image, lesion = nib.load(image_path), nib.load(lesion_path)
    assert image.get_data_dtype() == np.float32
    assert lesion.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), phantom.image)
    np.testing.assert_array_equal(np.asarray(lesion.dataobj), phantom.lesion)
    for read in (image, lesion):
        np.testing.assert_allclose(read.affine, phantom.affine, rtol=1e-6)
        assert read.header.get_xyzt_units()[0] == "mm"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([image_path.name, lesion_path.name])


def test_write_phantom_folder_that_cannot_be_made(tmp_path: Path) -> None:
    phantom = make_phantom(2, (16, 16, 8), (12, 14, 20))
    (tmp_path / "no").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_phantom(phantom, tmp_path / "no" / "scan.nii", tmp_path / "no" / "lesion.nii")
