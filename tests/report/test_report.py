"""What a run leaves behind: the numbers, the sentences, the picture, and never half of it."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from heatmask import __version__
from heatmask.errors import HeatmaskError, InputError, OutputError
from heatmask.pipeline import Pipeline
from heatmask.report import writer as writer_module
from heatmask.report.overview import choose_slices, draw_overview, to_ras
from heatmask.report.summary import describe_class, describe_slices, summarise_result
from heatmask.report.writer import CaseWriter
from heatmask.result import Provenance, Result, describe_versions
from heatmask.transforms import CalibrateHeatmapd, HeatmapToMaskd
from helpers.pictures import assert_like_kept
from helpers.planted import PlantedClassifier, make_affine, make_volume, store_as

SHAPE, SPACING = (18, 22, 7), (1.25, 2.0, 4.0)
OPTIONS = {
    "gate": True, "min_volume_mm3": 200.0, "calibration": [-6.0, 4.0],
    "inferer#explainer#window": 8,
}  # fmt: skip
VOXEL_ML = 1.25 * 2.0 * 4.0 / 1000
PROBABILITIES = np.array([0.01, 0.2, 0.55, 0.97, 0.6, 0.1, 0.0], np.float32)  # in RAS order
LESION = (slice(11, 16), slice(14, 19), slice(2, 5))  # right, front, not centred


def make_result(
    axcodes: str = "RAS", case: str = "head", tumour: bool = True, **changes: Any
) -> Result:
    """A result of the pipeline, stored as `axcodes`."""
    affine = make_affine(SPACING, "RAS", (5, -4, 3))
    scan, mask = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    scan[0], scan[:, :3] = 0, 0.2
    if tumour:
        mask[LESION], scan[LESION] = 1, 2
    heat = 0.1 + 0.8 * mask
    scale = 1 if tumour else 0.4
    stored = {name: store_as(v, affine, axcodes) for name, v in
              (("scan", scan), ("mask", mask), ("display", heat))}  # fmt: skip
    volumes = {name: make_volume(*pair) for name, pair in stored.items()}
    volumes["mask"] = volumes["mask"].to(torch.uint8)
    by_slice = torch.from_numpy(scale * PROBABILITIES)[:, None]
    given = {
        **volumes,
        "case": case,
        "image": f"/scans/{case}.nii.gz",
        "heatmap": volumes["display"],
        "slice_probabilities": by_slice,
        "shown": by_slice >= 0.5,
        "predicted": by_slice >= 0.5,
        "probabilities": torch.tensor([scale * 0.97]),
        "class_names": ("tumour",),
        "warnings": ("The scan may be a T1.",),
        "sequence": "T1",
        "seconds": {"read and prepare": 0.5, "explain": 1.5, "make mask": 0.25},
        "provenance": Provenance(
            "some_bundle", "0.3.1", OPTIONS, "ab12", "cpu", describe_versions()
        ),
    }
    return Result(**given | changes)


def make_writer(folder: Path, output: str = "out", **given: Any) -> CaseWriter:
    return CaseWriter(folder / output, **given)


def test_what_older_bundles_give_the_writer_goes_to_the_pipeline(tmp_path: Path) -> None:
    """Their configs lie with users."""
    from heatmask.segmenter import Segmenter

    (tmp_path / "old" / "configs").mkdir(parents=True)
    (tmp_path / "old" / "configs" / "metadata.json").write_text('{"version": "0.3.1"}')
    writer = make_writer(
        tmp_path, class_names=["HGG"], slice_axis=2, bundle_root=tmp_path / "old",
        parameters={"gate": True}, overrides={"gate": False, "x#y": 1}, weights="model.pt",
    )  # fmt: skip
    pipeline = Segmenter(
        preprocessing=Compose([]), network=PlantedClassifier(), inferer=None,
        postprocessing=Compose([]), device="cpu", dataset=[], writer=writer,
    )  # fmt: skip
    assert pipeline.class_names == ("HGG",)
    assert (pipeline.bundle, pipeline.version) == ("old", "0.3.1")
    assert pipeline.options == {"gate": True, "x#y": 1}


def list_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def plain_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn: most tests are about the rest."""

    class Picture:
        def savefig(self, path: Path, **_: Any) -> None:
            Path(path).write_bytes(b"png")

    monkeypatch.setattr(writer_module, "draw_overview", lambda *_: Picture())


