"""Pictures of two classes against reference masks, through a real chain with a planted network."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.data.label_table import read_label_table, read_references
from heatmask.data.load import LoadSequencesd
from heatmask.data.readers.pictures import read_picture
from heatmask.errors import HeatmaskError, InputError
from heatmask.inferer import HeatmapInferer
from heatmask.picture_scoring import PictureScorer
from heatmask.pipeline import Pipeline
from helpers.planted import PlantedClassifier

NAMES = ("dim", "bright")
LEVELS = {"dim": 150, "bright": 250}
DIM, BRIGHT = (0.5, 0.0), (1.0, -100.0)  # gain and offset: even at the grey value 200
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
        told = "" if split == "train" else f"masks/{name}.png"
        rows.append((f"images/{name}.png", told, label, split, group))
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root


def keep_class(data: dict) -> dict:
    """Mark what is brighter than the head, as the class of the largest probability."""
    label = int(data["probabilities"].argmax()) + 1
    mask = (data["scan"] > 100).to(torch.uint8) * label
    return {**data, "display": data["heatmap"], "mask": mask}


def keep_half(data: dict) -> dict:
    """Mark the left half of it, as the picture is looked at."""
    mask = data["mask"].clone()
    mask[:, torch.nonzero(mask)[:, 1].float().mean().ceil().int() :] = 0
    return {**data, "mask": mask}


def make_network(swapped: bool = False) -> PlantedClassifier:
    gains, offsets = zip(*((BRIGHT, DIM) if swapped else (DIM, BRIGHT)), strict=True)
    return PlantedClassifier(gains, offsets)


def make_pipeline() -> Pipeline:
    return Pipeline(
        LoadSequencesd(sequences=["T1-Gd"], min_slices=1),
        make_network(),
        HeatmapInferer(check=False),
        keep_class,
        device="cpu",
    )


def make_scorer(archive: Path, **changes: object) -> PictureScorer:
    table = read_label_table(archive / "labels.csv", archive, NAMES, patient_column="group")
    references = read_references(archive / "labels.csv", archive)
    options = {"variants": {"left half": keep_half}, "notes": ["Painted."], **changes}
    return PictureScorer(make_pipeline(), "planted", table, references, **options)


def test_pictures_are_scored_on_their_own_grid(archive, tmp_path):
    evaluation = make_scorer(archive).run(tmp_path / "scores")
    assert evaluation.pictures == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert evaluation.groups == ["1", "1", "2", "3"]
    assert [NAMES[k] for k in evaluation.class_idx] == ["dim", "bright", "bright", "bright"]
    assert evaluation.column("planted").tolist() == [1, 1, 1, 1]
    assert evaluation.column("planted, right class only").tolist() == [1, 1, 0, 1]
    assert evaluation.column("planted", "reference_pixels").tolist() == [77] * 4
    half = evaluation.column("planted, left half")
    assert half == pytest.approx([2 * 35 / (35 + 77)] * 4)  # 5 of 11 columns
    assert evaluation.classes.confusion.tolist() == [[1, 0], [1, 2]]
    assert evaluation.notes == ("Painted.",)
    written = {path.name for path in (tmp_path / "scores").iterdir()}
    assert written == {"per_picture.csv", "summary.json", "evaluation.md", "evaluation.png"}


def test_another_split_may_be_scored(archive, tmp_path):
    assert make_scorer(archive, split="val").run(tmp_path).pictures == ["2.png", "3.png"]


def test_the_mean_of_networks_is_the_mean_picture_by_picture(archive, tmp_path):
    torch.save(make_network(swapped=True).state_dict(), tmp_path / "swapped.pt")
    scorer = make_scorer(archive, variants={}, further_weights=[str(tmp_path / "swapped.pt")])
    evaluation = scorer.run(tmp_path / "scores")
    right = "right class only"
    one, two = (evaluation.column(f"planted{n}, {right}") for n in ("", ", network 2"))
    assert (one.tolist(), two.tolist()) == ([1, 1, 0, 1], [0, 0, 1, 0])
    mean = evaluation.column(f"planted, mean of 2 networks, {right}")
    assert mean.tolist() == [0.5] * 4
    assert [m.name for m in evaluation.methods][:4] == [
        "planted, mean of 2 networks",
        f"planted, mean of 2 networks, {right}",
        "planted",
        f"planted, {right}",
    ]
    assert evaluation.notes[1].startswith("planted: macro F1 0.733, accuracy 0.750")
    assert "network 2: macro F1 0.200, accuracy 0.250" in evaluation.notes[2]
    assert evaluation.classes.accuracy.mean == 0.75


def test_references_come_from_the_table(archive):
    references = read_references(archive / "labels.csv", archive)
    assert len(references) == 6
    path = references[archive / "images/a/1.png"]
    assert path == archive / "masks/a/1.png"
    np.testing.assert_array_equal(read_picture(path)[0][..., 0] > 0, paint(1, 0)[1].T)
    with pytest.raises(InputError, match="columns image and truth; truth is missing"):
        read_references(archive / "labels.csv", archive, "truth")


@pytest.mark.fault("E")
def test_what_cannot_be_scored_is_named_and_stops_no_other(archive, tmp_path):
    (archive / "masks/a/1.png").unlink()
    (archive / "images/a/0.png").write_bytes(b"")
    scorer = make_scorer(archive)
    del scorer.references[archive / "images/b/0.png"]
    evaluation = scorer.score(tmp_path / "scores")
    assert evaluation.pictures == ["b/1.png"]
    summary = json.loads((tmp_path / "scores/summary.json").read_text(encoding="utf-8"))
    assert summary["left_out"] == evaluation.left_out
    assert "cannot be read" in evaluation.left_out["a/0.png"]
    assert "no scan at" in evaluation.left_out["a/1.png"]
    assert evaluation.left_out["b/0.png"] == "It has no reference mask in the table."
    text = (tmp_path / "scores/evaluation.md").read_text(encoding="utf-8")
    assert "Left out: 3 of 4 pictures. a/0.png: " in text
    with pytest.raises(HeatmaskError, match=r"(?s)3 of 4 pictures failed.*a/1\.png: .*b/0\.png: "):
        scorer.run(tmp_path / "scores")


def test_where_nothing_can_be_scored_nothing_is_written(archive, tmp_path):
    with pytest.raises(InputError, match=r"Nothing could be scored:\n  0\.png: It has"):
        make_scorer(archive, split="train").run(tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_picture_without_a_class_is_left_out(archive, tmp_path):
    scorer = make_scorer(archive)
    healthy = archive / "images/b/0.png"
    rows = (replace(r, label=0) if r.path == healthy else r for r in scorer.table.rows)
    scorer.table = replace(scorer.table, rows=tuple(rows))
    evaluation = scorer.score(tmp_path)
    assert len(evaluation.pictures) == 3
    assert "must show one of dim, bright" in evaluation.left_out["b/0.png"]


def test_a_split_without_pictures_is_refused(archive, tmp_path):
    with pytest.raises(InputError, match="'other' must have pictures"):
        make_scorer(archive, split="other").run(tmp_path)


def test_a_reference_of_another_size_is_left_out(archive, tmp_path):
    Image.fromarray(paint(0, 150)[0][1:]).save(archive / "masks/b/0.png")
    left_out = make_scorer(archive).score(tmp_path / "scores").left_out
    assert list(left_out) == ["b/0.png"]
    assert "(56, 40, 1) against (56, 39, 1)" in left_out["b/0.png"]


def test_the_command_prints_what_it_wrote(archive, tmp_path):
    """The entries of a bundle's configs that `heatmask evaluate` needs for pictures."""
    configs = {
        "inference": {
            "output_dir": "output",
            "device": "auto",
            "class_names": ["dim", "bright"],
            "evaluator": {"_target_": "test_picture_scoring.make_pipeline"},
        },
        "evaluate": {
            "imports": ["$from heatmask.data.label_table import read_references"],
            "dataset_dir": None,
            "split": "test",
            "output_dir": "evaluation",
            "further_weights": [],
            "labels": "$str(@dataset_dir) + '/labels.csv'",
            "table": {
                "_target_": "heatmask.data.label_table.read_label_table",
                "labels": "@labels",
                "images": "@dataset_dir",
                "classes": "@class_names",
                "patient_column": "group",
            },
            "scorer": {
                "_target_": "heatmask.picture_scoring.PictureScorer",
                "segmenter": "@evaluator",
                "name": "planted",
                "table": "@table",
                "references": "$read_references(@labels, @dataset_dir)",
                "split": "@split",
                "further_weights": "@further_weights",
            },
            "run": ["$@scorer.run(@output_dir)"],
        },
    }
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    for name, config in configs.items():
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    output = tmp_path / "scores"
    done = CliRunner().invoke(
        app, ["evaluate", str(archive), "--bundle", str(bundle), "-o", str(output)]
    )
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "Classes told by planted: macro F1 0.733" in words
    assert "evaluation.md, evaluation.png, per_picture.csv" in words
    assert json.loads((output / "summary.json").read_text())["n_pictures"] == 4
