"""The scans of one head in one volume: channels, grids, roles and warnings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Invertd, Orientationd

from heatmask.data.cases import list_cases
from heatmask.data.load import LoadSequencesd, assign_roles
from heatmask.data.scan import get_warnings
from heatmask.errors import InputError, OptionError
from heatmask.transforms import NormalizeHeadd, ResampleInPlaned
from helpers.phantom import make_phantom
from helpers.planted import make_affine, make_volume, store_as
from helpers.scan_files import write_dicom_series, write_nifti

FOUR = ["FLAIR", "T1", "T1-Gd", "T2"]
SHAPE, SPACING, TILT = (26, 31, 12), (1.4, 1.1, 3.5), (11.0, -6.0, 17.0)
AFFINE = make_affine(SPACING, "PSL", TILT)


def draw_waves(affine: np.ndarray, shape: tuple[int, ...] = SHAPE, phase: float = 0) -> np.ndarray:
    """A function of the place in space, smooth on the scale of the slices, never 0."""
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]).T
    return (3 + np.sin(x / 14 + phase) * np.cos(y / 17) + np.sin(z / 19)).T.astype(np.float32)


def write_scans(folder: Path, sequences: list[str], affine: np.ndarray = AFFINE) -> dict[str, str]:
    """One file a sequence, each with other voxels, under names that tell nothing."""
    folder.mkdir(exist_ok=True)
    return {
        s: str(write_nifti(folder / f"{i}.nii", draw_waves(affine, phase=i), affine))
        for i, s in enumerate(sequences)
    }


def load(value: object, sequences: object = ("FLAIR",), **more: object) -> dict:
    return LoadSequencesd("image", sequences)({"image": value, **more})


# --- channels --------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(FOUR), min_size=1, unique=True),
    st.lists(st.sampled_from(FOUR), min_size=1, unique=True),
)
def test_channels_have_the_order_of_the_network(given_names, sequences):
    volumes = {s: make_volume(draw_waves(AFFINE, phase=FOUR.index(s)), AFFINE) for s in given_names}
    out = load(volumes, sequences)
    image, scan = out["image"], out["scan"]
    assert image.shape == (len(sequences), *SHAPE)
    assert scan.shape == (1, *SHAPE)
    used = [s for s in sequences if s in given_names]
    for channel, sequence in zip(image, sequences, strict=True):
        expected = volumes[sequence].as_tensor()[0] if sequence in used else torch.zeros(SHAPE)
        if used:
            assert torch.equal(channel.as_tensor(), expected)
    assert scan.meta["sequences_used"] == image.meta["sequences_used"] == (used or sequences[:1])
    reference = volumes[used[0] if used else given_names[0]]
    assert torch.equal(scan.as_tensor(), reference.as_tensor())
    np.testing.assert_allclose(image.affine, AFFINE)
    left_out = [s for s in given_names if s not in (used or given_names[:1])]
    assert any("Left out" in w for w in get_warnings(scan)) == bool(left_out)


@pytest.mark.parametrize(
    ("names", "sequences", "reference", "expected"),
    [
        (["FLAIR"], ["FLAIR"], None, ("FLAIR", {"FLAIR": "FLAIR"}, ())),
        (["unknown"], ["T1", "FLAIR"], None, ("unknown", {"T1": "unknown"}, ())),
        (["T2"], ["FLAIR"], None, ("T2", {"FLAIR": "T2"}, ())),
        (["T2", "T1"], ["FLAIR"], "T1", ("T1", {"FLAIR": "T1"}, ("T2",))),
        (["T1", "FLAIR"], ["FLAIR"], None, ("FLAIR", {"FLAIR": "FLAIR"}, ("T1",))),
        # The viewer shows a scan that the network does not take: it gives the grid
        (["FLAIR", "T1-Gd"], ["T1-Gd"], "FLAIR", ("FLAIR", {"T1-Gd": "T1-Gd"}, ("FLAIR",))),
        (["unknown", "FLAIR"], ["FLAIR"], None, ("FLAIR", {"FLAIR": "FLAIR"}, ("unknown",))),
        (
            ["unknown", "T1-Gd"],
            ["FLAIR", "T1-Gd"],
            None,
            ("unknown", {"FLAIR": "unknown", "T1-Gd": "T1-Gd"}, ()),
        ),
        (["T1-Gd", "CT"], ["unknown"], None, ("T1-Gd", {"unknown": "T1-Gd"}, ("CT",))),
    ],
)
def test_roles(names, sequences, reference, expected):
    roles = assign_roles(names, sequences, reference)
    assert (roles.reference, roles.channels, roles.left_out) == expected
    assert list(roles.channels) == [s for s in sequences if s in roles.channels]


def test_the_reference_of_a_viewer_gives_the_grid(tmp_path):
    scans = write_scans(tmp_path, ["FLAIR"])
    other = make_affine((2.0, 2.0, 2.0), "LAS")
    other[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, :3] @ np.array([13, 15, 6]) + (20, -20, -20)
    scans |= write_scans(tmp_path / "t1c", ["T1-Gd"], other)
    shown = load(scans, ["T1-Gd"], reference="FLAIR")
    np.testing.assert_allclose(shown["image"].affine, AFFINE, atol=1e-5)
    assert shown["scan"].meta["sequence"] == "FLAIR"
    assert shown["scan"].meta["sequences_used"] == ["T1-Gd"]
    assert get_warnings(shown["scan"]) == ["Left out, the network takes T1-Gd: FLAIR."]
    alone = load(scans, ["T1-Gd"])
    np.testing.assert_allclose(alone["image"].affine, other, atol=1e-5)
    with pytest.raises(InputError, match=r"one of the scans, FLAIR, T1-Gd; got 'T2'"):
        load(scans, reference="T2")


# --- grids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAL", "IRP"])
def test_siblings_come_to_the_references_grid(axcodes):
    """Values are a function of space, so the right resampling is known."""
    reference = make_volume(draw_waves(AFFINE), AFFINE)
    other = make_affine((0.9, 2.1, 1.7), "RAS", (-5.0, 14.0, 3.0))
    centre = AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3]
    shape = (90, 40, 50)
    other[:3, 3] = centre - other[:3, :3] @ (np.array(shape) / 2)
    sibling = make_volume(*store_as(draw_waves(other, shape, phase=1), other, axcodes))
    image = load({"FLAIR": reference, "T1-Gd": sibling}, ["FLAIR", "T1-Gd"])["image"]
    assert image.shape == (2, *SHAPE)
    assert torch.equal(image[0].as_tensor(), reference[0].as_tensor())
    inside = image[1].numpy() > 0
    inside[[0, -1]] = inside[:, [0, -1]] = inside[..., [0, -1]] = False
    assert inside.mean() > 0.4
    error = np.abs(image[1].numpy() - draw_waves(AFFINE, phase=1))[inside]
    assert np.percentile(error, 95) < 0.05
    wrong = np.abs(image[1].numpy() - draw_waves(AFFINE, phase=2))[inside]
    assert np.percentile(wrong, 95) > 0.3


def test_outside_the_sibling_is_zero():
    half = make_volume(draw_waves(AFFINE)[..., :6], AFFINE)
    whole = make_volume(draw_waves(AFFINE), AFFINE)
    image = load({"FLAIR": whole, "T2": half}, ["FLAIR", "T2"])["image"]
    np.testing.assert_allclose(image[1, ..., :6], half[0], atol=1e-4)
    assert not image[1, ..., 7:].any()


def test_scans_of_two_places_are_refused(tmp_path):
    far = AFFINE.copy()
    far[:3, 3] += (300, 0, 0)
    scans = write_scans(tmp_path, ["FLAIR"]) | write_scans(tmp_path / "far", ["T1-Gd"], far)
    with pytest.raises(InputError, match=r"T1-Gd .* shows nothing within FLAIR") as caught:
        load(scans, ["FLAIR", "T1-Gd"])
    message = str(caught.value)
    assert message.count("26 x 31 x 12 voxels of 1.4 x 1.1 x 3.5 mm around") == 2
    assert load(scans, ["FLAIR"])["scan"].meta["sequences_used"] == ["FLAIR"], "not even opened"


def test_what_comes_after_works_with_absent_channels(tmp_path):
    scans = write_scans(tmp_path, ["FLAIR", "T2"])
    chain = Compose([
        LoadSequencesd("image", FOUR),
        Orientationd("image", axcodes="RAS", labels=None),
        ResampleInPlaned("image", 2.0),
        NormalizeHeadd("image"),
    ])  # fmt: skip
    data = chain({"image": scans})
    image = data["image"]
    assert [bool(channel.any()) for channel in image] == [True, False, False, True]
    for channel in (image[0], image[3]):
        assert float(channel.median()) == pytest.approx(1, abs=0.1)
    data["heatmap"] = image[:1].clone()
    back = Invertd("heatmap", chain, orig_keys="image", nearest_interp=False)(data)["heatmap"]
    assert back.shape == data["scan"].shape
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    assert np.corrcoef(back.flatten(), data["scan"].flatten())[0, 1] > 0.97


def test_a_loader_of_batches(tmp_path):
    scans = write_scans(tmp_path, ["FLAIR", "T2"])
    (batch,) = DataLoader(Dataset([{"image": scans}], LoadSequencesd("image", FOUR)), batch_size=1)
    assert batch["image"].shape == (1, 4, *SHAPE)


def test_the_scan_and_the_input_are_left_alone():
    volume = make_volume(draw_waves(AFFINE), AFFINE)
    before = volume.as_tensor().clone()
    out = load({"FLAIR": volume})
    out["image"].zero_()
    assert torch.equal(out["scan"].as_tensor(), before)
    assert torch.equal(volume.as_tensor(), before)
    assert "warnings" not in volume.meta


# --- several sequences in one file -----------------------------------------------------------


def write_decathlon(
    folder: Path, modality: object = None, channels: int = 4
) -> tuple[str, np.ndarray]:
    """Task01_BrainTumour with one patient: its path and its voxels (X, Y, Z, C)."""
    voxels = np.stack([draw_waves(AFFINE, phase=c) for c in range(channels)], axis=-1)
    (folder / "imagesTr").mkdir(parents=True)
    if modality is not None:
        (folder / "dataset.json").write_text(json.dumps({"modality": modality}))
    return str(write_nifti(folder / "imagesTr" / "BRATS_001.nii.gz", voxels, AFFINE)), voxels


@pytest.mark.parametrize(
    ("modality", "order"),
    [
        ({"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, [0, 1, 2, 3]),
        ({"3": "FLAIR", "2": "T1w", "0": "T1gd", "1": "T2w"}, [3, 2, 0, 1]),
        (None, [0, 1, 2, 3]),
    ],
)
def test_the_decathlons_four_channels(tmp_path, modality, order):
    path, voxels = write_decathlon(tmp_path, modality)
    (case,) = list_cases(tmp_path, sequences=FOUR)
    out = LoadSequencesd("image", FOUR)(case)
    np.testing.assert_array_equal(out["image"], np.moveaxis(voxels[..., order], -1, 0))
    np.testing.assert_array_equal(out["scan"][0], voxels[..., order[0]])
    warned = [w for w in get_warnings(out["scan"]) if "no dataset.json" in w]
    assert len(warned) == (modality is None)
    out = load(path, ["T1-Gd"])
    np.testing.assert_array_equal(out["image"][0], voxels[..., order[2]])
    assert "Left out, the network takes T1-Gd: FLAIR" in get_warnings(out["scan"])[-1] or modality


def test_an_empty_channel_is_an_absent_sequence(tmp_path):
    path, voxels = write_decathlon(tmp_path)
    voxels[..., 0] = 0
    write_nifti(Path(path), voxels, AFFINE)
    out = load(path, FOUR)
    assert out["scan"].meta["sequences_used"] == ["T1", "T1-Gd", "T2"]
    assert not out["image"][0].any()
    write_nifti(Path(path), 0 * voxels, AFFINE)
    with pytest.raises(InputError, match=r"All voxels of .* are 0"):
        load(path, FOUR)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"0": "FLAIR"}, r"has 4 channels, and .* names FLAIR\."),
        ({"0": "T1", "1": "T1w", "2": "T2", "3": "FLAIR"}, "Name each channel once"),
        ({"a": "FLAIR"}, "does not name the channels in 'modality'"),
        (["FLAIR"], "does not name the channels in 'modality'"),
    ],
)
def test_a_wrong_table_of_channels(tmp_path, modality, message):
    path, _ = write_decathlon(tmp_path, modality)
    with pytest.raises(InputError, match=message):
        load(path, FOUR)


# --- what is said about names ----------------------------------------------------------------


def test_a_substitute_is_a_warning(tmp_path):
    path = write_nifti(tmp_path / "p-t2w.nii", draw_waves(AFFINE), AFFINE)
    expected = "Expected a FLAIR or T1 scan; {} says T2. The mask may mean nothing."
    (warning,) = get_warnings(load(str(path), ["FLAIR", "T1"])["scan"])
    assert warning == expected.format("the file name 'p-t2w.nii'")
    unnamed = write_scans(tmp_path / "x", ["T2"])
    (warning,) = get_warnings(load(unnamed, ["FLAIR", "T1"])["scan"])
    assert warning == expected.format("its place among the scans")


def test_a_file_under_a_name_that_it_denies(tmp_path):
    path = write_nifti(tmp_path / "p-t1c.nii", draw_waves(AFFINE), AFFINE)
    series = write_dicom_series(
        tmp_path / "s", np.arange(60).reshape(4, 5, 3), np.eye(4), SeriesDescription="T2 tse"
    )
    (warning,) = get_warnings(load({"FLAIR": path})["scan"])
    assert warning.startswith("Expected a FLAIR scan; the file name 'p-t1c.nii' says T1-Gd.")
    (warning,) = get_warnings(load({"FLAIR": series})["scan"])
    assert "SeriesDescription 'T2 tse'" in warning
    assert get_warnings(load({"T1-Gd": path}, ["T1-Gd"])["scan"]) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "got no scan"),
        ({"flair": "x"}, "must be under one of FLAIR, .*; got 'flair'"),
        ({"FLAIR": "/none/x.nii"}, "no scan at"),
        ({"FLAIR": 7}, "path, an array or a MetaTensor, got int"),
    ],
)
def test_refusals(value, message):
    with pytest.raises(InputError, match=message):
        load(value)


def test_several_channels_under_one_name_are_refused(tmp_path):
    path, _ = write_decathlon(tmp_path)
    with pytest.raises(InputError, match=r"given as FLAIR, .* has 4 channels"):
        load({"FLAIR": path})


def test_options():
    with pytest.raises(OptionError, match="sequences must name each channel"):
        LoadSequencesd("image", [])


def test_the_lgg_set(lgg):
    case = next(c for c in list_cases(lgg, sequences=FOUR) if len(c["image"]) == 3)
    out = LoadSequencesd("image", FOUR)(case)
    assert isinstance(out["image"], MetaTensor)
    assert out["scan"].meta["sequences_used"] == FOUR[:3]
    assert get_warnings(out["scan"]) == []


@pytest.mark.parametrize(
    ("sequences", "given", "warned"),
    [
        (("FLAIR", "T1-Gd"), "T1-Gd", True),
        (("FLAIR", "T1-Gd"), "FLAIR", False),
        (("T1-Gd",), "T1-Gd", False),
    ],
)
def test_without_the_sequence_that_the_weights_need_there_is_a_warning(
    sequences: tuple[str, ...], given: str, warned: bool
) -> None:
    volume = make_volume(np.random.default_rng(0).random((8, 9, 10)) + 1, np.eye(4))
    out = LoadSequencesd("image", sequences, needed="FLAIR")({"image": {given: volume}})
    said = any("Without FLAIR this network" in text for text in out["scan"].meta["warnings"])
    assert said == warned


# --- a sequence that must be there -----------------------------------------------------------


def test_a_required_sequence_may_be_there_without_its_name(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "x.nii", draw_waves(AFFINE), AFFINE)
    step = LoadSequencesd("image", ["T1-Gd", "FLAIR"], required="T1-Gd")
    assert get_warnings(step({"image": str(scan)})["scan"]) == []
    scans = write_scans(tmp_path / "both", ["FLAIR", "T1-Gd"])
    assert step({"image": scans})["scan"].meta["sequences_used"] == ["T1-Gd", "FLAIR"]


def test_a_network_that_was_trained_on_other_sequences_requires_none_of_these(
    tmp_path: Path,
) -> None:
    """As of ``heatmask train --set 'sequences=["T2"]'``: the bundle's own sequence stays."""
    scan = write_nifti(tmp_path / "x_t2.nii", draw_waves(AFFINE), AFFINE)
    step = LoadSequencesd("image", ["T2"], required="FLAIR")
    assert step({"image": str(scan)})["scan"].meta["sequences_used"] == ["T2"]