# --- numbers and sentences -----------------------------------------------------------------


def test_the_summary_in_the_stored_order() -> None:
    result = make_result("RAS")
    summary = summarise_result(result)
    (tumour,) = summary["classes"]
    assert tumour["slice_probabilities"] == pytest.approx(PROBABILITIES.tolist(), abs=1e-6)
    assert tumour["probability"] == pytest.approx(0.97, abs=1e-6)
    assert tumour["mask_ml"] == pytest.approx(75 * VOXEL_ML, abs=1e-4)
    assert (tumour["name"], tumour["label"]) == ("tumour", 1)
    numbering = "from 0 along array_axis of the mask, as stored"
    assert summary["slices"] == {"count": 7, "array_axis": 2, "numbering": numbering}
    assert summary["finding"] == "Tumour predicted (p = 0.97) on 3 slices; pseudo-mask of 0.8 ml."
    assert summary["warnings"] == ["The scan may be a T1."]
    assert (summary["sequence"], summary["device"]) == ("T1", "cpu")
    assert summary["seconds"]["explain"] == 1.5
    json.dumps(summary)


@pytest.mark.parametrize(
    ("axcodes", "array_axis", "reversed_"),
    [("LPS", 2, False), ("RAI", 2, True), ("SPL", 0, False), ("AIR", 1, True)],
)
def test_slices_are_counted_as_the_file_stores_them(
    axcodes: str, array_axis: int, reversed_: bool
) -> None:
    """A person who opens slice 3 of the file finds the probability of slice 3."""
    result = make_result(axcodes)
    summary = summarise_result(result)
    assert summary["slices"]["array_axis"] == array_axis
    found = summary["classes"][0]["slice_probabilities"]
    expected = PROBABILITIES[::-1] if reversed_ else PROBABILITIES
    assert found == pytest.approx(expected.tolist(), abs=1e-6)
    others = tuple(a for a in range(3) if a != array_axis)
    on_slices = np.asarray(result.mask)[0].any(axis=others)
    np.testing.assert_array_equal(np.array(found) >= 0.5, on_slices)
    assert summary["classes"][0]["mask_ml"] == pytest.approx(75 * VOXEL_ML, abs=1e-4)


@pytest.mark.fault("H")
@pytest.mark.parametrize("axcodes", ["RAS", "RAI", "SPL", "AIR"])
def test_a_slice_has_one_number_in_the_picture_and_in_the_report(axcodes: str) -> None:
    """What a label calls slice 3 is slice 3 of the report and of the file."""
    result = make_result(axcodes)
    summary = summarise_result(result)
    mask, axis = np.asarray(result.mask)[0], summary["slices"]["array_axis"]
    labels = [a.get_ylabel() for a in draw_overview(result, summary).axes if a.get_ylabel()]
    assert len(labels) == 3
    for label in labels:
        index, last, p = re.fullmatch(
            r"axial slice (\d+) of 0 to (\d+)\np = ([\d.]+)", label
        ).groups()
        told = summary["classes"][0]["slice_probabilities"][int(index)]
        assert float(p) == pytest.approx(told, abs=0.005)
        assert int(last) == summary["slices"]["count"] - 1
        assert np.take(mask, int(index), axis).any()


@pytest.mark.fault("H")
@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("tumour", "Tumour"),
        ("pituitary tumour", "Pituitary tumour"),
        ("HGG", "HGG"),
        ("mTOR", "mTOR"),
        ("p53 loss", "p53 loss"),
        ("Ödem", "Ödem"),
    ],
)
def test_class_names_stay_as_they_were_written(name: str, begins: str) -> None:
    summary = summarise_result(make_result(class_names=(name,)))
    assert summary["finding"].startswith(f"{begins} predicted (p = 0.97)")
    assert summary["classes"][0]["name"] == name


