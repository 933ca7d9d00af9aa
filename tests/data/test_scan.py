"""Reading scans: one anatomy from every format, and a clear refusal of everything else."""

import gzip
import shutil
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    Invertd,
    LoadImage,
    Orientationd,
    SaveImaged,
    ScaleIntensityd,
    Spacingd,
    SpatialCrop,
)
from PIL import Image
from scipy.spatial.transform import Rotation

from heatmask.data.load import LoadSequencesd
from heatmask.data.scan import get_warnings, load_scan
from heatmask.errors import InputError, OptionError
from helpers.scan_files import write_dicom_series, write_nifti, write_nrrd, write_raw_nifti

SHAPE = (7, 11, 5)
SPACING_MM = (0.7, 1.3, 4.0)


def make_affine(angles_deg=(25.0, -13.0, 40.0), spacing_mm=SPACING_MM, order=(0, 1, 2)):
    """Oblique, anisotropic, right-handed, and far from RAS."""
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    axes = rotation[:, list(order)]
    axes[:, 0] *= np.linalg.det(axes)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_mm
    affine[:3, 3] = (-31.5, 12.25, 77.125)
    return affine


def make_array(shape=SHAPE, seed=0):
    """Whole numbers without any symmetry, all different."""
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) - 40


def load(path, **options):
    return LoadSequencesd("image", **options)({"image": path})["image"]


def write_all(folder, array, affine):
    """The same scan in every format."""
    return [
        write_nifti(folder / "a.nii.gz", array.astype(np.int16), affine),
        write_nifti(folder / "b.nii", array.astype(np.float64), affine),
        write_nrrd(folder / "c.nrrd", array, affine, "LPS"),
        write_nrrd(folder / "d.nrrd", array, affine, "RAS"),
        write_dicom_series(folder / "e", array, affine),
        write_dicom_series(folder / "f", array, affine, suffix=""),
    ]


def assert_same_scan(volume, array, affine):
    assert isinstance(volume, MetaTensor)
    assert volume.dtype == torch.float32
    assert volume.is_contiguous()
    np.testing.assert_array_equal(volume.numpy(), array[None])
    np.testing.assert_allclose(volume.affine.numpy(), affine, atol=1e-3)


# ---------------------------------------------------------------- one anatomy


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    angles_deg=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    order=st.permutations((0, 1, 2)),
)
def test_all_formats_give_the_same_scan(tmp_path_factory, angles_deg, spacing_mm, order):
    array, affine = make_array(), make_affine(angles_deg, spacing_mm, order)
    for path in write_all(tmp_path_factory.mktemp("scan"), array, affine):
        assert_same_scan(load(path), array, affine)


def test_one_file_of_a_series_is_a_slice_where_it_lies(tmp_path):
    array, affine = make_array(), make_affine()
    folder = write_dicom_series(tmp_path, array, affine, SliceThickness=5)
    for index in range(array.shape[2]):
        (path,) = folder.glob(f"*_{array.shape[2] - index}.dcm")
        volume = load(path, min_slices=1)
        np.testing.assert_array_equal(volume.numpy()[0, :, :, 0], array[:, :, index])
        np.testing.assert_allclose(volume.affine[:3, :2], affine[:3, :2], atol=1e-3)
        corner = affine[:3, :3] @ [0, 0, index] + affine[:3, 3]
        np.testing.assert_allclose(volume.affine[:3, 3], corner, atol=1e-3)
        assert volume.pixdim[2] == 5
    with pytest.raises(InputError, match=r"whole volume, a DICOM series as its folder"):
        load(path)


def test_left_handed_grids_stay_as_they_are(tmp_path):
    array, affine = make_array(), make_affine() @ np.diag([1, 1, -1, 1])
    assert np.linalg.det(affine) < 0
    for name, write in (("a.nii", write_nifti), ("b.nrrd", write_nrrd)):
        path = write(tmp_path / name, array.astype(np.float32), affine)
        assert_same_scan(load(path), array, affine)


def test_monai_reads_the_same(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", make_array().astype(np.int16), make_affine())
    oracle = LoadImage(ensure_channel_first=True)(path)
    volume = load(str(path))
    assert torch.equal(volume.as_tensor(), oracle.as_tensor())
    assert torch.equal(volume.affine, oracle.affine)
    assert volume.meta["filename_or_obj"] == oracle.meta["filename_or_obj"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, ">i2"])
