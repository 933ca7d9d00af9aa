"""Where bundles are found, which comes first, and what the user is told."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heatmask.bundle import choose_bundle, find_bundle, find_shipped, list_bundles, order_bundles
from heatmask.bundle.evidence import Evidence, read_evidence
from heatmask.cli import app
from heatmask.errors import InputError
from helpers.project import PROJECT

SHUFFLE = "brain_mri_gp_shuffle_unet_segmentation"
RELEVANCE = "brain_mri_relevance3d_segmentation"
TYPES = "brain_t1ce_tumour_type_segmentation"
SHIPPED = PROJECT / "bundles"


def write_bundle(place: Path, name: str, sequences=("FLAIR",), **metrics: object) -> Path:
    """The configs of a bundle, as far as they say what it is for."""
    configs = place / name / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.json").write_text(json.dumps({"sequences": sequences}), "utf-8")
    (configs / "metadata.json").write_text(json.dumps({"eval_metrics": metrics}), "utf-8")
    return place / name


def make_scans(folder: Path, *names: str) -> Path:
    """Empty files: what a scan is, its name says."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without bundles, and none named."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("HEATMASK_BUNDLES", raising=False)


def test_shipped_bundles_and_app_are_those_of_the_checkout():
    assert find_shipped("bundles") == SHIPPED
    assert (find_shipped("apps/heatmask") / "main.py").is_file()
    assert find_bundle(TYPES) == SHIPPED / TYPES


def test_own_bundles_come_before_the_shipped_ones(tmp_path, monkeypatch):
    here = write_bundle(tmp_path / "cwd" / "bundles", TYPES)
    assert find_bundle(TYPES) == here
    named = write_bundle(tmp_path / "named", TYPES)
    other = write_bundle(tmp_path / "other", "mine_segmentation")
    places = os.pathsep.join([str(tmp_path / "named"), str(tmp_path / "other")])
    monkeypatch.setenv("HEATMASK_BUNDLES", places)
    assert find_bundle(TYPES) == named
    assert find_bundle("mine_segmentation") == other
    assert find_bundle(SHUFFLE) == SHIPPED / SHUFFLE
    assert find_bundle(here) == here


def test_a_place_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("HEATMASK_BUNDLES", "/nowhere")
    with pytest.raises(InputError, match=r"HEATMASK_BUNDLES must name folders.*'/nowhere'"):
        find_bundle(SHUFFLE)


def test_evidence_is_read_from_the_metrics():
    metrics = {
        "mean_dice_t2f": 0.5,
        "mean_dice_both": 0.75,
        "mean_slice_dice_t1c": 0.25,
        "slice_auroc_t2f": 0.9,
        "mean_dice_by_class": {"tumour": 0.3},
        "protocol": "text",
    }
    assert read_evidence(metrics, ["FLAIR", "T1-Gd"]) == (
        Evidence(frozenset({"FLAIR", "T1-Gd"}), 0.75),
        Evidence(frozenset({"FLAIR"}), 0.5),
        Evidence(frozenset({"T1-Gd"}), 0.25, single_slices=True),
    )
    assert read_evidence({"mean_dice": 0.5}, ["unknown"]) == (
        Evidence(frozenset({"unknown"}), 0.5),
    )


def test_the_best_bundle_is_the_first(tmp_path):
    write_bundle(tmp_path, "a_without")
    write_bundle(tmp_path, "b_flair", mean_dice_t2f=0.5)
    write_bundle(tmp_path, "c_both", ["FLAIR", "T1-Gd"], mean_dice_t2f=0.4, mean_dice_both=0.6)
    write_bundle(tmp_path, "d_t2", ["T2"], mean_dice=0.2)
    found = list_bundles([tmp_path])
    assert [b.name[0] for b in found] == ["c", "b", "d", "a"]
    assert [b.name[0] for b in order_bundles(found, ["FLAIR"])] == ["b", "c", "d", "a"]
    assert [b.name[0] for b in order_bundles(found, ["FLAIR", "T1-Gd"])] == ["c", "b", "d", "a"]
    assert [b.name[0] for b in order_bundles(found, ["T2"])] == ["d", "c", "b", "a"]