@pytest.mark.parametrize("axcodes", ["RAS", "LPI"])
def test_the_suspicious_slices_are_named_as_they_are_stored(axcodes: str) -> None:
    predicted = torch.from_numpy(PROBABILITIES)[:, None] >= 0.6
    (tumour,) = summarise_result(make_result(axcodes, predicted=predicted))["classes"]
    assert tumour["suspicious_slices"] == ([3, 4] if axcodes == "RAS" else [2, 3])
    assert tumour["confidence"] == pytest.approx((0.55 + 0.97 + 0.6) / 3, abs=1e-6)
    (none,) = summarise_result(make_result(tumour=False))["classes"]
    assert (none["suspicious_slices"], none["confidence"]) == ([], 0)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([0, 1, 2], "0-2"), ([1, 3, 4, 9], "1, 3-4, 9")]
)
def test_slices_are_named_in_ranges(numbers: list[int], text: str) -> None:
    assert describe_slices(numbers) == text


def test_no_warnings_from_a_data_loader() -> None:
    """A data loader turns an empty list into None."""
    pipeline = make_pipeline(1, {})
    result = pipeline(0)
    assert (result.warnings, result.sequence) == ((), "unknown")


def test_no_tumour_predicted() -> None:
    summary = summarise_result(make_result(tumour=False))
    assert summary["finding"] == "No tumour predicted (p = 0.39)."
    assert summary["classes"][0]["mask_ml"] == 0


@pytest.mark.parametrize(
    ("probability", "slices", "mask_ml", "sentence"),
    [
        (0.2, [0.2, 0.1], 0, "No tumour predicted (p = 0.20)."),
        (0.5, [0.5, 0.1], 3.21, "Tumour predicted (p = 0.50) on 1 slice; pseudo-mask of 3.2 ml."),
        (
            0.9,
            [0.9, 0.8],
            0,
            "Tumour predicted (p = 0.90) on 2 slices, but nothing was left after threshold and "
            "clean-up: the mask is empty.",
        ),
        (
            0.2,
            [0.2, 0.1],
            3.21,
            "No tumour predicted (p = 0.20), but the gate is off: pseudo-mask of 3.2 ml.",
        ),
    ],
)
def test_the_sentence(
    probability: float, slices: list[float], mask_ml: float, sentence: str
) -> None:
    entry = {"name": "tumour", "probability": probability, "mask_ml": mask_ml,
             "slice_probabilities": slices}  # fmt: skip
    assert describe_class(entry, sum(q >= 0.5 for q in slices)) == sentence


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", ["RAS", "PSL", "RAI"])
def test_the_volumes_keep_the_scans_geometry(
    axcodes: str, tmp_path: Path, plain_picture: None
) -> None:
    writer, result = make_writer(tmp_path), make_result(axcodes)
    writer.prepare()
    writer.write(result)
    folder = tmp_path / "out" / "head"
    assert list_files(folder) == [
        "head_heatmap.nii.gz", "head_mask.nii.gz", "overview.png", "report.json",
    ]  # fmt: skip
    for name, key, dtype in (("mask", "mask", np.uint8), ("heatmap", "display", np.float32)):
        image = nib.load(folder / f"head_{name}.nii.gz")
        assert image.get_data_dtype() == dtype
        np.testing.assert_allclose(image.affine, result.scan.affine, atol=1e-5)
        np.testing.assert_array_equal(
            np.asarray(image.dataobj), np.asarray(getattr(result, key))[0]
        )


def test_dicom_objects_of_an_earlier_scan_do_not_stay(tmp_path: Path, plain_picture: None) -> None:
    """They may be of another patient, whose series has the same name."""
    writer, folder = make_writer(tmp_path), tmp_path / "out" / "head"
    folder.mkdir(parents=True)
    for name in ("head_mask.dcm", "head_heatmap.dcm", "notes.txt"):
        (folder / name).touch()
    writer.write(make_result("RAS"))
    assert not list(folder.glob("*.dcm"))
    assert (folder / "notes.txt").exists(), "not ours"


