"""What is no head by its size or its voxels is refused before a network sees it."""

import nibabel as nib
import numpy as np
import pytest

from heatmask.bundle import read_bundle, run_bundle
from heatmask.data.checks.plausibility import check_plausible, measure_size
from heatmask.data.load import LoadSequencesd
from heatmask.errors import InputError, find_reason
from helpers.phantom import make_phantom
from helpers.planted import make_affine, make_volume
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

BUNDLES = sorted(path.parents[1] for path in PROJECT.glob("bundles/*/configs/train.json"))
HEAD_MM = (70, 400)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(5, (56, 64, 10), (4.0, 4.0, 15.0))


def make_scaled(phantom, scale):
    affine = phantom.affine @ np.diag([*np.broadcast_to(scale, 3), 1.0])
    return make_volume(phantom.image, affine)


@pytest.mark.fault("B")
@pytest.mark.parametrize(
    "scale", [0.001, 0.1, 0.25, 3, 10, 25, 1000, (1, 1, 10), (10, 10, 1), (0.1, 0.1, 1)]
)
def test_no_head_has_this_size(phantom, scale):
    with pytest.raises(InputError, match=r"measures .* mm; a head is about .* Correct the voxel"):
        check_plausible(make_scaled(phantom, scale), HEAD_MM)


@pytest.mark.parametrize(
    ("scale", "warned"), [(1, False), (1.2, False), (0.5, True), (1.6, True), ((1, 1, 0.05), True)]
)
def test_an_unusual_size_is_a_warning(phantom, scale, warned):
    warnings = check_plausible(make_scaled(phantom, scale), HEAD_MM)
    assert bool(warnings) == warned
    assert not warned or "unusual for a head" in warnings[0]


def test_without_limits_only_label_maps_are_refused(phantom):
    assert check_plausible(make_scaled(phantom, 10), None) == []


def test_a_picture_has_no_size(phantom):
    volume = make_scaled(phantom, 10)
    volume.meta["filename_or_obj"] = "slice.png"
    assert check_plausible(volume, HEAD_MM) == []


def test_the_size_is_that_of_the_head_not_of_the_field_of_view():
    box = np.zeros((50, 60, 20), np.float32)
    box[10:30, 5:50, 3:13] = np.random.default_rng(0).uniform(50, 99, (20, 45, 10))
    assert measure_size(box, (2.0, 1.0, 5.0)) == [40, 45, 50]


def draw_labels(kind):
    x, y, z = np.indices((40, 44, 12))
    radius = np.sqrt((x - 20) ** 2 + (y - 22) ** 2 + (2 * (z - 6)) ** 2)
    return {
        "mask": radius < 9,
        "float mask": (radius < 9) * 0.99999998,
        "four labels": np.digitize(radius, [16, 12, 9, 5]),
        "mask of 255": (radius < 9) * 255,
        "parcels": np.where(radius < 18, 1000 + x // 6 * 50 + y // 6, 0),
        "soft mask": np.clip(9.5 - radius, 0, 1),
        "filled with -1": np.where(radius < 9, 1, -1),
    }[kind].astype(np.float32)


@pytest.mark.fault("B")
@pytest.mark.parametrize(
    "kind",
    ["mask", "float mask", "four labels", "mask of 255", "parcels", "soft mask", "filled with -1"],
)
def test_a_label_map_is_no_scan(kind):
    volume = make_volume(draw_labels(kind), make_affine((4.0, 4.0, 12.0)))
    with pytest.raises(InputError, match="looks like a mask or a label map"):
        check_plausible(volume, HEAD_MM)


@pytest.mark.fault("B")
@pytest.mark.parametrize("background", [0, -1000])
def test_a_skull_stripped_head_is_no_label_map(phantom, background):
    image = np.where(phantom.image > 20, phantom.image, background)
    assert check_plausible(make_volume(image, phantom.affine), HEAD_MM) == []


@pytest.mark.fault("B")
def test_the_sibling_is_asked_too(phantom, tmp_path):
    """Resampled to the FLAIR, a T1-Gd ten times too large would still fill its grid."""
    paths = {
        "FLAIR": str(write_nifti(tmp_path / "a.nii", phantom.image, phantom.affine)),
        "T1-Gd": str(
            write_nifti(
                tmp_path / "b.nii", phantom.image, phantom.affine @ np.diag([10, 10, 10, 1])
            )
        ),
    }
    load = LoadSequencesd("image", ("FLAIR", "T1-Gd"), size_mm=HEAD_MM)
    with pytest.raises(InputError, match=r"b\.nii"):
        load({"image": paths})


@pytest.mark.fault("B")
@pytest.mark.parametrize(
    "folder",
    [b for b in BUNDLES if "breast" not in b.name and "type_self" not in b.name],  # no mm
    ids=lambda folder: folder.name,
)
def test_every_bundle_asks_in_training_and_inference(folder, phantom):
    for config in ("inference", "train"):
        prepare = run_bundle(read_bundle(folder, (config,)), "preprocessing")
        volume = make_scaled(phantom, 10)
        volume.meta["sequence"] = "T1-Gd" if "t1ce" in folder.name else "FLAIR"
        with pytest.raises(RuntimeError) as error:
            prepare({"image": volume})
        assert "measures" in str(find_reason(error.value))


def test_real_scans_are_plausible(lgg):
    """Their spacing is nominal: 88 slices of 5 mm are unusual, and nothing else is."""
    warned = []
    for path in sorted(lgg.glob("*/*-t2f.nii.gz"))[::12]:
        scan = nib.load(path)
        volume = make_volume(np.asarray(scan.dataobj, np.float32), scan.affine)
        if check_plausible(volume, HEAD_MM):
            warned.append(scan.shape[2])
    assert all(slices > 55 for slices in warned)