def test_voxel_types_and_scaling(tmp_path, dtype):
    array = np.abs(make_array((4, 5, 6))).astype(dtype)
    image = nib.Nifti1Image(array, make_affine())
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(0.25, -3)
    nib.save(image, tmp_path / "scaled.nii.gz")
    truth = nib.load(tmp_path / "scaled.nii.gz").get_fdata()
    np.testing.assert_allclose(load(tmp_path / "scaled.nii.gz")[0], truth, atol=0.15)


def test_nifti2(tmp_path):
    array, affine = make_array(), make_affine()
    for name in ("a.nii", "a.nii.gz"):
        nib.save(nib.Nifti2Image(array.astype(np.int16), affine), tmp_path / name)
        assert_same_scan(load(tmp_path / name), array, affine)


def test_every_dicom_slice_keeps_its_own_rescaling(tmp_path):
    array, slopes = make_array(), [1.0, 0.25, 0.5, 2.5, 0.125]  # the first needs no fractions
    folder = write_dicom_series(
        tmp_path, array, make_affine(), RescaleSlope=slopes, RescaleIntercept=3
    )
    np.testing.assert_allclose(load(folder)[0], array * slopes + 3, rtol=1e-6)


def test_trailing_singleton_axis_is_squeezed(tmp_path):
    array, affine = make_array(), make_affine()
    path = write_nifti(tmp_path / "a.nii", array[..., None].astype(np.int16), affine)
    assert_same_scan(load(path), array, affine)
    assert_same_scan(load(path), array, affine)


@pytest.mark.parametrize("count", [2, 5])
def test_several_channels_without_names_are_refused(tmp_path, count):
    channels = np.stack([make_array(seed=c) for c in range(count)], axis=-1).astype(np.int16)
    path = write_nifti(tmp_path / "4d.nii.gz", channels, make_affine())
    with pytest.raises(InputError, match=rf"4d.nii.gz' has {count}"):
        load(path)


def test_real_oblique_dicom(shared_data, tmp_path):
    """Against the formula of the standard, pixel by pixel; the sequence is a T1."""
    shutil.unpack_archive(shared_data / "dicom_t1" / "dicom_t1.tar.xz", tmp_path)
    volume = load(tmp_path / "dicom_t1")
    assert volume.shape == (1, 274, 384, 96)
    to_voxel = np.linalg.inv(volume.affine.numpy())
    for path in sorted((tmp_path / "dicom_t1").iterdir())[::13]:
        dataset = pydicom.dcmread(path)
        row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
        down_mm, across_mm = map(float, dataset.PixelSpacing)
        for i, j in ((0, 0), (130, 200), (273, 7)):
            world = np.add(dataset.ImagePositionPatient, row * across_mm * i)
            world = (world + column * down_mm * j) * (-1, -1, 1)
            voxel = (to_voxel @ [*world, 1])[:3]
            assert np.abs(voxel - voxel.round()).max() < 1e-3
            assert volume[0][tuple(voxel.round().astype(int))] == dataset.pixel_array[j, i]
    assert volume.meta["sequence"] == "T1"
    assert get_warnings(volume) == [
        "Expected a FLAIR scan; the DICOM header (SeriesDescription 'anat-T1w') says T1. "
        "The mask may mean nothing."
    ]


# ---------------------------------------------------------------- beside other transforms


@pytest.mark.parametrize("name", ["x-t2f.nii.gz", "series_t1c"])
def test_inversion_saving_and_collation(tmp_path, name):
    array, affine = make_array((16, 20, 6)), make_affine()
    if name.endswith(".gz"):
        path = write_nifti(tmp_path / name, array.astype(np.int16), affine)
    else:
        path = write_dicom_series(tmp_path / name, array, affine)
    forward = Compose(
        [
            LoadSequencesd("image"),
            Orientationd("image", "RAS", labels=None),
            Spacingd("image", (2.0, 2.0, -1.0)),
            ScaleIntensityd("image"),
        ]
    )
    (item,) = decollate_batch(
        next(iter(DataLoader(Dataset([{"image": str(path)}], forward), batch_size=1)))
    )
    warnings = get_warnings(item["image"])
    assert len(warnings) == (0 if "t2f" in name else 1)
    back = Compose(
        [
            Invertd("image", forward, orig_keys="image"),
            SaveImaged(
                "image", output_dir=tmp_path / "out", output_postfix="mask", print_log=False
            ),
        ]
    )(item)["image"]
    assert back.shape == (1, *array.shape)
    (saved,) = (tmp_path / "out").rglob("*_mask.nii.gz")
    saved_image = nib.load(saved)
    assert saved_image.shape == array.shape
    np.testing.assert_allclose(saved_image.affine, affine, atol=1e-3)


