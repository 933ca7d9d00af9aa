"""NIfTI: the form to compute with, the unit, and results that lie on the scan in every viewer."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader, Dataset, decollate_batch

from heatmask.data.load import LoadSequencesd
from heatmask.data.readers.nifti import make_nifti, read_itk_grid
from heatmask.data.readers.read import read_scan
from heatmask.data.scan import load_scan
from heatmask.errors import InputError
from helpers.planted import make_affine

SHAPE, SPACING = (6, 7, 5), (0.9, 1.2, 4.0)
ARRAY = np.random.default_rng(0).permutation(210).reshape(SHAPE).astype(np.int16)
SCANNER = make_affine(SPACING, "PSL", (0, 0, 0))
TILTED = make_affine(SPACING, "RAS", (11, -6, 17))


def move(affine: np.ndarray, *shift_mm: float) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += shift_mm
    return moved


def write(
    path: Path,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    codes: tuple[int, int] = (1, 1),
    unit: str = "mm",
    array: np.ndarray = ARRAY,
    kind: Any = nib.Nifti1Image,
) -> Path:
    header = kind(array, None).header
    if qform is not None:
        header.set_qform(qform, codes[1])
    if sform is not None:
        header.set_sform(sform, codes[0])
    header.set_xyzt_units(unit)
    nib.save(kind(array, None, header), path)
    return path


def edit(path: Path, **fields: Any) -> Path:
    """Change fields of the header of a plain NIfTI, as nibabel would not."""
    content = path.read_bytes()
    header = nib.load(path).header
    header["vox_offset"] = header.single_vox_offset  # nibabel clears it
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[header.sizeof_hdr :])
    return path


def save_like(path: Path, target: Path) -> nib.Nifti1Image:
    """The mask of a scan, written and read again."""
    ((_, volume),) = load_scan(path)
    mask = np.zeros(volume.shape[1:], np.uint8)
    nib.save(make_nifti(mask, volume.affine.numpy(), volume.meta["nifti_header"]), target)
    return nib.load(target)


@pytest.mark.fault("C")
@pytest.mark.parametrize(
    ("codes", "taken"),
    [((2, 1), "the qform"), ((4, 1), "the qform"), ((1, 1), "the sform, older versions the qform")],
)
def test_two_forms_that_differ(tmp_path: Path, codes: tuple[int, int], taken: str) -> None:
    sform = move(SCANNER, 20, -15, 10)
    path = write(tmp_path / "a.nii.gz", sform, SCANNER, codes)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.affine, sform, atol=1e-4)
    (warning,) = scan.warnings
    assert "sform and qform differ by up to 26.9 mm" in warning
    assert f"(3D Slicer, ITK-SNAP) {taken}." in warning
    shown = read_itk_grid(path)[1]
    expected = sform if "sform" in taken else SCANNER
    np.testing.assert_allclose(shown, expected, atol=1e-4)


@pytest.mark.fault("C")
def test_a_rotation_counts_at_the_corners(tmp_path: Path) -> None:
    turned = SCANNER.copy()
    turned[:3, :3] = nib.eulerangles.euler2mat(0.05) @ turned[:3, :3]
    (warning,) = read_scan(write(tmp_path / "a.nii", turned, SCANNER)).warnings
    corners = np.array([(x, y, z, 1) for x in (0, 5) for y in (0, 6) for z in (0, 4)]).T
    expected = np.linalg.norm(((turned - SCANNER) @ corners)[:3], axis=0).max()
    assert f"by up to {expected:.3g} mm" in warning


@pytest.mark.fault("C")
def test_float_noise_is_no_difference(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", move(TILTED, 1e-3, 2e-4, 0.3), TILTED)
    assert read_scan(path).warnings == []


@pytest.mark.fault("C")
def test_an_sform_of_another_voxel_size_is_distrusted(tmp_path: Path) -> None:
    """As MONAI's reader does: an affine registration is no place for millimetres."""
    scan = read_scan(write(tmp_path / "a.nii", TILTED * [1.2, 1.2, 1.2, 1], TILTED))
    np.testing.assert_allclose(scan.affine, TILTED, atol=1e-4)
    assert "takes the qform (the voxels of the sform have another size)" in scan.warnings[0]


