"""The bundle's transforms on rotated, anisotropic grids in any storage order."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd
from PIL import Image
from scipy import ndimage

from heatmask.bundle import read_bundle, run_bundle
from heatmask.errors import InputError, OptionError
from heatmask.geometry import find_array_axis, order_as_stored
from heatmask.networks.gp_unet import GPUNet
from heatmask.pipeline import Pipeline
from heatmask.transforms import (
    CalibrateHeatmapd,
    FitInPlaned,
    HeatmapToMaskd,
    NormalizeHeadd,
    ResampleInPlaned,
    ResizeInPlaned,
    ScaleByPercentilesd,
    SmoothHeatmapd,
    StackNeighboursd,
)
from helpers.planted import PlantedClassifier, make_affine, make_volume, store_as
from helpers.scan_files import write_nifti

TILT = (12.0, -7.0, 18.0)
# Axes in RAS order: 46 x 52 x 14 voxels of 1.3 x 0.9 x 4 mm.
SHAPE, SPACING = (46, 52, 14), (1.3, 0.9, 4.0)
STORED = ["RAS", "LPS", "PSL", "SAL", "IRP"]


def draw_waves(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A function of the place in space, smooth on the scale of the slices."""
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]).T
    return (2 + np.sin(x / 14) * np.cos(y / 17) + np.sin(z / 19)).T


def make_stored(axcodes: str, tilt: tuple[float, ...] = TILT) -> MetaTensor:
    affine = make_affine(SPACING, "RAS", tilt)
    return make_volume(*store_as(draw_waves(affine), affine, axcodes))


# --- resampling ----------------------------------------------------------------------------


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("pixel_spacing_mm", [2.0, 0.7])
def test_every_voxel_keeps_its_place(slice_axis: int, pixel_spacing_mm: float) -> None:
    """Values are a function of space; after resampling they still are, by the new affine."""
    volume = make_stored("RAS")
    out = ResampleInPlaned("image", pixel_spacing_mm, slice_axis)({"image": volume})["image"]
    for axis in range(3):
        wanted = SPACING[axis] if axis == slice_axis else pixel_spacing_mm
        # The grid's extent is kept, so that the pixel size is met to half a pixel of it.
        assert float(out.pixdim[axis]) == pytest.approx(wanted, rel=0.08)
        extent = float(out.pixdim[axis]) * out.shape[axis + 1]
        assert extent == pytest.approx(SPACING[axis] * SHAPE[axis], rel=1e-5)
    assert out.shape[slice_axis + 1] == SHAPE[slice_axis]
    expected = draw_waves(np.asarray(out.affine), out.shape[1:])
    inner = tuple(slice(2, -2) for _ in range(3))
    error = np.abs(out[0].numpy() - expected)[inner]
    assert error.max() < 0.12
    assert error.mean() < 0.02
    shifted = draw_waves(np.asarray(volume.affine), out.shape[1:])
    assert np.abs(out[0].numpy() - shifted)[inner].max() > 0.3, "the old affine would not do"


@pytest.mark.parametrize("axcodes", STORED)
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_there_and_back(axcodes: str, slice_axis: int) -> None:
    volume = make_stored(axcodes)
    chain = Compose([
        Orientationd("image", axcodes="RAS", labels=None),
        ResampleInPlaned("image", 2.0, slice_axis),
    ])  # fmt: skip
    there = chain({"image": volume})
    assert there["image"].shape != volume.shape
    back = chain.inverse(there)["image"]
    assert back.shape == volume.shape
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    assert not back.applied_operations
    inner = tuple(slice(3, -3) for _ in range(3))
    assert (back - volume)[0][inner].abs().max() < 0.2
    assert (back - volume)[0][inner].abs().mean() < 0.03