def test_of_bundles_about_as_good_the_one_for_more_sequences_is_first(tmp_path):
    write_bundle(tmp_path, "a_flair", mean_dice_t2f=0.82)
    write_bundle(tmp_path, "b_both", ["FLAIR", "T1-Gd"], mean_dice_t2f=0.81)
    write_bundle(tmp_path, "c_both", ["FLAIR", "T1-Gd"], mean_dice_t2f=0.84)
    write_bundle(tmp_path, "d_better", mean_dice_t2f=0.92)
    found = [b.name[0] for b in order_bundles(list_bundles([tmp_path]), ["FLAIR"])]
    assert found == ["d", "c", "b", "a"]


def test_a_bundle_that_cannot_be_read_is_left_out_and_said(tmp_path, caplog):
    write_bundle(tmp_path, "good")
    bad = write_bundle(tmp_path, "bad")
    (bad / "configs" / "metadata.json").write_text("{", encoding="utf-8")
    write_bundle(tmp_path, "worse", ["FLARE"])
    assert [bundle.name for bundle in list_bundles([tmp_path])] == ["good"]
    assert "bad" in caplog.text
    assert "worse" in caplog.text


@pytest.mark.parametrize(
    ("names", "bundle", "words"),
    [
        (["p1_flair.nii.gz"], SHUFFLE, "Dice 0.81 on FLAIR"),
        (["p1_t1ce.nii.gz"], TYPES, "Dice 0.29 on single slices of T1-Gd. Expect a poor mask."),
        (["p1_t1ce.nii.gz", "p1_flair.nii.gz"], RELEVANCE, "Dice 0.80 on FLAIR and T1-Gd"),
        (["p1-t1n.nii", "p1-t1c.nii", "p1-t2w.nii", "p1-t2f.nii"], RELEVANCE, "FLAIR and T1-Gd"),
        (["p1_t2.nii.gz"], SHUFFLE, "None was measured on T2: the mask may mean nothing."),
        (["scan.nii.gz"], SHUFFLE, "Nothing says which sequence the scan is."),
        (["a/flair.nii", "b/flair.nii", "c/t1_gd.nii", "d/t2.nii"], SHUFFLE, "2 of 3 heads"),
        (["a/t1_gd.nii", "b/t1_gd.nii", "b/flair.nii"], RELEVANCE, "1 of 2 heads are such"),
    ],
)
def test_the_choice_for_scans(tmp_path, names, bundle, words):
    choice = choose_bundle(make_scans(tmp_path / "scans", *names))
    assert choice.bundle.name == bundle
    assert choice.reason.startswith(f"{bundle}, the best of those here")
    assert words in choice.reason


def test_own_bundles_count_by_their_metrics(tmp_path):
    write_bundle(tmp_path / "cwd" / "bundles", "mine", ["T2"], mean_dice=0.9)
    scans = make_scans(tmp_path / "scans", "p1_t2.nii.gz")
    assert choose_bundle(scans / "p1_t2.nii.gz").bundle.name == "mine"
    assert choose_bundle(make_scans(tmp_path / "b", "p1_flair.nii")).bundle.name == SHUFFLE


def test_bundles_are_listed(tmp_path):
    write_bundle(tmp_path / "cwd" / "bundles", "mine_segmentation")
    done = CliRunner().invoke(app, ["bundles"], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.exception
    assert f"In {SHIPPED}:" in done.output
    assert f"In {tmp_path / 'cwd' / 'bundles'}:" in done.output
    assert done.output.index(SHUFFLE) < done.output.index(TYPES)
    assert "Dice 0.81 on FLAIR, 0.71 on FLAIR and T1-Gd" in done.output
    assert "(16 LGG test patients)" in done.output
    assert "Weights: CC BY-NC-SA 4.0." in done.output
    assert "Dice: not measured." in done.output


def test_where_a_bundle_lies():
    done = CliRunner().invoke(app, ["bundles", "--where", TYPES])
    assert done.output.strip() == str(SHIPPED / TYPES)