@pytest.mark.fault("C")
def test_one_form_alone(tmp_path: Path) -> None:
    for name, forms in (("q", {"qform": TILTED}), ("s", {"sform": TILTED})):
        scan = read_scan(write(tmp_path / f"{name}.nii", **forms))
        np.testing.assert_allclose(scan.affine, TILTED, atol=1e-4)
        assert scan.warnings == []


@pytest.mark.fault("C")
def test_a_form_that_cannot_be_used_gives_way(tmp_path: Path) -> None:
    path = edit(write(tmp_path / "s.nii", TILTED, TILTED), srow_z=[0, 0, 0, 0])
    scan = read_scan(path)
    np.testing.assert_allclose(scan.affine, TILTED, atol=1e-4)
    assert scan.warnings == ["The sform of 's.nii' cannot be used; the qform is taken."]
    path = edit(write(tmp_path / "q.nii", TILTED, TILTED), quatern_b=3.0)
    assert read_scan(path).warnings == ["The qform of 'q.nii' cannot be used; the sform is taken."]
    with pytest.raises(InputError, match="singular"):
        read_scan(edit(path, srow_x=[0, 0, 0, 0]))


def write_left_handed(path: Path) -> Path:
    return write(path, TILTED @ np.diag([-1, 1, 1, 1]), TILTED @ np.diag([-1, 1, 1, 1]))


CASES = {
    "both forms": lambda p: write(p, move(TILTED, 9, 9, 9), TILTED, (2, 1)),
    "left-handed": write_left_handed,
    "qform": lambda p: write(p, qform=TILTED, codes=(0, 3)),
    "sform": lambda p: write(p, TILTED, codes=(4, 0)),
    "neither": lambda p: edit(write(p), pixdim=[1, 0.9, 1.2, 4, 1, 1, 1, 1]),
    "micrometres": lambda p: write(p, TILTED * 1e3, TILTED * 1e3, unit="micron"),
    "NIfTI-2": lambda p: write(p, move(TILTED, 9, 9, 9), TILTED, kind=nib.Nifti2Image),
    "big-endian": lambda p: write(p, TILTED, TILTED, array=ARRAY.astype(">i2")),
}


@pytest.mark.fault("C")
@pytest.mark.parametrize("case", CASES)
def test_what_is_written_lies_on_the_scan_in_every_viewer(tmp_path: Path, case: str) -> None:
    path = CASES[case](tmp_path / "scan.nii")
    mask, scan = save_like(path, tmp_path / "mask.nii.gz"), nib.load(path)
    assert mask.shape == SHAPE
    assert mask.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert mask.header[field] == scan.header[field]
    for read in (lambda i: i.affine, lambda i: i.get_sform(), lambda i: i.get_qform()):
        np.testing.assert_allclose(read(mask), read(scan), rtol=1e-6)
    if case != "NIfTI-2":  # which ITK does not read
        shown = [read_itk_grid(file)[1] for file in (tmp_path / "mask.nii.gz", path)]
        np.testing.assert_allclose(*shown, rtol=1e-6)


@pytest.mark.fault("B")
@pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1e3), ("meter", 1e-3), ("unknown", 1)])
@pytest.mark.parametrize("forms", [("sform",), ("qform",), ("sform", "qform")])
def test_units_are_honoured(
    tmp_path: Path, unit: str, per_mm: float, forms: tuple[str, ...]
) -> None:
    scaled = np.diag([per_mm, per_mm, per_mm, 1]) @ TILTED
    scan = read_scan(write(tmp_path / "a.nii", **dict.fromkeys(forms, scaled), unit=unit))
    np.testing.assert_allclose(scan.affine, TILTED, rtol=1e-4, atol=1e-4)
    assert scan.warnings == []