@pytest.mark.parametrize(("plane", "axcodes"), [(0, "PSL"), (1, "LSP"), (2, "LPS"), (2, "RAS")])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_single_slice_is_cut_across_its_own_axis(
    plane: int, axcodes: str, slice_axis: int
) -> None:
    """Whatever the option says: resampling, smoothing, mask and summary see one image."""
    whole = draw_waves(make_affine(SPACING)).astype(np.float32)
    single = np.take(whole, [6], plane)
    volume = make_volume(*store_as(single, make_affine(SPACING), axcodes))
    chain = Compose([
        Orientationd("image", axcodes="RAS", labels=None),
        ResampleInPlaned("image", 2.0, slice_axis),
    ])  # fmt: skip
    there = chain({"image": volume})
    image = there["image"]
    expected = [1 if a == plane else round(SHAPE[a] * SPACING[a] / 2.0) for a in range(3)]
    assert list(image.shape[1:]) == expected
    assert float(image.pixdim[plane]) == pytest.approx(SPACING[plane])
    smooth = SmoothHeatmapd("image", 3.0, slice_axis)(there)["image"]
    across = ndimage.gaussian_filter(
        image[0].numpy(), [0 if a == plane else 3.0 / float(image.pixdim[a]) for a in range(3)]
    )
    np.testing.assert_allclose(smooth[0], across, atol=1e-4)
    back = chain.inverse(there)["image"]
    assert back.shape == volume.shape
    assert (back - volume).abs().mean() < 0.05
    mask = HeatmapToMaskd("heatmap", slice_axis=slice_axis, **RULES)(
        {"heatmap": back - 2, "scan": volume, "shown": np.ones((1, 1), bool)}
    )["mask"]
    assert mask.shape == volume.shape
    assert 0 < mask.float().mean() < 1


@pytest.mark.parametrize("size", [(24, 40), (200, 90)])
def test_a_picture_is_scaled_to_a_size_and_back(size: tuple[int, int]) -> None:
    """As Pillow scales, which averages over all that becomes one pixel."""
    random = np.random.default_rng(0)
    pixels = ndimage.gaussian_filter(random.normal(size=(150, 110)), 10).astype(np.float32)
    volume = make_volume(pixels[..., None], np.diag([-2.0, -2.0, 1.0, 1.0]))
    chain = Compose([
        Orientationd("image", axcodes="RAS", labels=None), ResizeInPlaned("image", size),
    ])  # fmt: skip
    there = chain({"image": volume})
    assert there["image"].shape == (1, *size, 1)
    wanted = Image.fromarray(pixels[::-1, ::-1]).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(there["image"][0, ..., 0], np.asarray(wanted), atol=1e-5)
    back = chain.inverse(there)["image"]
    assert back.shape == volume.shape
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    assert (back - volume)[0, 6:-6, 6:-6].abs().max() < 0.1 * volume.abs().max()


def test_a_heatmap_is_inverted_by_the_images_history() -> None:
    """What the bundle does: another key, Invertd with orig_keys."""
    volume = make_stored("PSL")
    chain = Compose([
        Orientationd("image", axcodes="RAS", labels=None), ResampleInPlaned("image", 2.0),
    ])  # fmt: skip
    data = chain({"image": volume})
    data["heatmap"] = data["image"].clone() * 2
    inverted = Invertd("heatmap", chain, orig_keys="image", nearest_interp=False)(data)["heatmap"]
    assert inverted.shape == volume.shape
    np.testing.assert_allclose(inverted.affine, volume.affine, atol=1e-9)
    assert (inverted / 2 - volume)[0, 3:-3, 3:-3, 3:-3].abs().max() < 0.2


def test_resampling_passes_over_missing_keys_only_if_told() -> None:
    data = {"image": make_stored("RAS")}
    out = ResampleInPlaned(["image", "other"], 2.0, allow_missing_keys=True)(data)
    assert set(out) == {"image"}
    with pytest.raises(KeyError, match=r"other"):
        ResampleInPlaned(["image", "other"], 2.0)(data)


def test_resampling_leaves_its_input_alone() -> None:
    volume = make_stored("RAS")
    copy, affine = volume.as_tensor().clone(), volume.affine.clone()
    ResampleInPlaned("image", 2.0)({"image": volume})
    assert torch.equal(volume.as_tensor(), copy)
    assert torch.equal(volume.affine, affine)
    assert not volume.applied_operations


# --- normalisation -------------------------------------------------------------------------


def normalize(array: Any) -> np.ndarray:
    volume = make_volume(np.asarray(array, np.float32), make_affine((1, 2, 3)))
    return NormalizeHeadd("image")({"image": volume})["image"].numpy()[0]


