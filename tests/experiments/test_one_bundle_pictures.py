"""`heatmask evaluate` on pictures of two classes, through a bundle with a planted network."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.data.readers.pictures import read_picture
from heatmask.errors import InputError
from heatmask.experiments.cases import Place, read_references
from heatmask.experiments.one_bundle import evaluate_bundle
from heatmask.experiments.one_bundle_page import write_evaluation
from heatmask.experiments.results import Comparison
from heatmask.experiments.scores import UNGATED
from heatmask.experiments.simulation import simulate
from helpers.planted import PlantedClassifier

NAMES = ("dim", "bright")
LEVELS = {"dim": 150, "bright": 250}
DIM, BRIGHT = (0.5, 0.0), (1.0, -100.0)  # gain and offset: even at the grey value 200
PLANTED = {"gains": (DIM[0], BRIGHT[0]), "offsets": (DIM[1], BRIGHT[1])}
SWAPPED = {"gains": (BRIGHT[0], DIM[0]), "offsets": (BRIGHT[1], DIM[1])}
LINES = (
    # image, class in the table, class painted, group, split: the third test picture is told wrongly
    ("a/0", "dim", "dim", "1", "test"),
    ("a/1", "bright", "bright", "1", "test"),
    ("b/0", "bright", "dim", "2", "test"),
    ("b/1", "bright", "bright", "3", "test"),
    ("c/0", "dim", "dim", "4", "train"),
    ("c/1", "bright", "bright", "5", "train"),
    ("c/2", "dim", "dim", "6", "val"),
    ("c/3", "bright", "bright", "7", "val"),
)


def paint(number: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a head with a blob, and its mask: neither square nor symmetric."""
    row, column = np.indices((40, 56))
    picture = np.where(((row - 20) / 18) ** 2 + ((column - 28) / 26) ** 2 < 1, 90, 0)
    blob = (abs(row - 14) < 4) & (abs(column - 20 - 3 * number) < 6)
    return np.where(blob, level, picture + (7 * row + 3 * column) % 11).astype(np.uint8), blob


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Pictures laid out as the figshare set is; those for training have no masks."""
    root = tmp_path / "archive"
    rows = [("image", "mask", "label", "split", "group")]
    for number, (name, label, painted, group, split) in enumerate(LINES):
        picture, blob = paint(number, LEVELS[painted])
        image, mask = (root / kind / f"{name}.png" for kind in ("images", "masks"))
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(image)
        if split != "train":
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(255) * blob).save(mask)
        path = "" if split == "train" else f"masks/{name}.png"
        rows.append((f"images/{name}.png", path, label, split, group))
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root


def change_table(archive: Path, old: str, new: str) -> None:
    table = archive / "labels.csv"
    text = table.read_text(encoding="utf-8")
    assert old in text
    table.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is brighter than the head, as the class of the largest probability."""
    folder = tmp_path_factory.mktemp("bundle") / "planted_segmentation"
    config = {
        "device": "cpu",
        "weights": str(folder / "models" / "model.pt"),
        "slice_axis": 2,
        "sequences": ["T1-Gd"],
        "class_names": list(NAMES),
        "preprocessing": {
            "_target_": "heatmask.data.load.LoadSequencesd",
            "sequences": "@sequences", "min_slices": 1,
        },
        "evaluator": {
            "_target_": "heatmask.pipeline.Pipeline",
            "preprocessing": "@preprocessing",
            "network": {
                "_target_": "heatmask.parts.load_network", "options": {"weights": "@weights"},
                "network_def": {
                    "_target_": "helpers.planted.PlantedClassifier",
                    "gains": [DIM[0], BRIGHT[0]], "offsets": [DIM[1], BRIGHT[1]],
                },
            },
            "inferer": {"_target_": "heatmask.inferer.HeatmapInferer", "check": False},
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {
                        "_target_": "heatmask.transforms.HeatmapToMaskd",
                        "keys": "heatmap", "calibration": [0, 200], "threshold_rule": "fixed",
                        "threshold_level": 0.275, "min_volume_mm3": 0, "smooth_mm": 0,
                    }
                ],
            },
            "device": "@device",
        },
    }  # fmt: skip
    (folder / "models").mkdir(parents=True)
    torch.save(PlantedClassifier(**PLANTED).state_dict(), folder / "models" / "model.pt")
    for name, content in (("inference", config), ("metadata", {"network_name": "planted"})):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def run(bundle: Path, archive: Path, *weights: str, **place: Any) -> Comparison:
    return evaluate_bundle(bundle, Place(str(archive), device="cpu", **place), {}, weights)


def get(comparison: Comparison, name: str, key: str = "dice") -> list[float]:
    row = next(row for row in comparison.rows if row.name == name)
    return row.scores[key].tolist()