@pytest.mark.fault("C")
def test_the_volumes_carry_both_forms_of_the_scan(tmp_path: Path, plain_picture: None) -> None:
    writer, result = make_writer(tmp_path), make_result("PSL")
    affine = result.scan.affine.numpy()
    scan = nib.Nifti1Image(np.asarray(result.scan[0]), affine)
    moved = affine.copy()
    moved[:3, 3] += (20, -15, 10)
    scan.set_sform(affine, 2)
    scan.set_qform(moved, 1, update_affine=False)
    result.scan.meta["nifti_header"] = scan.header.binaryblock
    writer.prepare()
    writer.write(result)
    for name in ("mask", "heatmap"):
        image = nib.load(tmp_path / "out" / "head" / f"head_{name}.nii.gz")
        assert (image.header["sform_code"], image.header["qform_code"]) == (2, 1)
        np.testing.assert_allclose(image.get_sform(), affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), moved, atol=1e-4)


def test_several_classes_go_into_a_fourth_axis(tmp_path: Path, plain_picture: None) -> None:
    one = make_result()
    by_slice = torch.cat([one.slice_probabilities, 0.1 * one.slice_probabilities], dim=1)
    result = replace(
        one,
        display=torch.cat([one.display, 0.5 * one.display]),
        probabilities=torch.tensor([0.9, 0.1]),
        slice_probabilities=by_slice,
        shown=by_slice >= 0.5,
        predicted=by_slice >= 0.5,
        class_names=("tumour", "oedema"),
    )
    writer = make_writer(tmp_path)
    writer.prepare()
    report = writer.write(result)
    image = nib.load(tmp_path / "out" / "head" / "head_heatmap.nii.gz")
    assert image.shape == (*SHAPE, 2)
    np.testing.assert_allclose(image.affine, result.scan.affine, atol=1e-5)
    assert [c["name"] for c in report["classes"]] == ["tumour", "oedema"]
    assert report["finding"].endswith("No oedema predicted (p = 0.10).")


def test_the_report_names_everything(tmp_path: Path, plain_picture: None) -> None:
    writer = make_writer(tmp_path)
    writer.prepare()
    returned = writer.write(make_result())
    report = json.loads((tmp_path / "out" / "head" / "report.json").read_text(encoding="utf-8"))
    assert report == returned
    assert report["versions"]["heatmask"] == __version__
    assert report["versions"]["torch"] == torch.__version__
    assert {"python", "monai", "numpy", "scipy", "scikit-image"} < set(report["versions"])
    assert report["weights_sha256"] == "ab12"
    assert report["parameters"] == {
        "gate": True, "min_volume_mm3": 200.0, "calibration": [-6.0, 4.0],
        "inferer#explainer#window": 8,
    }  # fmt: skip
    assert report["device"] == "cpu"
    assert set(report["seconds"]) == {"read and prepare", "explain", "make mask"}
    assert report["classes"][0]["probability"] == pytest.approx(0.97, abs=1e-6)
    assert len(report["classes"][0]["slice_probabilities"]) == SHAPE[2]
    assert report["classes"][0]["mask_ml"] == pytest.approx(75 * VOXEL_ML, abs=1e-4)
    assert report["warnings"] == ["The scan may be a T1."]
    assert report["bundle"] == {"name": "some_bundle", "version": "0.3.1"}
    assert report["case"] == "head"
    assert report["input"] == "/scans/head.nii.gz"
    assert Path(report["output"]) == (tmp_path / "out" / "head").resolve()
    assert "Not a diagnosis" in report["notice"]