@pytest.mark.fault("C")
def test_a_voxel_size_of_zero_is_none(tmp_path: Path) -> None:
    sizes = [1, 0.9, 1.2, 0, 0, 0, 0, 0]
    scan = read_scan(edit(write(tmp_path / "a.nii", TILTED, TILTED), pixdim=sizes))
    np.testing.assert_allclose(scan.affine, TILTED, atol=1e-4)
    assert scan.warnings == ["The qform of 'a.nii' cannot be used; the sform is taken."]
    with pytest.raises(InputError, match=r"edges of 0\.9 x 1\.2 x 0 mm"):
        read_scan(edit(write(tmp_path / "b.nii"), pixdim=sizes))


def test_the_header_survives_a_data_loader(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", move(TILTED, 9, 9, 9), TILTED)
    loader = DataLoader(Dataset([{"image": str(path)}], LoadSequencesd("image")), batch_size=1)
    (item,) = decollate_batch(next(iter(loader)))
    header = item["scan"].meta["nifti_header"]
    image = make_nifti(np.zeros((*SHAPE, 2), np.float32), np.eye(4), header)
    np.testing.assert_allclose(image.get_qform(), TILTED, atol=1e-4)
    assert image.header.get_zooms()[3] == 1


@pytest.mark.fault("F")
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 6, 7, 5), (6, 7, 5)),
        ((1, 1, 6, 7, 5), (6, 7, 5)),
        ((6, 7, 1, 5), (6, 7, 5)),
        ((6, 1, 5, 7), (6, 7, 5)),
        ((6, 7, 5, 1), (6, 7, 5)),
        ((6, 7, 5, 1, 1), (6, 7, 5)),
        ((6, 7, 1), (6, 7, 1)),
        ((6, 7, 1, 1), (6, 7, 1)),
    ],
)
def test_axes_of_length_one(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    array = ARRAY[..., : expected[2]]
    stored = array.swapaxes(1, 2) if shape == (6, 1, 5, 7) else array
    path = write(tmp_path / "a.nii", TILTED, TILTED, array=stored.reshape(shape))
    ((_, volume),) = load_scan(path, min_slices=1)
    np.testing.assert_array_equal(volume[0], array)
    np.testing.assert_allclose(volume.affine, TILTED, atol=1e-4)


@pytest.mark.fault("F")
@pytest.mark.parametrize("shape", [(6, 7, 5, 4), (6, 7, 5, 1, 4), (6, 7, 1, 4)])
def test_four_channels_stay_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Also of a single slice: as slices of one scan they would give a mask without a meaning."""
    array = np.arange(1, np.prod(shape) + 1).reshape(shape).astype(np.int16)
    channels = load_scan(write(tmp_path / "a.nii", TILTED, array=array), min_slices=1)
    assert [clue.sequence for clue, _ in channels] == ["FLAIR", "T1", "T1-Gd", "T2"]
    assert channels[0].volume.shape == (1, *shape[:3])


@pytest.mark.fault("A")
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_cut_files(tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path / "a.nii", TILTED, kind=kind)
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) - 200, 400):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"'.*a.nii' is (cut off|damaged)") as caught:
            read_scan(path)
        assert "Expected" not in str(caught.value)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut off"):
        read_scan(edit(path, vox_offset=4096))
    with pytest.raises(InputError, match="within the header"):
        read_scan(edit(path, vox_offset=0))


def test_what_the_viewer_cannot_read_is_said_without_the_insides_of_its_reader(
    tmp_path: Path,
) -> None:
    for name in ("a.nii", "a.nrrd"):
        (tmp_path / name).write_bytes(b"\0" * 400)
        with pytest.raises(InputError, match="cannot be read by the viewer") as refused:
            read_itk_grid(tmp_path / name)
        for inside in ("0x", ".cxx", ".hxx", "ImageIO"):
            assert inside not in str(refused.value)