@pytest.mark.parametrize(
    ("name", "came"),
    [
        ("x_flair.nii", "got FLAIR by the file name 'x_flair.nii'"),
        ("x_t1.nii", "got T1 by the file name 'x_t1.nii'"),
        ("x_t2.nii", "got T2 by the file name 'x_t2.nii'"),
    ],
)
def test_another_sequence_than_the_required_one_is_refused(
    tmp_path: Path, name: str, came: str
) -> None:
    scan = write_nifti(tmp_path / name, draw_waves(AFFINE), AFFINE)
    step = LoadSequencesd("image", ["T1-Gd", "FLAIR"], required="T1-Gd")
    with pytest.raises(InputError, match=f"needs a T1-Gd scan; {came}. Give the T1-Gd scan"):
        step({"image": str(scan)})
    with pytest.raises(InputError, match="needs a T1-Gd scan; got FLAIR, T2"):
        step({"image": write_scans(tmp_path / "others", ["FLAIR", "T2"])})


def test_air_becomes_zero_on_the_way_and_only_when_asked(tmp_path):
    """Before a scan is resampled to another grid: a filling would spread into the head."""
    head = make_phantom(0, (40, 44, 12), (5.0, 5.0, 12.0))
    filled = np.where(head.image > 0, head.image, -1000).astype(np.float32)
    half, every_second = filled[:, :, ::2], head.affine @ np.diag([1, 1, 2, 1])
    paths = {
        "FLAIR": str(write_nifti(tmp_path / "a.nii", filled, head.affine)),
        "T1-Gd": str(write_nifti(tmp_path / "b.nii", half, every_second)),
    }
    options = {"sequences": ("FLAIR", "T1-Gd")}
    zeroed = LoadSequencesd("image", zero_air=True, **options)({"image": paths})
    assert zeroed["scan"].min() == 0
    assert zeroed["image"].min() == 0
    np.testing.assert_array_equal(zeroed["image"][0], np.where(filled == -1000, 0, filled))
    as_stored = LoadSequencesd("image", **options)({"image": paths})
    np.testing.assert_array_equal(as_stored["scan"][0], filled)