def draw_head(seed: int = 0) -> np.ndarray:
    """Background of 0, dark noise of 1 to 5, a head around 100, a few bright voxels."""
    rng = np.random.default_rng(seed)
    head = np.zeros((12, 10, 8), np.float32)
    head[1:-1, 1:-1] = rng.uniform(1, 5, (10, 8, 8))
    head[3:9, 2:8] = rng.normal(100, 10, (6, 6, 8))
    head[4, 4, 4] = 5000
    return head


def test_the_heads_median_becomes_one_and_the_top_four() -> None:
    head = draw_head()
    out = normalize(head)
    assert np.median(out[3:9, 2:8]) == pytest.approx(1, abs=0.01)
    assert out.max() == 4
    assert (out[head == 0] == 0).all()
    below = out < 4
    np.testing.assert_allclose(out[below], (head / np.median(head[3:9, 2:8]))[below], rtol=0.01)


@pytest.mark.parametrize("factor", [1e-3, 0.1, 7.0, 4096.0])
def test_the_scale_of_the_scan_does_not_matter(factor: float) -> None:
    np.testing.assert_allclose(normalize(factor * draw_head()), normalize(draw_head()), rtol=1e-5)


def test_a_z_normalised_scan() -> None:
    """Background exactly 0 and a head around it: the lowest voxel goes to 0, zeros stay 0."""
    head = draw_head()
    inside = head > 0
    scored = np.where(inside, (head - 40) / 50, 0)
    out = normalize(scored)
    assert (out[~inside] == 0).all()
    assert out.min() == 0
    np.testing.assert_allclose(
        out, normalize(np.where(inside, head - head[inside].min(), 0)), atol=1e-5
    )


def test_channels_are_normalised_apart() -> None:
    two = np.stack([draw_head(), 30 * draw_head(1)])
    out = NormalizeHeadd("image")({"image": make_volume(two, np.eye(4))})["image"].numpy()
    np.testing.assert_array_equal(out[0], normalize(two[0]))
    np.testing.assert_array_equal(out[1], normalize(two[1]))


def test_a_constant_scan_is_one_and_no_signal_stays_zero() -> None:
    assert (normalize(np.full((3, 4, 5), 17.0)) == 1).all()
    assert (normalize(np.zeros((3, 4, 5))) == 0).all()
    assert (normalize(np.where(np.indices((3, 4, 5))[0] == 1, -2.0, 0)) == 0).all()


def test_normalising_keeps_geometry_history_and_input() -> None:
    volume = Orientationd("image", axcodes="RAS", labels=None)({"image": make_stored("PSL")})
    copy = volume["image"].as_tensor().clone()
    out = NormalizeHeadd("image")(volume)["image"]
    np.testing.assert_array_equal(out.affine, volume["image"].affine)
    assert out.applied_operations == volume["image"].applied_operations
    assert torch.equal(volume["image"].as_tensor(), copy)
    assert out.dtype == torch.float32


# --- heatmap to mask -----------------------------------------------------------------------

RULES = {"calibration": [-6.0, 4.0], "min_volume_mm3": 0.0, "snap": False, "smooth_mm": 0.0}


def to_mask(
    heatmap: np.ndarray, axcodes: str, shown: np.ndarray, slice_axis: int = 2, **rules: Any
) -> MetaTensor:
    """The label map of a heatmap (K, X, Y, Z) in RAS that is stored as `axcodes`."""
    affine = make_affine((1.5, 1.0, 3.0), "RAS", TILT)
    stored = [store_as(channel, affine, axcodes) for channel in heatmap]
    volume = make_volume(np.stack([array for array, _ in stored]), stored[0][1])
    scan = make_volume(np.ones(volume.shape[1:]), stored[0][1])
    data = {"heatmap": volume, "scan": scan, "shown": shown}
    step = HeatmapToMaskd("heatmap", slice_axis=slice_axis, **{**RULES, **rules})
    return step(data)["mask"]