def test_a_second_run_replaces_its_own_files_and_no_other(
    tmp_path: Path, plain_picture: None
) -> None:
    writer = make_writer(tmp_path)
    writer.prepare()
    writer.write(make_result())
    folder = tmp_path / "out" / "head"
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "out" / "other.txt").write_text("mine too")
    writer.write(make_result(tumour=False))
    assert not np.asarray(nib.load(folder / "head_mask.nii.gz").dataobj).any()
    assert (folder / "notes.txt").read_text() == "mine"
    assert list_files(tmp_path / "out") == ["head", *(f"head/{n}" for n in sorted((
        "head_heatmap.nii.gz", "head_mask.nii.gz", "notes.txt", "overview.png", "report.json",
    ))), "other.txt"]  # fmt: skip


def fail_on(step: str, monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Let one step of writing fail; a full disk, or a defect in the picture."""

    def raise_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def raise_defect(*_: Any, **__: Any) -> None:
        raise ValueError("planted defect")

    if step == "report":
        monkeypatch.setattr(Path, "write_text", raise_full)
    elif step == "volume":
        monkeypatch.setattr(writer_module, "save_volume", raise_full)
    elif step == "move":
        monkeypatch.setattr(os, "replace", raise_full)
    else:
        monkeypatch.setattr(writer_module, "draw_overview", raise_defect)
        return ValueError
    return OutputError


@pytest.mark.parametrize("step", ["volume", "picture", "report", "move"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_failure_leaves_nothing_half_written(
    step: str, earlier: bool, tmp_path: Path, plain_picture: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path)
    writer.prepare()
    if earlier:
        writer.write(make_result())
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        kind = fail_on(step, patch)
        with pytest.raises(
            kind, match=r"planted defect|head must be written below .*No space left"
        ):
            writer.write(make_result(tumour=False))
    after = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert after == before
    assert (tmp_path / "out" / "head").exists() == earlier, "not even an empty folder"


def test_an_output_folder_that_cannot_be_one(tmp_path: Path) -> None:
    """Tests may run as root, who can write anywhere but below a file."""
    (tmp_path / "file").write_text("")
    for output in ("file", "file/deep"):
        writer = make_writer(tmp_path, output)
        with pytest.raises(OutputError, match=r"output_dir must be a folder .*Give another"):
            writer.prepare()


def test_a_case_folder_that_cannot_be_one(tmp_path: Path, plain_picture: None) -> None:
    writer = make_writer(tmp_path)
    writer.prepare()
    (tmp_path / "out" / "head").write_text("in the way")
    with pytest.raises(OutputError, match=r"results of head must be written below"):
        writer.write(make_result())
    assert list_files(tmp_path / "out") == ["head"]


def test_an_output_folder_that_went_away(tmp_path: Path, plain_picture: None) -> None:
    writer = make_writer(tmp_path)
    with pytest.raises(OutputError, match=r"results of head must be written below"):
        writer.write(make_result())


# --- picture -------------------------------------------------------------------------------


@pytest.mark.parametrize(("tumour", "name"), [(True, "overview"), (False, "overview_no_tumour")])
def test_the_picture_is_the_one_that_was_looked_at(tumour: bool, name: str, tmp_path: Path) -> None:
    result = make_result(tumour=tumour)
    figure = draw_overview(result, summarise_result(result))
    figure.savefig(tmp_path / "overview.png", dpi=110)
    assert_like_kept(tmp_path / "overview.png", name)


@pytest.mark.parametrize("axcodes", ["RAS", "PSL"])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_the_picture_shows_what_radiologists_expect(axcodes: str, slice_axis: int) -> None:
    """The planted lesion is right and in front: left in the picture, and in its upper half."""
    by_slice = torch.linspace(0.1, 0.97, SHAPE[slice_axis])[:, None]
    result = make_result(
        axcodes,
        slice_axis=slice_axis,
        slice_probabilities=by_slice,
        predicted=by_slice >= 0.5,
        shown=by_slice >= 0.5,
    )
    summary = summarise_result(result)
    figure = draw_overview(result, summary)
    # Columns: scan, heatmap; and the heatmap's colour bar is the last of all axes.
    scan_axis = figure.axes[0]
    (image,) = scan_axis.images
    plane = np.asarray(image.get_array())
    across, up = (n for a, n in enumerate(SHAPE) if a != slice_axis)
    assert plane.shape == (up, across)
    rows, columns = np.nonzero(plane == 2)
    assert rows.size
    expected = {  # centre of the lesion, as shares of the picture from its top left corner
        2: (1 - 16.5 / 22, 1 - 13.5 / 18),  # front is up, right is left
        1: (1 - 3.5 / 7, 1 - 13.5 / 18),  # up is up, right is left
        0: (1 - 3.5 / 7, 16.5 / 22),  # up is up, front is right
    }[slice_axis]
    assert (rows.mean() + 0.5) / up == pytest.approx(expected[0], abs=0.01)
    assert (columns.mean() + 0.5) / across == pytest.approx(expected[1], abs=0.01)
    spacing = [s for a, s in enumerate(SPACING) if a != slice_axis]
    assert scan_axis.get_aspect() == pytest.approx(spacing[1] / spacing[0])
    texts = [figure.get_suptitle(), figure.get_supxlabel()]
    assert summary["finding"] in texts[0]
    assert "The scan may be a T1." in texts[1]
    assert "Not a diagnosis" in texts[1]


def test_a_long_finding_is_broken_into_lines() -> None:
    result = make_result()
    summary = summarise_result(result)
    summary["finding"] = "No tumour predicted (p = 0.39). " * 5
    title = draw_overview(result, summary).get_suptitle()
    assert max(map(len, title.splitlines())) <= 92
    assert " ".join(title.split()) == f"{result.case} {summary['finding'].strip()}"


def test_the_picture_of_nothing_found(tmp_path: Path) -> None:
    result = make_result(tumour=False)
    summary = summarise_result(result)
    figure = draw_overview(result, summary)
    assert "No tumour predicted (p = 0.39)." in figure.get_suptitle()
    assert not any(axis.collections for axis in figure.axes[:3]), "no outline"
    figure.savefig(tmp_path / "overview.png", dpi=40)
    assert (tmp_path / "overview.png").stat().st_size > 2000


def test_telling_slices_hold_the_largest_area_and_the_ends() -> None:
    mask = np.zeros((10, 10, 30), np.uint8)
    for z in range(8, 23):
        mask[: 3 if z != 12 else 9, :3, z] = 1
    chosen = choose_slices(mask, np.zeros(30), 2)
    assert 12 in chosen
    assert 3 <= len(chosen) <= 4
    assert chosen[0] <= 10
    assert chosen[-1] >= 20
    assert list(chosen) == sorted(set(chosen))
    assert all(8 <= z < 23 for z in chosen)


@pytest.mark.parametrize(("peak", "expected"), [(0, [0, 3]), (12, [9, 12, 15]), (29, [26, 29])])
def test_without_a_mask_the_likeliest_slices_tell(peak: int, expected: list[int]) -> None:
    probabilities = np.full(30, 0.1)
    probabilities[peak] = 0.4
    assert list(choose_slices(np.zeros((4, 5, 30), np.uint8), probabilities, 2)) == expected


def test_to_ras_undoes_the_stored_order() -> None:
    array, affine = np.arange(24).reshape(2, 3, 4), make_affine(SPACING, "RAS", (5, 5, 5))
    for axcodes in ("LPI", "SAL", "PIR"):
        np.testing.assert_array_equal(to_ras(*store_as(array, affine, axcodes)), array)


# --- many scans ----------------------------------------------------------------------------


class Recorder:
    """A writer that keeps the case names."""

    def __init__(self) -> None:
        self.cases: list[str] = []

    def prepare(self) -> None:
        self.cases.clear()

    def write(self, result: Result) -> str:
        self.cases.append(result.case)
        return result.case


def make_pipeline(count: int, bad: Mapping[int, Exception]) -> Pipeline:
    """Scans of which some fail inside a Compose, which wraps what its transforms raise."""

    def read(case: Mapping[str, Any]) -> dict[str, Any]:
        if case["image"] in bad:
            raise bad[case["image"]]
        scan = make_volume(
            1 + np.tile(np.eye(5, dtype=np.float32), (2, 1, 1)), make_affine((1, 1, 1))
        )
        return {**case, "image": scan, "scan": scan}

    def explain(images: torch.Tensor, network: torch.nn.Module) -> dict[str, torch.Tensor]:
        assert not network.training
        by_slice = torch.ones(1, 5, 1)
        return {
            "heatmap": images, "probabilities": torch.ones(1, 1), "slice_probabilities": by_slice,
            "shown": by_slice > 0, "predicted": by_slice > 0,
        }  # fmt: skip

    finish = HeatmapToMaskd("heatmap", calibration=(0, 2)), CalibrateHeatmapd("heatmap", (0, 2))
    explain.slice_axis = 2
    return Pipeline(
        Compose([read]), PlantedClassifier().train(), explain, Compose(finish), device="cpu",
        dataset=[{"image": i, "case": f"case {i}"} for i in range(count)], writer=Recorder(),
    )  # fmt: skip


def test_all_scans_are_written() -> None:
    assert make_pipeline(3, {}).run() == ["case 0", "case 1", "case 2"]


def test_a_failing_scan_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = make_pipeline(4, {1: InputError("scan 1 is broken"), 3: InputError("so is 3")})
    message = r"2 of 4 scans failed, the others are written:\n  case 1: scan 1 is broken\n  case 3"
    with caplog.at_level(logging.ERROR), pytest.raises(HeatmaskError, match=message):
        pipeline.run()
    assert pipeline.writer.cases == ["case 0", "case 2"]
    assert "case 1: scan 1 is broken" in caplog.text


def test_a_single_failing_scan_raises_its_own_error() -> None:
    with pytest.raises(InputError, match=r"^scan 0 is broken$"):
        make_pipeline(1, {0: InputError("scan 0 is broken")}).run()


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"applying transform") as caught:
        make_pipeline(1, {0: ZeroDivisionError("planted defect")}).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.fault("E")
def test_what_ran_out_of_memory_is_said_and_stops_no_other() -> None:
    planted = {0: MemoryError("Unable to allocate 12.9 GiB")}
    with pytest.raises(HeatmaskError, match=r"1 of 2 .*\n  case 0: MemoryError: Unable to alloc"):
        make_pipeline(2, planted).run()


def test_ctrl_c_stops_the_rest() -> None:
    pipeline = make_pipeline(3, {1: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert pipeline.writer.cases == ["case 0"]


def test_a_defect_on_one_scan_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[dict] = []
    with pytest.raises(HeatmaskError, match="1 of 2 scans failed"):
        make_pipeline(2, {0: ZeroDivisionError("planted defect")}).run(show=shown.append)
    assert len(shown) == 1
    assert "ZeroDivisionError: planted defect" in caplog.text


def test_a_result_says_where_and_how_long() -> None:
    result = make_pipeline(1, {})(0, "a")
    assert list(result.seconds) == ["read and prepare", "explain", "make mask"]
    assert all(s >= 0 for s in result.seconds.values())
    assert result.provenance.device == "cpu"
    assert result.probabilities.tolist() == [1.0]


SHOW = """
from heatmask import errors, plain_errors
plain_errors.show_plain_errors()
try:
    raise {error}('the scan is broken')
except Exception as error:
    raise RuntimeError('wrapped') from error
"""


@pytest.mark.parametrize(("error", "plain"), [("errors.InputError", True), ("ValueError", False)])
def test_people_see_the_reason_alone(error: str, plain: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(error=error)], capture_output=True, text=True
    )
    assert done.returncode == 1
    if plain:
        assert done.stderr.strip() == "heatmask: error: the scan is broken"
    else:
        assert "Traceback" in done.stderr
        assert "RuntimeError: wrapped" in done.stderr
