"""Voxels that contradict the name of a scan: where it is sure, and nowhere else."""

import csv

import numpy as np
import pytest
from scipy import ndimage

from heatmask.data.checks.contrast import (
    USUAL,
    describe_contradictions,
    measure_edge_trend,
)
from heatmask.data.load import LoadSequencesd
from helpers.planted import make_affine, make_volume, store_as

SHAPE, SPACING = (90, 100, 14), (2.0, 1.8, 5.0)


def draw_head(white: float, grey: float, axcodes: str = "RAS"):
    """Scalp, skull, a cortex with dark furrows and white matter, slightly noisy."""
    mm = (np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2) * SPACING
    angle = np.arctan2(mm[..., 1], mm[..., 0])
    radius = np.hypot(mm[..., 0] / 0.9, mm[..., 1]) + 0 * mm[..., 2]
    image = np.select(
        [radius < 42 + 8 * np.sin(11 * angle), radius < 60, radius < 68, radius < 76],
        [white, grey, 15, 160],
        0,
    ).astype(np.float32)
    image[(radius < 60) & (radius > 40) & (np.sin(11 * angle) < -0.9)] = 30
    image[image > 0] += np.random.default_rng(3).normal(0, 2, (image > 0).sum())
    image = ndimage.gaussian_filter(image, (0.5, 0.5, 0))
    affine = make_affine(SPACING, "RAS", (7.0, -4.0, 11.0))
    return make_volume(*store_as(image, affine, axcodes))


T1, FLAIR = draw_head(120, 85), draw_head(85, 115)


def test_white_matter_bright_is_t1_and_cortex_bright_is_flair():
    assert measure_edge_trend(T1) < -0.3
    assert measure_edge_trend(FLAIR) > 0.1


@pytest.mark.parametrize("axcodes", ["LPS", "SAL", "IRP"])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.01, 0), (30, -7)])
def test_storage_and_scale_change_nothing(axcodes, scale, shift):
    stored = draw_head(120, 85, axcodes)
    values = np.where(stored != 0, scale * (stored + shift), 0)
    moved = make_volume(values, np.asarray(stored.affine))
    assert measure_edge_trend(moved) == pytest.approx(measure_edge_trend(T1), abs=0.05)


def test_both_axes_of_a_slice_are_smoothed_alike():
    """Pixels that are long one way, and the same slices stored with rows for columns."""
    long = make_volume(T1[0, :, ::2].numpy(), np.asarray(T1.affine) @ np.diag([1, 2, 1, 1]))
    turned = make_volume(long[0].numpy().swapaxes(0, 1), np.asarray(long.affine)[:, [1, 0, 2, 3]])
    assert measure_edge_trend(turned) == pytest.approx(measure_edge_trend(long), abs=1e-3)


def test_exchanged_scans_are_noticed():
    for name in ("T1", "T1-Gd"):
        assert describe_contradictions({"FLAIR": FLAIR, name: T1}) == []
        (warning,) = describe_contradictions({"FLAIR": T1, name: FLAIR})
        assert warning.startswith(f"FLAIR and {name} seem to be exchanged")


def test_one_scan_alone():
    assert describe_contradictions({"FLAIR": FLAIR}) == []
    assert describe_contradictions({"T1": T1, "T2": FLAIR}) == []
    (warning,) = describe_contradictions({"FLAIR": draw_head(130, 70)})
    assert warning.startswith("The FLAIR looks like a T1")
    (warning,) = describe_contradictions({"T1-Gd": FLAIR})
    assert warning.startswith("The T1-Gd looks like a FLAIR")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((7, 6, 5)),
        np.ones((7, 6, 5)),
        np.random.default_rng(0).normal(size=(40, 44, 6)),
        np.pad(np.ones((60, 60, 4)), 5),
        np.random.default_rng(0).random((1, 200, 2)),
        3 + np.sin(np.indices((30, 28, 9)).sum(0) / 4),  # smooth, but smaller than any head
    ],
)
def test_what_is_no_head_is_never_judged(array):
    volume = make_volume(array, make_affine((1.5, 2.0, 4.0), "PSL"))
    assert describe_contradictions({"FLAIR": volume, "T1": volume}) == []
    assert describe_contradictions({"FLAIR": volume}) == []


def test_how_often_it_is_right_on_real_patients(lgg):
    """The test patients, whose scans did not choose the thresholds."""
    with (lgg / "patients.csv").open() as file:
        patients = [row["patient"] for row in csv.DictReader(file) if row["split"] == "test"]
    noticed = {"pairs": 0, "T1-Gd as FLAIR": 0, "FLAIR as T1-Gd": 0}
    for patient in patients[:6]:
        paths = {s: lgg / patient / f"{patient}-{e}.nii.gz" for s, e in
                 (("FLAIR", "t2f"), ("T1-Gd", "t1c"))}  # fmt: skip
        scans = {s: LoadSequencesd("image", [s])({"image": p})["scan"] for s, p in paths.items()}
        flair, t1gd = scans["FLAIR"], scans["T1-Gd"]
        assert describe_contradictions(scans) == []
        assert describe_contradictions({"FLAIR": flair}) == []
        assert describe_contradictions({"T1-Gd": t1gd}) == []
        for scan in scans.values():  # looking at few slices says the same as looking at all
            trend = measure_edge_trend(scan)
            for low, high in USUAL.values():
                few = measure_edge_trend(scan, (low, high))
                assert low <= few <= high if low <= trend <= high else few == trend
        noticed["pairs"] += bool(describe_contradictions({"FLAIR": t1gd, "T1-Gd": flair}))
        noticed["T1-Gd as FLAIR"] += bool(describe_contradictions({"FLAIR": t1gd}))
        noticed["FLAIR as T1-Gd"] += bool(describe_contradictions({"T1-Gd": flair}))
    assert noticed["pairs"] == 6
    assert noticed["T1-Gd as FLAIR"] + noticed["FLAIR as T1-Gd"] > 0


def test_a_skull_stripped_scan_with_negative_values(shared_data):
    (folder,) = (shared_data / "brats2013").glob("*pat0001*")
    names = (("FLAIR", "Flair"), ("T1-Gd", "T1c"))
    paths = {s: str(folder / f"{n}_subtrMeanDivStd.nii.gz") for s, n in names}
    load = LoadSequencesd("image", list(paths))
    assert load({"image": paths})["scan"].meta["warnings"] == []
    exchanged = {"FLAIR": paths["T1-Gd"], "T1-Gd": paths["FLAIR"]}
    warnings = load({"image": exchanged})["scan"].meta["warnings"]
    assert any("seem to be exchanged" in warning for warning in warnings)