def test_warnings_name_the_source_and_unknown_is_silent(tmp_path):
    array = make_array().astype(np.int16)
    known = write_nifti(tmp_path / "p-t1c.nii.gz", array, make_affine())
    unknown = write_nifti(tmp_path / "patient1.nii.gz", array, make_affine())
    (warning,) = get_warnings(load(known))
    assert "the file name 'p-t1c.nii.gz' says T1-Gd" in warning
    assert get_warnings(load(known, sequences=["T1-Gd", "FLAIR"])) == []
    assert get_warnings(load(known, sequences=["unknown"])) == []
    assert load(unknown).meta["sequence"] == "unknown"
    assert get_warnings(load(unknown)) == []


def test_missing_orientation_is_a_warning(tmp_path):
    nib.save(nib.Nifti1Image(make_array().astype(np.int16), None), tmp_path / "a.nii")
    path = write_nrrd(tmp_path / "b.nrrd", make_array(), make_affine())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"space: left-posterior-superior", b"space dimension: 3"))
    (warning,) = get_warnings(load(path))
    assert "'b.nrrd' does not say how it lies in space" in warning
    (warning,) = get_warnings(load(tmp_path / "a.nii"))
    assert "'a.nii' does not say how it lies in space" in warning


def test_volumes_in_memory(tmp_path):
    path = write_nifti(tmp_path / "p-t1c.nii", make_array().astype(np.int16), make_affine())
    volume = load(path)
    volume.meta.pop("sequence")
    again = load(volume)
    assert "sequence" not in volume.meta  # the input stays as it was
    assert_same_scan(again, make_array(), make_affine())
    assert get_warnings(again) == get_warnings(volume)
    assert again.meta["sequence"] == "unknown"
    bare = load(make_array()[None].astype(np.uint8))
    assert torch.equal(bare.affine, torch.eye(4, dtype=torch.float64))
    assert "without geometry" in get_warnings(bare)[0]
    volume[0, 1, 2, 3] = torch.nan
    for value, reason in (
        (volume, "1 of 385 .* NaN"),
        (make_array(), r"shape \(1, X, Y, Z\)"),
        (np.stack([make_array()] * 2), r"shape \(1, X, Y, Z\)"),
        (7, "path, an array or a MetaTensor, got int"),
        (MetaTensor(torch.rand(1, 3, 4, 5), affine=torch.zeros(4, 4)), "singular"),
    ):
        with pytest.raises(InputError, match=reason):
            load(value)


def test_threads_read_the_same_and_print_nothing(tmp_path, capfd):
    array, affine = make_array(), make_affine()
    paths = write_all(tmp_path, array, affine) * 5
    transform = LoadSequencesd("image")
    with ThreadPoolExecutor(8) as pool:
        volumes = list(pool.map(lambda path: transform({"image": path})["image"], paths))
    for volume in volumes:
        assert_same_scan(volume, array, affine)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- refusals