@pytest.mark.parametrize("axcodes", STORED)
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_shown_slices_follow_the_stored_order(axcodes: str, slice_axis: int) -> None:
    """`shown` counts RAS slices; the array runs along any axis in any direction."""
    heatmap = np.full((1, 6, 8, 10), -5.0, np.float32)
    heatmap[0, 1:5, 2:7, 2:9] = 3.0
    shown = np.zeros((heatmap.shape[slice_axis + 1], 1), bool)
    shown[1:4] = True
    mask = to_mask(heatmap, axcodes, shown, slice_axis)
    in_ras, _ = store_as(mask[0].numpy(), np.asarray(mask.affine), "RAS")
    expected = heatmap[0] > 0
    np.moveaxis(expected, slice_axis, 0)[~shown[:, 0]] = False
    np.testing.assert_array_equal(in_ras, expected)
    assert expected.any()
    assert mask.dtype == torch.uint8


def test_classes_become_labels_and_the_higher_heatmap_wins() -> None:
    heatmap = np.full((3, 6, 8, 10), -5.0, np.float32)
    heatmap[0, 1:4, 2:7, 2:9] = 2.0
    heatmap[2, 3:5, 2:7, 2:9] = 3.0  # overlaps with the first on one plane
    mask = to_mask(heatmap, "LPS", np.ones((10, 3), bool))
    in_ras, _ = store_as(mask[0].numpy(), np.asarray(mask.affine), "RAS")
    expected = np.zeros((6, 8, 10), np.uint8)
    expected[1:3, 2:7, 2:9], expected[3:5, 2:7, 2:9] = 1, 3
    np.testing.assert_array_equal(in_ras, expected)


def test_a_class_is_shown_on_its_own_slices_only() -> None:
    heatmap = np.full((2, 6, 8, 10), -5.0, np.float32)
    heatmap[:, 1:4, 2:7, 2:9] = 2.0
    shown = np.zeros((10, 2), bool)
    shown[3, 0] = shown[5:7, 1] = True
    mask = to_mask(heatmap, "RAS", shown)[0].numpy()
    assert {(z, int(v)) for *_, z in np.argwhere(mask) for v in np.unique(mask[..., z])} == {
        (3, 0), (3, 1), (5, 0), (5, 2), (6, 0), (6, 2),
    }  # fmt: skip


def test_spacing_in_the_last_digit_does_not_decide() -> None:
    """A rotated affine gives 0.9999999 mm for 1 mm; reach and smoothing must not notice."""
    heatmap = np.full((1, 24, 22, 4), -5.0, np.float32)
    heatmap[0, 6:16, 7:15, 1:3] = 3.0
    scan = np.ones(heatmap.shape, np.float32)
    scan[0, 4:18, 5:17, 1:3] = 2.0
    masks = []
    for scale in (1.0, 1 - 1e-7, 1 + 1e-7):
        affine = make_affine((scale, scale, 3.0))
        data = {
            "heatmap": make_volume(heatmap, affine),
            "scan": make_volume(scan, affine),
            "shown": np.ones((4, 1), bool),
        }
        rules = {**RULES, "snap": True, "snap_distance_mm": 2.0, "smooth_mm": 2.0}
        masks.append(HeatmapToMaskd("heatmap", **rules)(data)["mask"].numpy())
    assert masks[0].any()
    for other in masks[1:]:
        np.testing.assert_array_equal(masks[0], other)


def test_heatmap_and_scan_on_different_grids() -> None:
    affine = make_affine(SPACING)
    data = {
        "heatmap": make_volume(np.ones((1, 4, 5, 6)), affine),
        "scan": make_volume(np.ones((4, 5, 7)), affine),
        "shown": np.ones((6, 1), bool),
    }
    with pytest.raises(InputError, match=r"share a grid, got \(4, 5, 6\) and \(4, 5, 7\)"):
        HeatmapToMaskd("heatmap", **RULES)(data)


def test_bad_mask_settings_are_refused_before_any_scan() -> None:
    with pytest.raises(OptionError, match=r"threshold_rule must be one of .*got 'best'"):
        HeatmapToMaskd("heatmap", **RULES, threshold_rule="best")
    with pytest.raises(OptionError, match=r"calibration must be \(low, high\)"):
        HeatmapToMaskd("heatmap", calibration=[4.0, -6.0])