def test_pictures_are_scored_on_their_own_grid(bundle: Path, archive: Path, tmp_path: Path) -> None:
    found = run(bundle, archive)
    cases = found.cases.cases
    assert [case.name for case in cases] == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert found.cases.clusters == ["1", "1", "2", "3"]
    assert [NAMES[case.labels[0]] for case in cases] == ["dim", "bright", "bright", "bright"]
    assert get(found, "planted, not snapped") == [1, 1, 1, 1]
    assert get(found, "planted, not snapped, right class only") == [1, 1, 0, 1]
    assert get(found, "planted", "reference_size") == [77] * 4
    assert found.predictions[0].class_scores.confusion.tolist() == [[1, 0], [1, 2]]
    assert found.notes == [
        "Groups are guessed from images that look alike and approximate patients."
    ]
    write_evaluation(found, tmp_path / "scores")
    written = {path.name for path in (tmp_path / "scores").iterdir()}
    assert written == {"per_picture.csv", "summary.json", "evaluation.md", "evaluation.png"}


def test_another_split_may_be_scored(bundle: Path, archive: Path) -> None:
    cases = run(bundle, archive, split="val").cases.cases
    assert [case.name for case in cases] == ["2.png", "3.png"]


def test_the_mean_of_networks_is_the_mean_picture_by_picture(
    bundle: Path, archive: Path, tmp_path: Path
) -> None:
    torch.save(PlantedClassifier(**SWAPPED).state_dict(), tmp_path / "swapped.pt")
    found = run(bundle, archive, str(tmp_path / "swapped.pt"))
    right = "not snapped, right class only"
    assert get(found, f"planted, {right}") == [1, 1, 0, 1]
    assert get(found, f"planted, network 2, {right}") == [0, 0, 1, 0]
    assert get(found, f"planted, mean of 2 networks, {right}") == [0.5] * 4
    assert [row.name for row in found.rows][:6] == [
        "planted, mean of 2 networks",
        "planted, mean of 2 networks, right class only",
        "planted, mean of 2 networks, not snapped",
        f"planted, mean of 2 networks, {right}",
        "planted",
        "planted, right class only",
    ]
    assert found.notes[1].startswith("planted: macro F1 0.733, accuracy 0.750")
    assert "network 2: macro F1 0.200, accuracy 0.250" in found.notes[2]
    assert found.predictions[0].class_scores.accuracy.mean == 0.75


def test_references_come_from_the_table(archive: Path, tmp_path: Path) -> None:
    references = read_references(Place(str(archive)))
    assert len(references) == 6
    path = references[archive / "images/a/1.png"]
    assert path == archive / "masks/a/1.png"
    np.testing.assert_array_equal(read_picture(path)[0][..., 0] > 0, paint(1, 0)[1].T)
    table = tmp_path / "labels.csv"
    table.write_text("image,label\na.png,a\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no column mask"):
        read_references(Place(str(archive), labels=str(table)))


@pytest.mark.fault("E")
def test_what_cannot_be_scored_is_named_and_stops_no_other(
    bundle: Path, archive: Path, tmp_path: Path
) -> None:
    (archive / "masks/a/1.png").unlink()
    (archive / "images/a/0.png").write_bytes(b"")
    change_table(archive, "images/b/0.png,masks/b/0.png", "images/b/0.png,")
    words = ["--bundle", str(bundle), "-o", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, ["evaluate", str(archive), *words])
    assert done.exit_code == 1
    assert str(done.exception).startswith("3 of 4 pictures failed, the others are written:")
    left_out = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["left_out"]
    assert sorted(left_out) == ["a/0.png", "a/1.png", "b/0.png"]
    assert "cannot be read" in left_out["a/0.png"]
    assert "no scan at" in left_out["a/1.png"]
    assert left_out["b/0.png"] == "It has no reference mask in the table."
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "Left out: 3 of 4 pictures. " in text


@pytest.mark.parametrize("split", ["train", "other"])
def test_where_nothing_can_be_scored_it_is_refused(bundle: Path, archive: Path, split: str) -> None:
    with pytest.raises(InputError, match=f"of the split '{split}' must have a reference mask"):
        run(bundle, archive, split=split)


SEGMENT = {"class_names": list(NAMES), "segment": "lesion"}


@pytest.fixture
def finder(bundle: Path, tmp_path: Path) -> Path:
    """One segment for both classes: what is brighter than the head, where its logit is above 0."""
    folder = shutil.copytree(bundle, tmp_path / "finder_segmentation")
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["class_names"] = ["lesion"]
    planted = {"gains": [1.0], "offsets": [-120.0]}
    config["evaluator"]["network"]["network_def"] |= planted
    config["weights"] = str(folder / "models" / "model.pt")
    torch.save(PlantedClassifier(**planted).state_dict(), config["weights"])
    masker = config["evaluator"]["postprocessing"]["transforms"][0]
    masker |= {"calibration": [-60, 200], "threshold_rule": "otsu"}
    path.write_text(json.dumps(config), encoding="utf-8")
    path.with_name("train.json").write_text(json.dumps(SEGMENT), encoding="utf-8")
    return folder


@pytest.fixture
def mixed(archive: Path) -> Path:
    """The archive with three test pictures of a head alone, one of them with something bright."""
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        for number, level in enumerate((90, 90, 250)):
            picture, _ = paint(number, level)
            Image.fromarray(picture).save(archive / f"images/n{number}.png")
            table.write(f"images/n{number}.png,,normal,test,{20 + number}\n")
        for split in ("train", "val"):
            shutil.copyfile(archive / "images/n0.png", archive / f"images/{split}.png")
            table.write(f"images/{split}.png,,normal,{split},{split}\n")
    return archive


