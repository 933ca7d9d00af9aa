"""`heatmask compare`, from a folder of scans to a page, and every rule that it scores by."""

import csv
import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from heatmask.attribution import Explainer, register, registry
from heatmask.bundle import list_folders
from heatmask.cli import app
from heatmask.errors import InputError, OptionError, OutputError
from heatmask.experiments import few_masks, heatmaps, retraining, usable
from heatmask.experiments.baselines import BaselineScoring
from heatmask.experiments.bootstrap import Interval, bootstrap_clusters
from heatmask.experiments.cases import Case, Place
from heatmask.experiments.controls import list_stages, make_control, show_control
from heatmask.experiments.entries import Entry, find_bundles, is_single_pass, make_plan
from heatmask.experiments.faithfulness import FaithfulnessScoring
from heatmask.experiments.few_masks import FewMasks
from heatmask.experiments.filtered import Condition, Slices, filter_images
from heatmask.experiments.gather import compare, retrain
from heatmask.experiments.heatmaps import Explanations, Heatmap, measure_range
from heatmask.experiments.page import format_rows, write_report
from heatmask.experiments.plan import PARTS, Request, list_tasks, refuse_faithfulness
from heatmask.experiments.results import Contrast, Row
from heatmask.experiments.retraining import Retraining
from heatmask.experiments.scores import Scoring, find_best_level
from heatmask.experiments.sentences import summarise
from heatmask.experiments.statistics import estimate_optimism
from heatmask.experiments.store import Store, digest_code, digest_file
from heatmask.experiments.usable import leave_out
from heatmask.experiments.work import (
    Task,
    list_items,
    open_explanations,
    open_kept,
    open_retraining,
    read_cases,
    read_volumes,
)
from heatmask.inferer import HeatmapInferer
from heatmask.networks.cnn import CNN
from heatmask.networks.weights import save_weights
from helpers.phantom import make_phantom
from helpers.planted import store_as
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

GP_UNET = PROJECT / "bundles" / "brain_mri_gp_unet_segmentation"
SPLITS = ("train", "train", "train", "val", "val", "test", "test", "test")
METHODS = ("inherent", "grad_cam", "guided_backprop")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small heads with slice labels; the last five with reference masks."""
    folder = tmp_path_factory.mktemp("heads")
    slices, patients = ["patient,slice,tumour"], ["patient,split"]
    for seed, split in enumerate(SPLITS):
        phantom = make_phantom(40 + seed, shape=(52, 62, 12), spacing_mm=(4.0, 4.0, 12.0))
        name = f"P{seed}"
        (folder / name).mkdir()
        write_nifti(folder / name / f"{name}-t2f.nii.gz", phantom.image, phantom.affine)
        if split != "train":
            mask = phantom.lesion
            write_nifti(folder / name / f"{name}-seg.nii.gz", mask, phantom.affine)
        patients.append(f"{name},{split}")
        slices += [f"{name},{i},{label}" for i, label in enumerate(phantom.slice_labels)]
    (folder / "slice_labels.csv").write_text("\n".join(slices) + "\n", encoding="utf-8")
    (folder / "patients.csv").write_text("\n".join(patients) + "\n", encoding="utf-8")
    return folder


def run(heads: Path, output: Path, *words: str) -> str:
    bundles = ("gp_unet", "resnet_attribution")
    named = [w for b in bundles for w in ("--bundle", f"brain_mri_{b}_segmentation")]
    chosen = [word for method in METHODS for word in ("--method", method)]
    command = ["compare", str(heads), "-o", str(output), *named, *chosen, "--jobs", "1"]
    done = CliRunner().invoke(app, [*command, "--seeds", "1", "--device", "cpu", *words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Trainings that take a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_masks, "FEW_MASKS_SLICES", 60)
        patch.setattr(retraining, "EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def report(heads: Path, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run(heads, folder)
    return folder


def read(report: Path) -> dict[str, dict]:
    """The sections of summary.json by title."""
    content = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    return {section["title"]: section for section in content["sections"]}


def read_rows(report: Path) -> list[dict[str, str]]:
    with (report / "rows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_page_tells_everything(report: Path) -> None:
    sections = read(report)
    assert list(sections) == [
        "In short", "Masks", "Thresholds", "Lesion size",
        "Attribution methods and random weights", "Retraining on filtered images",
        "Classification", "Confidence", "Faithfulness", "Published numbers", "Left out",
    ]  # fmt: skip
    page = (report / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|<link[^>]*href|@import|url\()\W*https?:""", page), "all inside"
    assert 'name="viewport"' in page
    for section in sections.values():
        for table in section["tables"]:
            assert all(len(row) == len(table["header"]) for row in table["rows"])