def test_the_display_form_is_fixed_by_the_calibration() -> None:
    raw = make_volume(np.array([-99.0, -6, -1, 4, 99]).reshape(1, 1, 1, 5), make_affine(SPACING))
    data = CalibrateHeatmapd("heatmap", [-6.0, 4.0])({"heatmap": raw})
    np.testing.assert_allclose(data["display"].flatten(), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(data["display"].affine, raw.affine)
    assert data["heatmap"].min() == -99, "masks are made from the raw scale"


@pytest.mark.parametrize("axcodes", STORED)
def test_axes_against_nibabel(axcodes: str) -> None:
    affine = make_affine((1, 2, 3), axcodes, TILT)
    assert "".join(nib.aff2axcodes(affine)) == axcodes
    for ras_axis, pair in enumerate(("LR", "PA", "IS")):
        stored = next(i for i, code in enumerate(axcodes) if code in pair)
        assert find_array_axis(affine, ras_axis) == stored
        forward = axcodes[stored] == pair[1]
        expected = [1, 2, 3] if forward else [3, 2, 1]
        assert order_as_stored(np.array([1, 2, 3]), affine, ras_axis).tolist() == expected


# --- the whole bundle ----------------------------------------------------------------------


def open_bundle(bundle_dir: Path, network: torch.nn.Module, **options: Any) -> Pipeline:
    """The bundle's own chain around another network."""
    parser = ConfigParser()
    parser.read_config(str(bundle_dir / "configs" / "inference.json"))
    fixed = {"device": "cpu", "bundle_root": str(bundle_dir), "sequences": ["FLAIR"]}
    fixed |= {"channels": fixed["sequences"], "size_mm": None}  # the heads drawn here are small
    for name, value in (fixed | options).items():
        parser[name] = value
    parts = (parser.get_parsed_content(n) for n in ("preprocessing", "inferer", "postprocessing"))
    preprocessing, inferer, postprocessing = parts
    return Pipeline(preprocessing, network, inferer, postprocessing, device="cpu")


def draw_brain() -> tuple[np.ndarray, np.ndarray]:
    """A head without any symmetry: tissue of 100, a lesion of 190 off every axis."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING
    mm = grid - np.array([29.0, 24.0, 27.0])
    skin = np.linalg.norm(mm / (26, 21, 25), axis=-1)
    lesion = np.linalg.norm((mm - (8, -5, 6)) / (8, 7, 9), axis=-1)
    ramp = 1 + 0.1 * mm[..., 0] / 30 + 0.1 * mm[..., 1] / 30
    head = 100 * ramp * np.clip((1 - skin) * 12, 0, 1) + 90 * np.clip((1 - lesion) * 4, 0, 1)
    return head.astype(np.float32), lesion < 0.9


def make_random_network() -> GPUNet:
    torch.manual_seed(4)
    network = GPUNet(features=(6, 8), pool_at="map", pooling="top").eval()
    with torch.no_grad():
        network.head.weight *= 30  # a map with some contrast
    return network


@pytest.mark.parametrize("axcodes", ["LPS", "PSL", "SAL", "IRP"])
@pytest.mark.parametrize("kind", ["planted", "random"])
def test_the_stored_order_changes_nothing(
    axcodes: str, kind: str, bundle_dir: Path, tmp_path: Path
) -> None:
    """A rotated, anisotropic scan and its RAS twin: the same mask, voxel for voxel."""
    head, lesion = draw_brain()
    affine = make_affine(SPACING, "RAS", TILT)
    stored, stored_affine = store_as(head, affine, axcodes)
    network = PlantedClassifier() if kind == "planted" else make_random_network()
    pipeline = open_bundle(bundle_dir, network, gate=kind == "planted", keep="all")
    twin, other = (
        pipeline(str(write_nifti(tmp_path / f"{name}-flair.nii", *volume)))
        for name, volume in (("ras", (head, affine)), ("other", (stored, stored_affine)))
    )
    assert other.mask.shape[1:] == stored.shape
    np.testing.assert_allclose(other.mask.affine, stored_affine, atol=1e-5)
    for key in ("heatmap", "mask"):
        moved, moved_affine = store_as(getattr(other, key)[0].numpy(), stored_affine, "RAS")
        np.testing.assert_allclose(moved_affine, affine, atol=1e-9)
        tolerance = 0 if key == "mask" else 1e-4 * float(getattr(twin, key).abs().max())
        np.testing.assert_allclose(moved, getattr(twin, key)[0].numpy(), rtol=0, atol=tolerance)
    assert twin.mask.any()
    torch.testing.assert_close(twin.slice_probabilities, other.slice_probabilities)
    if kind == "planted":
        mask = twin.mask[0].numpy() > 0
        assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.85


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_any_slice_axis_finds_the_lesion_where_it_is(
    slice_axis: int, bundle_dir: Path, tmp_path: Path
) -> None:
    head, lesion = draw_brain()
    affine = make_affine(SPACING, "RAS", TILT)
    stored, stored_affine = store_as(head, affine, "PSL")
    path = write_nifti(tmp_path / "x-flair.nii", stored, stored_affine)
    result = open_bundle(bundle_dir, PlantedClassifier(), slice_axis=slice_axis)(str(path))
    mask = store_as(result.mask[0].numpy(), stored_affine, "RAS")[0] > 0
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.85


def test_the_whole_preprocessing_is_inverted(bundle_dir: Path, tmp_path: Path) -> None:
    """A heatmap that is the network's own input comes back as the scan, scaled."""
    head, _ = draw_brain()
    affine = make_affine(SPACING, "RAS", TILT)
    stored, stored_affine = store_as(head, affine, "SAL")
    path = write_nifti(tmp_path / "x-flair.nii", stored, stored_affine)
    result = open_bundle(
        bundle_dir, PlantedClassifier((1.0,), (0.0,)), gate=False, calibration=[0.0, 4.0]
    )(str(path))
    heatmap, scan = result.heatmap[0].numpy(), result.scan[0].numpy()
    assert heatmap.shape == stored.shape
    np.testing.assert_array_equal(scan, stored)
    np.testing.assert_allclose(result.heatmap.affine, stored_affine, atol=1e-5)
    scale = np.median(scan[scan > 30])
    error = np.abs(heatmap - scan / scale)
    assert error.mean() < 0.03
    assert np.corrcoef(heatmap.ravel(), scan.ravel())[0, 1] > 0.99
    for axis in range(3):
        mirrored = np.flip(heatmap, axis)
        assert np.corrcoef(mirrored.ravel(), scan.ravel())[0, 1] < 0.97


def test_a_healthy_scan_gets_an_empty_mask(bundle_dir: Path, tmp_path: Path) -> None:
    head, lesion = draw_brain()
    head = np.minimum(head, 110)
    path = write_nifti(tmp_path / "x-flair.nii", head, make_affine(SPACING, "RAS", TILT))
    pipeline = open_bundle(bundle_dir, PlantedClassifier())
    result = pipeline(str(path))
    assert float(result.probabilities[0]) < 0.5
    assert not result.mask.any()
    np.testing.assert_allclose(result.heatmap, pipeline.inferer.empty_value, rtol=1e-5)
    assert lesion.any()


def test_training_and_inference_see_the_same_images(bundle_dir: Path) -> None:
    """One network, and one way to read, written down in two files."""
    configs = [read_bundle(bundle_dir, (name,)) for name in ("inference", "train")]
    inference, train = (run_bundle(config, "preprocessing").transforms for config in configs)
    assert configs[0]["network_def"] == configs[1]["network_def"]
    for ours, theirs in zip(inference, train, strict=True):
        assert type(ours) is type(theirs)
        ignored = {"required", "R", "rand"}  # it refuses scans and changes none
        plain = [
            {k: v for k, v in vars(step).items() if k not in ignored and not callable(v)}
            for step in (ours, theirs)
        ]
        assert str(plain[0]) == str(plain[1])


# --- smoothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_point_becomes_a_gaussian_in_its_slice(slice_axis: int) -> None:
    """The variance in mm2 along both in-plane axes is the one asked for, and 0 across."""
    array = np.zeros((41, 41, 41))
    array[20, 20, 20] = 1
    spacing = (1.0, 1.5, 2.0)
    volume = make_volume(array, make_affine(spacing))
    smooth = SmoothHeatmapd("heatmap", 4.0, slice_axis)({"heatmap": volume})["heatmap"]
    np.testing.assert_allclose(smooth.affine, volume.affine)
    assert float(smooth.sum()) == pytest.approx(1, rel=1e-4)
    for axis, mm in enumerate(spacing):
        distance = (torch.arange(41) - 20) * mm
        profile = smooth[0].sum(tuple(a for a in range(3) if a != axis))
        variance = float((profile * distance**2).sum())
        assert variance == pytest.approx(0 if axis == slice_axis else 16, rel=0.02)


def test_no_smoothing_leaves_the_heatmap_alone() -> None:
    volume = make_stored("LPS")
    smooth = SmoothHeatmapd("heatmap", 0.0)({"heatmap": volume})["heatmap"]
    torch.testing.assert_close(smooth.as_tensor(), volume.as_tensor())
    with pytest.raises(OptionError, match="blur_mm must be at least 0, got -1"):
        SmoothHeatmapd("heatmap", -1)


# --- images of anything --------------------------------------------------------------------


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_the_longer_side_of_a_slice_is_fitted_and_keeps_its_place(slice_axis: int) -> None:
    volume = make_stored("RAS")
    step = FitInPlaned("image", 40, slice_axis)
    out = step({"image": volume})["image"]
    in_plane = [n for axis, n in enumerate(out.shape[1:]) if axis != slice_axis]
    assert max(in_plane) == 40
    assert out.shape[slice_axis + 1] == SHAPE[slice_axis]
    edges = [float(e) for axis, e in enumerate(out.pixdim) if axis != slice_axis]
    assert edges[0] == pytest.approx(edges[1], rel=0.05), "pixels are square"
    expected = draw_waves(np.asarray(out.affine), tuple(out.shape[1:]))
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(out[0].numpy()[inner], expected[inner], atol=0.1)
    back = step.inverse({"image": out})["image"]
    assert back.shape == volume.shape
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-6)