def test_pictures_with_a_finding_and_without_are_told_apart(
    finder: Path, mixed: Path, tmp_path: Path
) -> None:
    found = run(finder, mixed)
    assert [case.labels for case in found.cases.cases] == [(1,)] * 4 + [(0,)] * 3
    assert found.cases.findings.tolist() == [True] * 4 + [False] * 3
    gated, ungated = (
        next(row for row in found.rows if row.name == name)
        for name in ("planted", f"planted, {UNGATED}")
    )
    # What the head alone shows has no Dice, whatever is masked there.
    assert np.isnan(gated.dice).tolist() == [False] * 4 + [True] * 3
    assert (found.count_missed(gated), found.count_false(gated)) == (0, 1)
    assert found.count_false(ungated) == 3
    assert found.find_dice(gated).mean == pytest.approx(np.mean(gated.dice[:4]))
    write_evaluation(found, tmp_path / "scores")
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["pictures"]["none"], summary["pictures"]["lesion"]) == (3, 4)
    assert summary["pictures"]["auroc"] == pytest.approx((4 * 2 + 4 / 2) / 12)
    own = summary["methods"][0]
    assert (own["n_counted"], own["found_without_mask"], own["masked_without_finding"]) == (4, 0, 1)
    text = (tmp_path / "scores" / "evaluation.md").read_text(encoding="utf-8")
    assert "| without mask, of 4 | masked, of 3 without lesion |" in text
    with (tmp_path / "scores" / "per_picture.csv").open(encoding="utf-8") as file:
        last = next(row for row in csv.DictReader(file) if row["picture"] == "n2.png")
    assert (last["lesion"], last["dice"]) == ("0", "")
    assert float(last["probability"]) > 0.5


def test_a_finding_without_mask_is_counted(finder: Path, mixed: Path) -> None:
    picture, _ = paint(0, 90)
    Image.fromarray(picture).save(mixed / "images/a/0.png")
    found = run(finder, mixed)
    missed, ungated = found.rows[0], found.rows[2]
    assert ungated.name == f"planted, {UNGATED}"
    assert (found.count_missed(missed), missed.dice[0]) == (1, 0)


def test_the_table_may_call_a_finding_by_the_segment(finder: Path, mixed: Path) -> None:
    table = mixed / "labels.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(",dim,", ",lesion,").replace(",bright,", ",lesion,"), "utf-8")
    assert run(finder, mixed).cases.findings.sum() == 4
    table.write_text(text.replace(",dim,", ",cyst,"), "utf-8")
    with pytest.raises(InputError, match="label 'cyst' is none of bright"):
        run(finder, mixed)


@pytest.mark.fault("E")
def test_a_mask_that_contradicts_its_label_is_left_out(finder: Path, mixed: Path) -> None:
    change_table(mixed, "images/n0.png,", "images/n0.png,masks/a/0.png")
    left_out = run(finder, mixed).cases.left_out
    assert list(left_out) == ["n0.png"]
    assert "By its label it shows nothing" in left_out["n0.png"]


def test_a_simulated_user_corrects_what_shows_something(
    finder: Path, mixed: Path, tmp_path: Path
) -> None:
    place = Place(str(mixed), str(tmp_path / "cache"), device="cpu")
    cases, courses = simulate(finder, place, {}, 1)
    assert [case.name for case in cases.cases] == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert {course.case for course in courses} == {case.name for case in cases.cases}
    assert not cases.left_out


def test_a_picture_without_a_class_is_left_out(bundle: Path, archive: Path) -> None:
    change_table(archive, "masks/b/0.png,bright", "masks/b/0.png,none")
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        for number, split in enumerate(("train", "val")):
            shutil.copyfile(archive / "images/c/0.png", archive / f"images/c/healthy{number}.png")
            table.write(f"images/c/healthy{number}.png,,none,{split},{8 + number}\n")
    found = run(bundle, archive).cases
    assert len(found.cases) == 3
    assert "must show one of dim, bright" in found.left_out["b/0.png"]


@pytest.mark.fault("E")
def test_a_reference_of_another_size_is_left_out(bundle: Path, archive: Path) -> None:
    Image.fromarray(paint(0, 150)[0][1:]).save(archive / "masks/b/0.png")
    left_out = run(bundle, archive).cases.left_out
    assert list(left_out) == ["b/0.png"]
    assert "(56, 40, 1) against (56, 39, 1)" in left_out["b/0.png"]


def test_the_command_prints_what_it_wrote(bundle: Path, archive: Path, tmp_path: Path) -> None:
    words = ["--bundle", str(bundle), "-o", str(tmp_path / "scores")]
    done = CliRunner().invoke(app, ["evaluate", str(archive), *words])
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    assert "Classes predicted by planted: macro F1 0.733" in printed
    assert "evaluation.md, evaluation.png, per_picture.csv" in printed
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text(encoding="utf-8"))
    assert summary["n_pictures"] == 4
