"""Scores of single pictures of several classes, and their report."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from scipy import ndimage
from sklearn import metrics

from heatmask.errors import InputError
from heatmask.evaluation.baselines import FLOORS
from heatmask.evaluation.multiclass import score_classes
from heatmask.evaluation.picture_figure import draw_pictures
from heatmask.evaluation.picture_report import (
    format_csv,
    format_json,
    format_markdown,
    write_pictures,
)
from heatmask.evaluation.pictures import (
    RIGHT_CLASS,
    Picture,
    evaluate_pictures,
    name_right_class,
)
from heatmask.evaluation.table import Method

NAMES = ("meningioma", "glioma", "pituitary tumour")
SHAPE = (40, 48, 1)
METHODS = [Method("good"), Method("tuned", rule="b", label_free=False)]
TWINS = [name_right_class(method.name) for method in METHODS]


def make_picture(number: int, predicted: int | None = None, group: str | None = None) -> Picture:
    """A noisy head with a bright box; "good" finds three quarters of it or more, "tuned" half.

    The true class is the number modulo 3. The masks name the predicted class; without any
    given, every fourth picture is told wrongly.
    """
    rng = np.random.default_rng(number)
    x, y, _ = np.indices(SHAPE)
    image = np.where(((x - 20) / 18) ** 2 + ((y - 24) / 21) ** 2 < 1, 100.0, 0.0)
    image += rng.normal(0, 8, SHAPE)
    reference = np.zeros(SHAPE, np.uint8)
    reference[10 + number : 18 + number, 15:23] = 255
    image[reference > 0] += 40
    class_idx = number % 3
    if predicted is None:
        predicted = (class_idx + (number % 4 == 3)) % 3
    good, tuned = ((reference > 0) * np.uint8(predicted + 1) for _ in range(2))
    good[:, 15 : 15 + number % 3], tuned[:, 15:19] = 0, 0
    probabilities = np.full(3, 0.1 + 0.01 * number)
    probabilities[predicted] = 1 - probabilities.sum() + probabilities[0]
    return Picture(
        f"{number}.png",
        f"G{number // 2}" if group is None else group,
        image,
        {"good": good, "tuned": tuned},
        reference,
        class_idx,
        {"good": probabilities, "tuned": probabilities},
    )


PICTURES = [make_picture(number) for number in range(9)]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_pictures(PICTURES, METHODS, NAMES, ["A group is a guess."])


def get_row(evaluation, name):
    return next(row for row in evaluation.rows if row.method.name == name)


def test_dice_and_iou_are_monais(evaluation):
    found, true = (
        torch.stack([torch.from_numpy(m[None, ..., 0] > 0) for m in masks])
        for masks in ([p.masks["good"] for p in PICTURES], [p.reference for p in PICTURES])
    )
    dice = compute_dice(found, true).numpy()[:, 0]
    np.testing.assert_allclose(evaluation.column("good"), dice, rtol=1e-6)
    iou = compute_iou(found, true).numpy()[:, 0]
    np.testing.assert_allclose(evaluation.column("good", "iou"), iou, rtol=1e-6)
    row = get_row(evaluation, "good")
    assert row.dice.mean == pytest.approx(dice.mean())
    assert row.median_dice == pytest.approx(np.median(dice))
    assert row.mean_iou == pytest.approx(iou.mean())
    by_class = [dice[k::3].mean() for k in range(3)]
    assert evaluation.find_class_dice("good") == pytest.approx(by_class)
    assert len(set(np.round(by_class, 6))) == 3


def test_pixels_are_counted(evaluation):
    assert set(evaluation.column("good", "reference_pixels")) == {64.0}
    assert evaluation.column("good", "mask_pixels")[:3].tolist() == [64, 56, 48]


def test_classes_are_scored_as_by_sklearn(evaluation):
    true = [p.class_idx for p in PICTURES]
    said = [int(p.probabilities["good"].argmax()) for p in PICTURES]
    assert true != said
    scores = evaluation.classes
    assert scores.macro_f1.mean == pytest.approx(metrics.f1_score(true, said, average="macro"))
    np.testing.assert_allclose(scores.f1, metrics.f1_score(true, said, average=None))
    assert scores.accuracy.mean == metrics.accuracy_score(true, said) == pytest.approx(7 / 9)
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(true, said))
    assert scores.confusion[0, 1] == 1  # picture 3: a meningioma called a glioma
    assert scores.commonest == pytest.approx(1 / 3)
    assert scores.macro_f1.low < scores.macro_f1.mean < scores.macro_f1.high
    assert scores.accuracy.low < scores.accuracy.mean < scores.accuracy.high


def test_calibration_error_is_of_the_largest_probability():
    told = [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.2, 0.6, 0.2], [0.3, 0.1, 0.6]]
    scores = score_classes([0, 1, 1, 2], told, list("abcd"))
    assert scores.ece == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0))


def test_a_class_that_nowhere_occurs_is_left_out_of_the_mean():
    told = np.eye(3)[[0, 1, 1]]
    scores = score_classes([0, 1, 0], told, list("abc"))
    assert np.isnan(scores.f1[2])
    assert scores.macro_f1.mean == pytest.approx(2 / 3)


def test_where_the_wrong_class_is_told_the_twin_counts_nothing(evaluation):
    right = np.array([p.probabilities["good"].argmax() == p.class_idx for p in PICTURES])
    for method, twin in zip(METHODS, TWINS, strict=True):
        dice, both = evaluation.column(method.name), evaluation.column(twin)
        np.testing.assert_array_equal(both, np.where(right, dice, 0))
        assert (dice > 0).all()
        assert (evaluation.column(twin, "mask_pixels")[~right] == 0).all()
        assert get_row(evaluation, twin).n_counted == len(PICTURES)
    assert get_row(evaluation, TWINS[1]).method.rule == "b"


def test_whether_a_class_is_right_is_asked_of_the_methods_own_network():
    pictures = [make_picture(n, predicted=n % 3) for n in range(3)]
    wrong = np.roll(np.eye(3), 1, axis=0)
    told = [{"good": np.eye(3)[n], "tuned": wrong[n]} for n in range(3)]
    pairs = zip(pictures, told, strict=True)
    result = evaluate_pictures([replace(p, probabilities=t) for p, t in pairs], METHODS, NAMES)
    assert (result.column(TWINS[0]) > 0.8).all()
    assert (result.column(TWINS[1]) == 0).all()
    assert result.classes.accuracy.mean == 1
    assert result.score_classes("tuned").accuracy.mean == 0


def test_empty_masks_follow_the_rule():
    first, second, _, wrongly_told = PICTURES[:4]
    nothing = {name: np.zeros(SHAPE, np.uint8) for name in first.masks}
    pictures = [
        first,
        replace(second, masks=nothing),
        replace(wrongly_told, masks=nothing, reference=np.zeros(SHAPE, np.uint8)),
    ]
    result = evaluate_pictures(pictures, METHODS, NAMES)
    for name in ("good", TWINS[0]):
        np.testing.assert_array_equal(result.column(name), [1, 0, np.nan])
        assert get_row(result, name).n_counted == 2
        assert get_row(result, name).dice.mean == pytest.approx(0.5)
    assert "3.png,G1,meningioma,glioma,good,a,True,,,0,0\n" in format_csv(result)


def test_floors_stand_beside_the_methods(evaluation):
    names = ["good", TWINS[0], "tuned", TWINS[1], *FLOORS]
    assert [m.name for m in evaluation.methods] == names
    assert [m.rule for m in evaluation.methods] == list("aabbaaaacc")
    assert evaluation.best_floor.label_free
    assert get_row(evaluation, evaluation.best_floor.name).difference is None
    best = next(m for m in evaluation.methods if m.name == "best threshold")
    assert best.level in FLOORS[best.name].levels
    difference = evaluation.column("good") - evaluation.column(evaluation.best_floor.name)
    found = get_row(evaluation, "good").difference
    assert found.mean == pytest.approx(difference.mean())
    assert found.low <= found.mean <= found.high


def test_the_scalp_is_a_share_of_the_picture():
    """The same head in eight times as many pixels, with a bright skin that is to be left out."""

    def enlarge(array):
        return array.repeat(8, axis=0).repeat(8, axis=1)

    small = PICTURES[1]
    head = small.image > 50
    skin = head & ~ndimage.binary_erosion(head[..., 0])[..., None]
    small = replace(small, image=np.where(skin, 200.0, small.image))
    large = replace(
        small,
        image=enlarge(small.image),
        reference=enlarge(small.reference),
        masks={name: enlarge(mask) for name, mask in small.masks.items()},
    )
    for picture in (small, large):
        dice = evaluate_pictures([picture], METHODS, NAMES).column("90th percentile in the head")
        assert dice == pytest.approx([0.78], abs=0.08)


def test_copies_within_a_group_do_not_narrow_the_interval(evaluation):
    copies = [
        replace(p, name=f"{copy}/{p.name}", group=p.group) for p in PICTURES for copy in range(3)
    ]
    result = evaluate_pictures(copies, METHODS, NAMES)
    for name in ("good", TWINS[0]):
        once, often = (get_row(e, name).dice for e in (evaluation, result))
        assert often == pytest.approx(once)
    assert result.classes.macro_f1 == pytest.approx(evaluation.classes.macro_f1)


def test_one_group_has_no_interval():
    result = evaluate_pictures([replace(p, group="G") for p in PICTURES], METHODS, NAMES)
    row = get_row(result, "good")
    for interval in (row.dice, row.difference, result.classes.macro_f1, result.classes.accuracy):
        assert not np.isnan(interval.mean)
        assert np.isnan(interval[1:]).all()
    assert json.loads(format_json(result))["methods"][0]["mean_dice"]["low"] is None
    draw_pictures(result)


def test_the_order_of_pictures_changes_nothing(evaluation):
    order = np.random.default_rng(0).permutation(len(PICTURES))
    result = evaluate_pictures([PICTURES[i] for i in order], METHODS, NAMES)
    assert [m.name for m in result.methods] == [m.name for m in evaluation.methods]
    for mine, other in zip(result.rows, evaluation.rows, strict=True):
        assert mine.method == other.method
        assert mine.dice == pytest.approx(other.dice)
        assert mine.difference == pytest.approx(other.difference)
        name = mine.method.name
        assert result.find_class_dice(name) == pytest.approx(evaluation.find_class_dice(name))
    assert result.classes.macro_f1 == pytest.approx(evaluation.classes.macro_f1)
    assert result.classes.ece == pytest.approx(evaluation.classes.ece)


def test_markdown_tables_are_rectangular_and_say_what_counts(evaluation):
    text = format_markdown(evaluation)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    methods, classes = lines[: 2 + len(evaluation.rows)], lines[2 + len(evaluation.rows) :]
    assert len({line.count("|") for line in methods}) == 1
    assert len(classes) == 2 + len(NAMES)
    assert len({line.count("|") for line in classes}) == 1
    assert classes[2] == "| meningioma | 2 | 1 | 0 |"
    assert f"Rows '{RIGHT_CLASS}': a picture counts 0" in text
    assert "9 pictures, none left out" in text
    assert "over their 5 groups" in text
    assert "A group is a guess." in text
    assert "| best threshold (mean + " in text


def test_csv_has_a_line_for_each_picture_and_method(evaluation):
    rows = list(csv.DictReader(format_csv(evaluation).splitlines()))
    assert len(rows) == len(PICTURES) * len(evaluation.methods)
    wrong = next(r for r in rows if r["picture"] == "3.png" and r["method"] == TWINS[0])
    assert (wrong["group"], wrong["class"], wrong["predicted"]) == ("G1", *NAMES[:2])
    assert (wrong["dice"], wrong["reference_pixels"]) == ("0", "64")


def test_json_is_strict_and_complete(evaluation):
    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads(format_json(evaluation), parse_constant=refuse)
    assert (summary["n_pictures"], summary["n_groups"]) == (9, 5)
    assert summary["methods"][0]["mean_dice_by_class"].keys() == set(NAMES)
    assert summary["classes"]["confusion"][0] == [2, 1, 0]
    assert summary["classes"]["classifier"] == "good"
    assert summary["notes"] == ["A group is a guess."]


def test_figure_shows_every_method_and_the_confusion(evaluation):
    left, right = draw_pictures(evaluation).axes
    labels = [text.get_text().split("\n")[0] for text in left.get_yticklabels()]
    assert labels == [m.name for m in evaluation.methods]
    assert [len(dots.get_offsets()) for dots in left.collections] == [9] * len(labels)
    assert "9 pictures in 5 groups" in left.get_title("left")
    assert [text.get_text() for text in right.texts][:2] == ["2\n67%", "1\n33%"]
    assert [text.get_text() for text in right.get_yticklabels()] == list(NAMES)


def test_files_are_written_and_nothing_else(evaluation, tmp_path):
    paths = write_pictures(evaluation, tmp_path / "new")
    names = {"per_picture.csv", "summary.json", "evaluation.md", "evaluation.png"}
    assert set(paths) == {path.name for path in (tmp_path / "new").iterdir()} == names
    assert paths["evaluation.png"].read_bytes()[:4] == b"\x89PNG"


def test_no_picture_is_refused():
    with pytest.raises(InputError, match="at least one picture, got none"):
        evaluate_pictures([], METHODS, NAMES)


def test_a_picture_twice_is_refused():
    with pytest.raises(InputError, match=r"come once, got 0\.png again"):
        evaluate_pictures([PICTURES[0]] * 2, METHODS, NAMES)


def test_masks_must_be_those_of_the_methods():
    with pytest.raises(InputError, match=r"0\.png: masks must be given for the methods"):
        evaluate_pictures(PICTURES[:1], METHODS[:1], NAMES)


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "metastasis")])
def test_there_must_be_a_probability_for_each_class(names):
    with pytest.raises(InputError, match=r"0\.png: .* two classes or more.* shape \(3,\)"):
        evaluate_pictures(PICTURES[:1], METHODS, names)


def test_a_class_must_be_one_of_them():
    with pytest.raises(InputError, match="got class 3 of 3"):
        evaluate_pictures([replace(PICTURES[0], class_idx=3)], METHODS, NAMES)
    with pytest.raises(InputError, match="Classes must be 0 to 2"):
        score_classes([3], [[0.2, 0.3, 0.5]], ["a"])


def test_a_volume_or_another_grid_is_refused():
    first = PICTURES[0]
    with pytest.raises(InputError, match=r"shape \(X, Y, 1\), got \(40, 48, 2\)"):
        replace(first, image=first.image.repeat(2, axis=2))
    with pytest.raises(InputError, match=r"got \(40, 48, 1\) against \(39, 48, 1\)"):
        replace(first, reference=first.reference[1:])


def test_each_mask_needs_probabilities():
    with pytest.raises(InputError, match="mask must come with probabilities"):
        replace(PICTURES[0], probabilities={})