def test_percentiles_become_zero_and_one() -> None:
    volume = make_stored("RAS")
    out = ScaleByPercentilesd("image")({"image": volume})["image"]
    low, high = np.percentile(volume.numpy(), [1, 99.5])
    np.testing.assert_allclose(
        out.numpy(), ((volume.numpy() - low) / (high - low)).clip(0, 1), atol=1e-5
    )
    np.testing.assert_allclose(out.affine, volume.affine)
    other = ScaleByPercentilesd("image")({"image": volume * 300 - 50})["image"]
    torch.testing.assert_close(other.as_tensor(), out.as_tensor(), rtol=0, atol=1e-4)


def test_a_few_bright_voxels_beside_nothing_become_one() -> None:
    volume = MetaTensor(torch.zeros(1, 40, 40, 2))
    volume[0, 5, 5, 0] = 1000.0
    out = ScaleByPercentilesd("image")({"image": volume})["image"]
    assert float(out.max()) == 1
    assert out.sum() == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_comes_between_its_neighbours(axis: int) -> None:
    volume = make_stored("RAS")
    out = StackNeighboursd("image", axis)({"image": volume})["image"]
    before, own, after = out.movedim(axis + 1, 1)
    plain = volume[0].movedim(axis, 0)
    assert torch.equal(own, plain)
    assert torch.equal(before[1:], plain[:-1])
    assert torch.equal(after[:-1], plain[1:])
    assert torch.equal(before[0], plain[0])
    assert torch.equal(after[-1], plain[-1])
    np.testing.assert_allclose(out.affine, volume.affine)


def test_a_picture_is_its_own_neighbour_and_two_sequences_are_refused() -> None:
    picture = MetaTensor(torch.rand(1, 8, 9, 1))
    out = StackNeighboursd("image")({"image": picture})["image"]
    assert torch.equal(out.as_tensor(), picture.as_tensor().expand(3, -1, -1, -1))
    with pytest.raises(InputError, match="takes one sequence, got 2"):
        StackNeighboursd("image")({"image": MetaTensor(torch.rand(2, 8, 9, 3))})