def test_rows_are_what_evaluate_says(report: Path, heads: Path, tmp_path: Path) -> None:
    """The default mask's Dice is the same from both commands."""
    command = ["evaluate", str(heads), "-o", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--bundle", "brain_mri_gp_unet_segmentation"])
    assert done.exit_code == 0, done.output
    wanted = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["methods"]
    found = {(row["name"], row["threshold"]): row for row in read_rows(report)}
    pairs = {
        ("gp_unet, own heatmap", "own"): "GP-UNet",
        ("gp_unet, own heatmap", "not snapped"): "GP-UNet, not snapped",
        ("90th percentile in the head", "none"): "90th percentile in the head",
        ("centre Gaussian", "none"): "centre Gaussian",
    }
    by_name = {method["name"]: method for method in wanted}
    for ours, theirs in pairs.items():
        dice = by_name[theirs]["mean_dice"]
        assert float(found[ours]["dice"]) == pytest.approx(dice["mean"], abs=5e-3)
        assert float(found[ours]["dice_low"]) == pytest.approx(dice["low"], abs=5e-3)
        assert float(found[ours]["false_size"]) == pytest.approx(
            by_name[theirs]["mean_tumour_free_slices_ml"], abs=0.5
        )
    oracle = next(row for row in read_rows(report) if row["name"] == "best threshold")
    assert oracle["rule"] == "c"
    assert f"mean + {by_name['best threshold']['level']:g} SD" in oracle["threshold"]


def test_the_three_rules_stand_apart(report: Path) -> None:
    rows = [r for r in read_rows(report) if r["name"] == "resnet_attribution, guided_backprop"]
    by_rule = {(row["rule"], row["threshold"].split(":")[0]) for row in rows}
    assert by_rule == {
        ("a", "own"), ("a", "not snapped"), ("a", "multi-Otsu"),
        ("b", "chosen on masks of the validation patients"), ("c", "best on these masks"),
    }  # fmt: skip
    dice = {row["rule"]: float(row["dice"]) for row in rows}
    assert dice["c"] >= dice["b"], "(c) is the upper bound of its family"
    masks = next(r for r in read_rows(report) if r["kind"] == "masks")
    assert masks["rule"] == "b"


def test_the_luck_of_the_best_is_told(report: Path) -> None:
    with (report / "compare.csv").open(encoding="utf-8") as file:
        own = [r for r in csv.DictReader(file) if r["kind"] == "method" and r["threshold"] == "own"]
    dice: dict[str, list[float]] = {}
    for row in own:
        dice.setdefault(row["name"], []).append(float(row["dice"]))
    names = list(dict.fromkeys(row["subject"] for row in own))
    luck = estimate_optimism(list(dice.values()), names)
    said = (
        f"The best of {len(dice)} owes {max(0, luck):.3f} of its mean Dice to having been chosen on"
    )
    assert f"{said} these patients" in "".join(read(report)["In short"]["lines"])


def test_every_explanation_has_its_control(report: Path) -> None:
    """The mean over three networks of random weights."""
    rows = read_rows(report)
    trained = {row["name"] for row in rows if row["kind"] == "method"}
    dice = {row["name"]: float(row["dice"]) for row in rows if row["threshold"] == "own"}
    for name in trained:
        draws = [dice[f"{name} (random:{seed})"] for seed in range(3)]
        assert dice[f"{name} (random)"] == pytest.approx(np.mean(draws), abs=1e-5)
    (table,) = read(report)["Attribution methods and random weights"]["tables"]
    assert {row[0] for row in table["rows"]} == trained
    assert {row[table["header"].index("draws")] for row in table["rows"]} == {"3"}
    lines = read(report)["Attribution methods and random weights"]["lines"]
    assert any("Guided backprop" in line and "the control." in line for line in lines)


def test_what_a_bundle_cannot_do_is_said(report: Path) -> None:
    (table,) = read(report)["Left out"]["tables"]
    reasons = {(bundle, method): why for bundle, method, why in table["rows"]}
    assert "carries its own heatmap" in reasons["brain_mri_gp_unet_segmentation", "grad_cam"]
    resnet = "brain_mri_resnet_attribution_segmentation"
    assert "no heatmap of its own" in reasons[resnet, "inherent"]


def test_a_bundle_of_blocks_says_why_it_has_no_deletion(heads: Path, tmp_path: Path) -> None:
    place = Place(str(heads), str(tmp_path), device="cpu")
    relevance = "brain_mri_relevance3d_segmentation"
    comparison = compare(
        Request((relevance,), ("inherent",), jobs=1, parts=("faithfulness",)), place
    )
    assert not comparison.faithfulness
    (refused,) = comparison.refused
    assert (refused.bundle, refused.method) == (relevance, "deletion and insertion")


def test_a_network_that_knows_slices_alone_is_asked_for_deletion(
    heads: Path, tmp_path: Path
) -> None:
    """Its config does not say that it takes slices, as it could take nothing else."""
    bundle = PROJECT / "bundles" / "brain_mri_flair_selftrained_segmentation"
    place, plan = Place(str(heads), str(tmp_path), device="cpu"), make_plan([bundle], ("inherent",))
    tasks = list_tasks(plan, Request(parts=("faithfulness",)), place, has_given=False)
    assert "faithfulness" in {task.kind for task in tasks}
    assert not refuse_faithfulness(plan, place)


def test_each_case_has_a_line_for_each_row(report: Path) -> None:
    with (report / "compare.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [row for row in read_rows(report) if not re.search(r"\(.*:\d\)", row["name"])]
    assert len(lines) == 3 * len(rows), "of single draws and stages rows.csv has the means"
    assert {line["subject"] for line in lines} == {"P5", "P6", "P7"}
    for row in rows:
        own = [
            float(x["dice"])
            for x in lines
            if (x["name"], x["threshold"]) == (row["name"], row["threshold"])
        ]
        assert np.mean(own) == pytest.approx(float(row["dice"]), abs=1e-5)


def test_a_second_run_computes_nothing(
    report: Path, heads: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    for kind in (Explanations, Scoring, BaselineScoring, FewMasks, FaithfulnessScoring, Retraining):
        monkeypatch.setattr(kind, "_compute", fail)
    monkeypatch.setattr("heatmask.pipeline.Pipeline.__init__", fail)
    run(heads, tmp_path, "--cache", str(report / "cache"))
    for name in ("rows.csv", "compare.csv"):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes()


def test_other_weights_are_another_entry(report: Path, heads: Path, tmp_path: Path) -> None:
    """The cache is by content: a changed checkpoint, scan or option is computed anew."""
    bundle = Path(shutil.copytree(GP_UNET, tmp_path / GP_UNET.name))
    place = Place(str(heads), str(report / "cache"), device="cpu")
    entry = Entry(bundle, "inherent")
    (case, *_) = read_cases(bundle, place, "test").cases
    before = open_explanations(entry, place)
    assert before.is_done(case), "a copy of the bundle is the same bundle"
    weights = bundle / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    state["head.bias"] += 1
    save_weights(state, weights)
    digest_file.cache_clear()
    after = open_explanations(entry, place)
    assert not after.is_done(case)
    assert open_explanations(Entry(GP_UNET, "inherent"), place).is_done(case)
    options = {"device": "cpu", "pixel_spacing_mm": 3.0}
    assert not Explanations(Entry(GP_UNET, "inherent"), options, after.store).is_done(case)


def test_another_postprocessing_is_scored_anew(heads: Path, report: Path, tmp_path: Path) -> None:
    """The whole config is in the key, whatever its parts are called."""
    place = Place(str(heads), str(report / "cache"), device="cpu")
    bundle = Path(shutil.copytree(GP_UNET, tmp_path / GP_UNET.name))
    task = Task("masks", Entry(bundle, "inherent"), "test")
    (case, *_) = list_items(task, place)
    assert open_kept(task, place).is_done(case)
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["postprocessing"] = {"_target_": "heatmask.parts.make_masker", "options": "@options"}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert not open_kept(task, place).is_done(case)


def find_keys(data: Path, cache: Path) -> dict[str, str]:
    """What the first result of each task is kept under."""
    for cached in (open_retraining, read_cases, read_volumes, digest_file):
        cached.cache_clear()
    place = Place(str(data), str(cache), device="cpu")
    plan = make_plan(
        [GP_UNET, PROJECT / "bundles" / "brain_mri_gradcam_segmentation"], ["grad_cam"]
    )
    plan.entries.insert(0, Entry(GP_UNET, "inherent"))
    tasks = list_tasks(plan, Request(seeds=1, parts=("few-masks", "retraining")), place, True)
    return {
        f"{task.kind}, {task.entry.name}, {task.split}": open_kept(task, place).find_key(
            list_items(task, place)[0]
        )
        for task in tasks
    }


def change(scan: Path) -> None:
    image = nib.load(scan)
    values = np.asarray(image.dataobj).copy()
    values[20, 20, 5] = 1 - (values[20, 20, 5] > 0)
    write_nifti(scan, values, image.affine)


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("P5/P5-seg.nii.gz", {"baselines", "masks", "control", "few masks", "retraining"}),
        ("P6/P6-t2f.nii.gz", {"control", "retraining"}),
        ("P6/P6-seg.nii.gz", {"retraining"}),
        ("P3/P3-seg.nii.gz", {"given masks", "few masks", "retraining"}),
        ("P0/P0-t2f.nii.gz", {"retraining"}),
        ("slice_labels.csv", {"baselines", "retraining"}),
    ],
)
def test_what_depends_on_a_file_is_computed_anew(
    heads: Path, tmp_path: Path, changed: str, stale: set[str]
) -> None:
    """And nothing else is. P5 is the first test patient, P3 the first one of validation."""
    data = Path(shutil.copytree(heads, tmp_path / "heads"))
    before = find_keys(data, tmp_path / "cache")
    if changed.endswith(".csv"):
        text = (data / changed).read_text(encoding="utf-8")
        flipped = re.sub("P0,0,([01])", lambda found: f"P0,0,{1 - int(found[1])}", text)
        (data / changed).write_text(flipped, encoding="utf-8")
    else:
        change(data / changed)
    after = find_keys(data, tmp_path / "cache")
    kinds = {
        name: "control" if "random" in name
        else "given masks" if name.endswith("val")
        else name.split(",")[0]
        for name in before
    }  # fmt: skip
    assert {kinds[name] for name in before if before[name] != after[name]} == stale
    assert {kinds[name] for name in before if before[name] == after[name]}.isdisjoint(stale)


def test_a_patient_of_another_split_is_retrained_anew(heads: Path, tmp_path: Path) -> None:
    """The same files in the same order: the first of test becomes the last of validation."""
    data = Path(shutil.copytree(heads, tmp_path / "heads"))
    keys = []
    for _ in range(2):
        found = find_keys(data, tmp_path / "cache")
        keys.append([key for name, key in found.items() if name.startswith("retraining")])
        text = (data / "patients.csv").read_text(encoding="utf-8")
        (data / "patients.csv").write_text(text.replace("P5,test", "P5,val"), encoding="utf-8")
    assert set(keys[0]).isdisjoint(keys[1])


def test_the_code_of_the_method_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry loads methods by name, so that no import leads to them."""
    entry = Entry(PROJECT / "bundles" / "brain_mri_gradcam_segmentation", "guided_backprop")
    names: list[str] = []
    monkeypatch.setattr(heatmaps, "digest_code", lambda *found: names.extend(found) or "")
    assert Explanations(entry, {"device": "cpu"}, None).digest
    assert "heatmask.attribution.gradient" in names


def test_pictures_without_a_mask_are_kept_apart(tmp_path: Path) -> None:
    """The last file of a case is its reference mask, but for what shows nothing."""
    explanations = Explanations(Entry(GP_UNET, "inherent"), {"device": "cpu"}, None)
    keys = set()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
        keys.add(explanations.find_key(Case(name, name, str(tmp_path / name), None, (0,))))
    assert len(keys) == 2


def test_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    copies = [shutil.copytree(GP_UNET, tmp_path / n / GP_UNET.name) for n in ("v1", "v2")]
    with pytest.raises(OptionError, match=r"must have a name of its own.*v1.*v2"):
        find_bundles([str(copy) for copy in copies], Place(str(tmp_path)))


@pytest.mark.parametrize(
    ("low", "p", "empty", "holds", "idle"),
    [
        (0.1, 0.01, 0.0, True, False),
        (0.1, 0.20, 0.0, False, False),
        (-0.1, 0.01, 0.0, False, False),
        (0.1, 0.01, 1 / 3, True, False),  # one draw of three shows nothing
        (0.1, 0.01, 1.0, True, True),
    ],
)
def test_a_control_is_beaten_by_interval_and_p(
    low: float, p: float, empty: float, holds: bool, idle: bool
) -> None:
    row = Row("one", "method", "a", "own", {"dice": np.full(4, 0.5)})
    control = Row("one (random)", "control", "a", "own", {"empty": np.full(4, empty)})
    found = Contrast(row, control, 3, Interval(0.2, low, 0.3), p)
    assert (found.holds, found.is_idle) == (holds, idle)


def test_rule_b_takes_the_level_of_the_given_masks() -> None:
    """By the mean over clusters, of those where there is something to find."""
    levels = np.full((4, 20), 0.1)
    levels[:, 3] = (0.9, 0.9, 0.9, 0.0)
    levels[:, 7] = (0.6, 0.6, 0.6, 0.8)
    scores = [{"levels": row.tolist()} for row in levels]
    assert find_best_level(scores, ["a", "b", "c", "d"]) == 3
    assert find_best_level(scores, ["a", "a", "a", "d"]) == 7, "three pictures of one group"


def test_the_range_of_a_control_looks_at_no_label() -> None:
    maps = np.linspace(-1, 3, 4000, dtype=np.float32).reshape(1, 40, 100)
    shown = np.ones((1, 1), bool)
    by_slice = shown, shown, shown.astype(np.float32)
    low, high = measure_range([Heatmap(maps, *by_slice, 0.0)])
    assert (low, high) == pytest.approx((1.0, 2.98), abs=1e-2)
    flat = Heatmap(np.zeros_like(maps), *by_slice, 0.0)
    assert measure_range([flat]) == (0.0, 1.0)
    assert measure_range([]) == (0.0, 1.0)


def test_a_missing_reference_is_counted_and_named(heads: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(heads, tmp_path / "heads"))
    (data / "P6" / "P6-seg.nii.gz").unlink()
    request = Request(("brain_mri_gp_unet_segmentation",), jobs=1, parts=())
    place = Place(str(data), str(tmp_path / "cache"), device="cpu")
    comparison = compare(request, place)
    assert list(comparison.cases.left_out) == ["P6"]
    assert "must have one reference mask *-seg.nii.gz" in comparison.cases.left_out["P6"]
    assert [case.name for case in comparison.cases.cases] == ["P5", "P7"]
    reason = comparison.cases.left_out["P6"]
    said = f"Left out: 1 of 3 volumes of the split 'test'. P6: {reason}"
    assert said in summarise(comparison)
    row = next(csv.DictReader(format_rows(comparison).splitlines()))
    assert row["dice_median"] == row["dice"], "of two, the median is the mean"
    for name in ("P5", "P7"):
        (data / name / f"{name}-seg.nii.gz").unlink()
    read_cases.cache_clear()
    with pytest.raises(InputError, match="none of 3 has"):
        compare(request, place)


@pytest.fixture(scope="module")
def odd_heads(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the test patients P5 alone is whole, its mask stored in another order; P4 is for (b)."""
    data = Path(shutil.copytree(heads, tmp_path_factory.mktemp("odd") / "heads"))
    for name in ("P4", "P5", "P6"):
        path = data / name / f"{name}-seg.nii.gz"
        mask, affine = np.asarray(nib.load(path).dataobj), nib.load(path).affine
        if name == "P5":
            write_nifti(path, *store_as(mask * 0.99999998, affine, "SLP"))
        else:
            write_nifti(path, mask[:, ::2], affine @ np.diag([1, 2.0, 1, 1]))
    scan = data / "P7" / "P7-t2f.nii.gz"
    scan.write_bytes(scan.read_bytes()[:3000])
    return data


@pytest.mark.fault("E")
def test_what_cannot_be_scored_is_named_and_stops_no_other(
    odd_heads: Path, heads: Path, tmp_path: Path
) -> None:
    """In a table, the page and summary.json, for every method alike; the exit status is 1."""
    command = ["compare", str(odd_heads), "-o", str(tmp_path), "--jobs", "1", "--device", "cpu"]
    command += ["--bundle", GP_UNET.name, "--method", "inherent"]
    command += [word for part in PARTS for word in ("--without", part)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert str(done.exception).startswith("2 of 3 volumes failed, the others are written:\n  P6: ")
    left_out = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["left_out"]
    assert list(left_out) == ["P6", "P7"]
    assert "52 x 31 x 12 voxels" in left_out["P6"]
    assert "cut off or damaged" in left_out["P7"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 of 3 volumes of the split &#39;test&#39;" in page
    assert "1 of 2 volumes of the split &#39;val&#39;. P4: " in page
    with (tmp_path / "compare.csv").open(encoding="utf-8") as file:
        own = [row for row in csv.DictReader(file) if row["threshold"] == "own"]
    place = Place(str(heads), str(tmp_path / "cache"), device="cpu")
    scoring = open_kept(Task("masks", Entry(GP_UNET, "inherent"), "test"), place)
    whole = scoring.get(read_cases(GP_UNET, place, "test").cases[0])
    assert {row["subject"] for row in own} == {"P5"}
    assert float(own[0]["dice"]) == pytest.approx(whole["rules"]["own"]["dice"], abs=1e-5)


@pytest.mark.fault("E")
def test_labels_that_do_not_fit_the_scan_leave_it_out(heads: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(heads, tmp_path / "heads"))
    table = data / "slice_labels.csv"
    text = re.sub("P6,11,[01]\n", "", table.read_text(encoding="utf-8"))
    table.write_text(text, encoding="utf-8")
    place = leave_out([GP_UNET], Place(str(data), str(tmp_path / "cache"), device="cpu"))
    cases = read_cases(GP_UNET, place, "test")
    assert "12 slices and 11 labels" in cases.left_out["P6"]
    assert [case.name for case in cases.cases] == ["P5", "P7"]


def test_what_one_bundle_alone_cannot_use_stays(heads: Path, tmp_path: Path) -> None:
    place = Place(str(heads), str(tmp_path), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        found = iter([{"P5": "too dark", "P6": ""}, {"P5": "", "P6": ""}])
        patch.setattr(usable, "_find_problems", lambda *_: next(found))
        assert leave_out([GP_UNET, GP_UNET], place) == place


@pytest.mark.fault("H")
@pytest.mark.parametrize(("passes", "single"), [(2, True), (50, False), (None, False)])
def test_passes_are_counted_and_not_read(
    passes: int | None, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = {method.name: method for method in registry.list_methods()}
    monkeypatch.setattr(registry, "_METHODS", registered)
    cost = f"{passes} passes"
    register("own", family="gradient", cost=cost, passes=passes, paper="none")(lambda *_: None)
    assert is_single_pass("own") == single


def test_options_that_cannot_be(heads: Path, tmp_path: Path) -> None:
    for words, message in (
        (["--without", "sleep"], "--without must be of"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--split", "val"], "must differ"),
    ):
        done = CliRunner().invoke(app, ["compare", ".", *words])
        assert message in str(done.exception)
    for shares in (["0.2", "1.5"], ["0.2", "0.2"]):
        words = [word for share in shares for word in ("--quantile", share)]
        done = CliRunner().invoke(app, ["retrain", str(heads), "-o", str(tmp_path), *words])
        assert "Quantiles must be different shares" in str(done.exception)
    done = CliRunner().invoke(app, ["retrain", str(heads), "-o", str(tmp_path), "--seeds", "0"])
    assert "--seeds must be at least 1" in str(done.exception)
    with pytest.raises(OptionError, match="method must be one of"):
        make_plan([GP_UNET], ["grad_camm"])


def test_no_prediction_is_a_dice_of_nought_and_no_outline(heads: Path, tmp_path: Path) -> None:
    """A gate that lets nothing through: empty masks, counted as such."""
    place = Place(str(heads), str(tmp_path), device="cpu")
    entry = Entry(GP_UNET, "inherent")
    cases = read_cases(GP_UNET, place, "test")
    options = {"device": "cpu", "gate_probability": 1.0}
    scores = Scoring(Explanations(entry, options, Store(tmp_path)), cases).get(cases.cases[0])
    own = scores["rules"]["own"]
    assert own["dice"] == own["iou"] == own["surface_dice"] == own["mask_size"] == 0
    assert np.isnan(own["hd95"])
    assert scores["confidence"] == 0
    assert set(scores["levels"]) == {0.0}
    assert scores["heatmap"]["energy"] == 0


def test_a_control_keeps_the_decision_and_changes_the_heatmap() -> None:
    torch.manual_seed(0)
    network = CNN(2, 1, 1, (4, 8)).eval()
    control = make_control(network, "random:3")
    assert control is not None
    volume = torch.rand(1, 1, 16, 16, 3)
    plain = HeatmapInferer(gate=False, explainer=Explainer("saliency"), check=False)
    other = show_control(plain, control)
    ours, theirs = plain(volume, network), other(volume, network)
    torch.testing.assert_close(ours["slice_probabilities"], theirs["slice_probabilities"])
    wanted = plain(volume, control)["heatmap"]
    torch.testing.assert_close(theirs["heatmap"], wanted)
    assert not torch.allclose(ours["heatmap"], wanted)


def test_networks_forget_from_the_output() -> None:
    torch.manual_seed(5)  # not the seed that they forget by
    network = CNN(2, 1, 1, (4, 8, 12)).eval()
    stages = list_stages(network)
    assert stages == ["stage1", "stage2", "stage3", "fc"]
    for depth in range(len(stages) + 1):
        control = make_control(network, f"cascade:{depth}")
        assert control is not None
        changed = [
            any(
                not torch.equal(a, b)
                for a, b in zip(
                    network.get_submodule(stage).parameters(),
                    control.get_submodule(stage).parameters(),
                    strict=True,
                )
            )
            for stage in stages
        ]
        assert changed == [False] * (4 - depth) + [True] * depth
    assert make_control(network, "") is None
    with pytest.raises(OptionError, match="random:SEED"):
        make_control(network, "shuffled")


def test_half_written_results_are_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.write("abcd", {"a": object()})
    assert not store.has("abcd")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    store.write("abcd", {"a": float("nan")})
    assert np.isnan(store.read("abcd")["a"])
    arrays = {"maps": np.ones((2, 3), np.float16), "seconds": np.array(0.5)}
    store.write("abce", arrays)
    np.testing.assert_array_equal(store.read("abce")["maps"], arrays["maps"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cache must be a folder"):
        Store(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("name", "text", "stale"),
    [
        ("first.py", '"""Other."""\n\nfrom heatmask import (\n    second\n)\n', False),
        ("first.py", "from heatmask import second\nx = 2\n", True),
        ("second.py", "from heatmask.third import y\n# more\n", True),
        ("third.py", "y = 4\n", True),
        ("other.py", "z = 5\n", False),
    ],
)
def test_code_that_is_run_decides_and_its_words_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, stale: bool
) -> None:
    """A module, and all that it imports; not its comments, docstrings and layout."""
    package = tmp_path / "heatmask"
    package.mkdir()
    monkeypatch.setattr("heatmask.experiments.store.PACKAGE", package)
    (package / "first.py").write_text('"""Doc."""\nfrom heatmask import second  # why\n')
    (package / "second.py").write_text("import heatmask.third\n")
    (package / "third.py").write_text("y = 3\n")
    (package / "other.py").write_text("z = 3\n")
    digests = []
    for _ in range(2):
        digest_code.cache_clear()
        digests.append(digest_code("heatmask.first"))
        (package / name).write_text(text)
    digest_code.cache_clear()
    assert (digests[0] != digests[1]) == stale


def test_retraining_alone(heads: Path, tmp_path: Path, small: None) -> None:
    command = ["retrain", str(heads), "-o", str(tmp_path), "--seeds", "2", "--quantile", "0.2"]
    done = CliRunner().invoke(
        app,
        [*command, "--bundle", "brain_mri_gradcam_segmentation", "--jobs", "1", "--device", "cpu"],
    )
    assert done.exit_code == 0, done.output + repr(done.exception)
    with (tmp_path / "retraining.csv").open(encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    assert names[:4] == [
        "whole image", "keep the hottest 20%", "remove the hottest 20%",
        "keep a random blob of 20%",
    ]  # fmt: skip
    assert sum("trained on the validation patients" in name for name in names) == 5
    assert (tmp_path / "retraining.png").stat().st_size > 5_000
    assert "Do dark regions contribute?" in done.output
    done = CliRunner().invoke(
        app,
        ["retrain", str(heads), "-o", str(tmp_path), "--bundle", "brain_mri_gp_unet_segmentation"],
    )
    assert "offers grad_cam" in str(done.exception)


def test_the_page_opens_on_a_phone(report: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    common = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=412,900",
        "--virtual-time-budget=2000",
    ]  # fmt: skip
    probe = tmp_path / "probe.html"
    page = (report / "report.html").read_text(encoding="utf-8")
    script = (
        "<script>addEventListener('load', () => {"
        "const broken = [...document.images].filter(i => !i.naturalWidth).length;"
        "document.title = [document.documentElement.scrollWidth <= innerWidth, broken,"
        "document.images.length, document.querySelectorAll('table').length,"
        "performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length]"
        ".join(' ');});</script></body>"
    )
    probe.write_text(page.replace("</body>", script), encoding="utf-8")
    done = subprocess.run(
        [*common, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120
    )
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    fits, broken, images, tables, fetched = title[1].split()
    assert fits == "true", "the page is wider than a phone"
    assert broken == fetched == "0"
    assert int(images) >= 6
    assert int(tables) >= 10


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads with a bright spot, three classes, two pictures a group; one has no mask."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = ["image,mask,label,split,group"]
    for number in range(24):
        image = np.zeros((96, 96), np.uint8)
        image[8:88, 16:80] = 60 + rng.integers(0, 60, (80, 64))
        mask = np.zeros_like(image)
        top, left = rng.integers(20, 60, 2)
        mask[top : top + 14, left : left + 12] = 255
        image[mask > 0] = 230
        Image.fromarray(image).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        label = ("meningioma", "glioma", "pituitary")[number % 3]
        split = ("train", "val", "test")[number // 8]
        name = "" if number == 23 else f"{number}_mask.png"
        lines.append(f"{number}.png,{name},{label},{split},g{number // 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_without_names_all_bundles_are_taken_that_fit(
    heads: Path, pictures: Path, tmp_path: Path
) -> None:
    def find(data: Path) -> set[str]:
        return {folder.name for folder in find_bundles([], Place(str(data)))}

    types = {f"brain_t1ce_tumour_type{s}_segmentation" for s in ("", "_selftrained")}
    breast = {"breast_us_lesion_segmentation"}
    assert find(pictures) == types
    every = {folder.name for folder in list_folders()}
    assert find(heads) == every - types - breast
    table = tmp_path / "labels.csv"
    table.write_text(
        "image,mask,label,split,group\na.png,,Normal,test,1\nb.png,b.png,benign,test,2\n"
    )
    assert find(tmp_path) == breast
    table.write_text(table.read_text() + "c.png,c.png,polyp,test,3\n")
    with pytest.raises(InputError, match=r"none for such data. Name a --bundle\."):
        find(tmp_path)


def test_pictures_are_scored_in_pixels_by_group(
    pictures: Path, small: None, tmp_path: Path
) -> None:
    place = Place(str(pictures), str(tmp_path / "cache"), device="cpu")
    request = Request(methods=("saliency",), jobs=1, parts=())
    comparison = compare(request, place)
    assert len(comparison.cases.left_out) == 1
    assert comparison.unit == "pixels"
    (headline,) = comparison.find_headlines()
    dice = headline.scores["dice"]
    wanted = bootstrap_clusters(lambda i: float(dice[i].mean()), comparison.cases.clusters)
    np.testing.assert_allclose(comparison.find_interval(dice), wanted)
    assert (headline.scores["reference_size"] == 14 * 12).all(), "pixels"
    (classifier,) = comparison.predictions
    assert classifier.probabilities.shape == (7, 3)
    (path, *_) = write_report(comparison, tmp_path / "out", "heatmask compare")
    sections = read(path.parent)
    (table, *_) = sections["Classification"]["tables"]
    assert "F1, glioma" in table["header"]
    assert "HD95, pixels" in sections["Masks"]["tables"][0]["header"]
    assert any("never mm" in line for line in sections["Masks"]["lines"])
    assert any("1 of 8 pictures" in line for line in sections["In short"]["lines"])
    assert "Retraining on filtered images" not in sections


def test_pictures_are_retrained_by_class(
    pictures: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without slices that show nothing; patients are groups, whose pictures are never lent."""
    data = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    table = data / "labels.csv"
    text = table.read_text(encoding="utf-8").replace("23.png,,", "23.png,22_mask.png,")
    table.write_text(text, encoding="utf-8")
    patients = []

    def spy(slices: Slices, condition: Condition, seed: int) -> torch.Tensor:
        patients.append(slices.patients.tolist())
        return filter_images(slices, condition, seed)

    monkeypatch.setattr(retraining, "filter_images", spy)
    place = Place(str(data), str(tmp_path / "cache"), device="cpu")
    outcomes = {o.name: o for o in retrain(None, place, seeds=1, quantiles=(0.1,), jobs=1).outcomes}
    whole = outcomes["whole image"]
    assert 0 <= whole.score.low <= whole.score.mean <= whole.score.high <= 1
    assert math.isnan(whole.within_deciles), "pictures have no place in a stack"
    assert "keep the reference mask, trained on the validation patients" in outcomes
    assert all(numbers == [0, 0, 1, 1, 2, 2, 3, 3] for numbers in patients)


def test_several_processes_give_the_same_numbers(report: Path, heads: Path, tmp_path: Path) -> None:
    place = Place(str(heads), str(tmp_path), device="cpu")
    request = Request(("brain_mri_gp_unet_segmentation",), jobs=2, parts=())
    dice = compare(request, place).find_headlines()[0].mean("dice")
    row = next(r for r in read_rows(report) if r["name"] == "gp_unet, own heatmap")
    assert dice == pytest.approx(float(row["dice"]), abs=1e-6)