def write_broken(folder):
    """Broken scans by name, each with what the message must say."""
    good = make_array((40, 30, 20)).astype(np.int16)
    whole = write_nifti(folder / "whole.nii.gz", good, make_affine()).read_bytes()
    floats = make_array().astype(np.float32)
    nan, infinite = floats.copy(), floats.copy()
    nan[1, 2, 3] = nan[0, 0, 0] = np.nan
    infinite[4, 5, 1] = np.inf
    (folder / "text.nii.gz").write_text("no image")
    (folder / "text.nii").write_text("no image")
    (folder / "text.nrrd").write_text("no image")
    (folder / "gzipped_text.nii.gz").write_bytes(gzip.compress(b"no image"))
    (folder / "table.csv").write_text("1,2")
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_late.nii.gz").write_bytes(whole[:-20])
    (folder / "flipped.nii.gz").write_bytes(whole[:3000] + b"\xff" * 64 + whole[3064:])
    (folder / "cut.nii").write_bytes(gzip.decompress(whole)[:-10])
    cut = write_nrrd(folder / "cut.nrrd", floats, make_affine())
    cut.write_bytes(cut.read_bytes()[:-50])
    Image.new("L", (20, 30), 7).save(folder / "picture.png")
    (folder / "cut.png").write_bytes((folder / "picture.png").read_bytes()[:40])
    (folder / "empty").mkdir()
    eye = np.eye(4)
    write_nifti(folder / "nan.nii.gz", nan, eye)
    write_nifti(folder / "inf.nii", infinite, eye)
    write_nrrd(folder / "nan.nrrd", nan, eye)
    write_nifti(folder / "zeros.nii", np.zeros(SHAPE, np.uint8), eye)
    write_nifti(folder / "constant.nii", np.full(SHAPE, 3, np.uint8), eye)
    write_nifti(folder / "plane.nii", floats[..., 0], eye)
    write_nifti(folder / "one_slice.nii", floats[..., :1], eye)
    write_nifti(folder / "one_slice_4d.nii", floats[:1, ..., None], eye)
    write_nifti(folder / "no_voxels.nii", np.zeros((3, 4, 0), np.uint8), eye)
    write_nifti(folder / "complex.nii", floats.astype(np.complex64), eye)
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    write_nifti(folder / "colours.nii", colours, eye)
    write_nifti(folder / "5d.nii", np.stack([np.stack([floats] * 2, -1)] * 2, -1), eye)
    write_raw_nifti(folder / "flat.nii", floats, np.diag([1.0, 1.0, 0.0, 1.0]))
    write_raw_nifti(folder / "parallel.nii", floats, np.array([[1, 1, 0, 0]] * 3 + [[0] * 4]))
    write_raw_nifti(folder / "nan_affine.nii", floats, np.diag([1.0, np.nan, 1.0, 1.0]))


BROKEN = {
    "missing.nii.gz": "no scan at",
    "text.nii.gz": "compressed with gzip",
    "text.nii": "is damaged, or of another kind",
    "text.nrrd": "is cut off, or no NRRD",
    "gzipped_text.nii.gz": "is damaged, or of another kind",
    "table.csv": "is no scan",
    "cut.nii.gz": "cut off or damaged",
    "cut_late.nii.gz": "cut off or damaged",
    "cut.nii": "is cut off: it has 48,342 of 48,352 bytes",
    "flipped.nii.gz": "cut off or damaged",
    "cut.nrrd": "is cut off, or no NRRD",
    "picture.png": "is 20 x 30 x 1",
    "cut.png": "picture .* cannot be read",
    "empty": "no DICOM image in",
    "nan.nii.gz": "2 of 385 voxels in .* are NaN",
    "inf.nii": "1 of 385 voxels in .* infinite",
    "nan.nrrd": "2 of 385 voxels in .* are NaN",
    "zeros.nii": "All voxels of .* are 0",
    "constant.nii": "All voxels of .* are 3",
    "plane.nii": "is 7 x 11",
    "one_slice.nii": "is 7 x 11 x 1",
    "one_slice_4d.nii": "is 1 x 11 x 5",
    "no_voxels.nii": "has no voxels",
    "complex.nii": "are complex64, not intensities",
    "colours.nii": "not intensities",
    "5d.nii": "3D or 4D",
    "flat.nii": "singular",
    "parallel.nii": "singular",
    "nan_affine.nii": "holds NaN or infinity",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    write_broken(folder)
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_broken_scans(broken, name):
    with pytest.raises(InputError, match=BROKEN[name]) as caught:
        load(broken / name)
    assert name in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["x_t1c.png", "x_t1c.TIF"])
def test_a_picture_is_one_slice(tmp_path, name):
    """As it is looked at: its left is the patient's right, its top anterior."""
    pixels = make_array((13, 17)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    volume = load(tmp_path / name, min_slices=1, sequences=["T1-Gd"])
    assert volume.shape == (1, 17, 13, 1)
    ras = Orientationd("image", "RAS", labels=None)({"image": volume})["image"]
    np.testing.assert_array_equal(ras[0, ..., 0], pixels.T[::-1, ::-1])
    (warning,) = get_warnings(volume)
    assert f"'{name}' is a picture without geometry" in warning


def test_min_slices(tmp_path):
    path = write_nifti(tmp_path / "a.nii", make_array().astype(np.int16), make_affine())
    assert load(path, min_slices=5).shape == (1, *SHAPE)
    with pytest.raises(InputError, match="at least 6 slices"):
        load(path, min_slices=6)


def replace_slices(folder, change):
    for path in sorted(folder.iterdir())[:1]:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)


