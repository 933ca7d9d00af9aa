"""The 3D bundle through its inference config: thin, thick and thin-sliced volumes."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from heatmask.bundle import read_bundle, run_bundle
from heatmask.errors import InputError
from helpers.phantom import make_phantom
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

RELEVANCE = PROJECT / "bundles" / "brain_mri_relevance3d_segmentation"


def run(scan: Path, output: Path, **options: Any) -> dict[str, Any]:
    options = {"input": str(scan), "output_dir": str(output), "device": "cpu", **options}
    evaluator = run_bundle(read_bundle(RELEVANCE, options=options), "evaluator")
    return evaluator(evaluator.dataset[0]["image"])


@pytest.fixture(scope="module")
def phantom() -> Any:
    return make_phantom(41, shape=(112, 128, 28), spacing_mm=(2.0, 2.0, 5.0))


@pytest.fixture(scope="module")
def scan(phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    return write_nifti(folder / "head_flair.nii.gz", phantom.image, phantom.affine)


def test_a_volume_thinner_than_one_block_is_refused(phantom: Any, tmp_path: Path) -> None:
    thin = write_nifti(tmp_path / "thin_flair.nii.gz", phantom.image[..., 12:15], phantom.affine)
    with pytest.raises(
        InputError, match=r"as many slices that are not all zero as a block, 4; got 3"
    ):
        run(thin, tmp_path)


def test_thin_slices_get_what_thick_ones_get(phantom: Any, scan: Path, tmp_path: Path) -> None:
    """Each slice five times, 1 mm apart: the same head, five times as fine."""
    affine = phantom.affine.copy()
    affine[:3, 2] /= 5
    affine[:3, 3] -= 2 * affine[:3, 2]
    fine = write_nifti(tmp_path / "fine_flair.nii.gz", np.repeat(phantom.image, 5, 2), affine)
    thick, thin = run(scan, tmp_path), run(fine, tmp_path)
    torch.testing.assert_close(
        thin.slice_probabilities, thick.slice_probabilities.repeat_interleave(5, 0)
    )
    assert thin.mask.shape[1:] == (*phantom.image.shape[:2], 5 * phantom.image.shape[2])
    first, second = (np.asarray(r.mask[0]) > 0 for r in (thick, thin))
    assert first.any()
    overlap = 2 * (np.repeat(first, 5, 2) & second).sum()
    assert overlap / (5 * first.sum() + second.sum()) > 0.9


def test_less_memory_changes_nothing(scan: Path, tmp_path: Path) -> None:
    ample, little = run(scan, tmp_path), run(scan, tmp_path, max_memory_gb=0.6, batch_size=64)
    torch.testing.assert_close(
        little.slice_probabilities, ample.slice_probabilities, atol=1e-5, rtol=1e-4
    )
    assert (np.asarray(little.mask) == np.asarray(ample.mask)).mean() > 0.9999


def test_the_whole_volume_is_one_block(scan: Path, tmp_path: Path) -> None:
    result = run(scan, tmp_path, whole_volume=True)
    assert len(set(result.slice_probabilities.flatten().tolist())) == 1
    assert result.heatmap.shape[1:] == nib.load(scan).shape


@pytest.mark.parametrize(
    "method", ["grad_cam", pytest.param("occlusion_coarse_to_fine", marks=pytest.mark.slow)]
)
def test_other_methods_in_3d_by_the_same_option(scan: Path, tmp_path: Path, method: str) -> None:
    result = run(scan, tmp_path, method=method)
    assert result.heatmap.shape[1:] == nib.load(scan).shape
    assert torch.isfinite(result.heatmap.as_tensor()).all()


def test_a_true_3d_case_of_1_mm(shared_data: Path, tmp_path: Path) -> None:
    """Another data set, thin slices, skull-stripped, z-normalised: geometry, and some overlap."""
    folder = shared_data / "brats2013" / "brats_2013_pat0001_1"
    scan, label = folder / "Flair_subtrMeanDivStd.nii.gz", folder / "OTMultiClass.nii.gz"
    result = run(scan, tmp_path)
    reference = np.asarray(nib.load(label).dataobj) > 0
    mask = np.asarray(result.mask[0]) > 0
    assert mask.shape == reference.shape
    np.testing.assert_allclose(result.mask.affine, nib.load(scan).affine, atol=1e-4)
    near = ndimage.binary_dilation(reference, iterations=5)
    assert (mask & near).sum() > 0.5 * mask.sum() > 0