def test_dicom_series_that_are_no_grid(tmp_path):
    array, affine = make_array(), make_affine()

    def shift(dataset):
        row = np.array(dataset.ImageOrientationPatient[:3], float)
        moved = np.array(dataset.ImagePositionPatient, float) + 2 * row
        dataset.ImagePositionPatient = [f"{value:.8f}" for value in moved]

    changes = {
        "drift sideways by 2.00 mm": shift,
        "has no ImagePositionPatient": lambda d: d.pop("ImagePositionPatient"),
        "ImageOrientationPatient is": lambda d: setattr(
            d, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]
        ),
        "PixelSpacing is": lambda d: setattr(d, "PixelSpacing", [1, 2]),
        "holds 9 frames": lambda d: d.update({"NumberOfFrames": 9, "PixelData": 9 * d.PixelData}),
        "3 samples": lambda d: d.update({"SamplesPerPixel": 3, "PixelData": 3 * d.PixelData}),
        "holds 2 DICOM series": lambda d: setattr(d, "SeriesInstanceUID", "1.2.9"),
    }
    for number, (reason, change) in enumerate(changes.items()):
        folder = write_dicom_series(tmp_path / str(number), array, affine)
        replace_slices(folder, change)
        with pytest.raises(InputError, match=reason):
            load(folder)


def test_dicom_series_with_holes_or_doubles(tmp_path):
    array, affine = make_array(), make_affine()
    folder = write_dicom_series(tmp_path / "hole", array, affine)
    (third,) = folder.glob("*_3.dcm")
    third.unlink()
    with pytest.raises(InputError, match=r"gaps between them range from 4.000 to 8.000 mm"):
        load(folder)
    folder = write_dicom_series(tmp_path / "double", array, affine)
    (third,) = folder.glob("*_3.dcm")
    (folder / "again.dcm").write_bytes(third.read_bytes())
    with pytest.raises(InputError, match="several slices at one position"):
        load(folder)
    folder = write_dicom_series(tmp_path / "one", array[..., :1], affine)
    with pytest.raises(InputError, match="at least 2 slices"):
        load(folder)
    folder = write_dicom_series(tmp_path / "cut", array, affine)
    (third,) = folder.glob("*_3.dcm")
    third.write_bytes(third.read_bytes()[:-60])
    with pytest.raises(
        InputError, match=r"1 of 5 DICOM slices in .*_3.dcm \(94 of 154 bytes of pixels\)"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"sequences": ("FLAIR", "FLAR")},
            r"must name each channel.*got \['FLAIR', 'FLAR'\]",
        ),
        ({"sequences": ()}, r"sequences must name each channel.*got \[\]"),
        ({"sequences": ["T1", "T1"]}, "each channel of the network once"),
        ({"min_slices": 0}, "min_slices must be"),
        ({"min_slices": 2.5}, "min_slices must be"),
    ],
)
def test_options(options, reason):
    with pytest.raises(OptionError, match=reason):
        LoadSequencesd("image", **options)


@pytest.mark.fault("D")
@pytest.mark.parametrize("name", ["sub-01_dwi", "p2_flair", "sub-01_bold", "sub-01_T1map"])
def test_four_volumes_that_are_by_their_name_not_the_four_sequences(tmp_path, name):
    """Directions of a diffusion scan, or points in time."""
    volumes = np.stack([make_array(seed=c) for c in range(4)], axis=-1).astype(np.int16)
    path = write_nifti(tmp_path / f"{name}.nii.gz", volumes, make_affine())
    with pytest.raises(InputError, match="by its name they are not one of each sequence"):
        load_scan(path)


def test_a_volume_that_was_moved_has_no_header_of_the_file(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", make_array().astype(np.int16), make_affine())
    volume = load_scan(path)[0].volume
    cropped = SpatialCrop(roi_start=(1, 1, 1), roi_end=(6, 6, 4))(volume)
    kept, moved = (load_scan(given)[0].volume for given in (volume, cropped))
    assert "nifti_header" in kept.meta
    assert "nifti_header" not in moved.meta
