"""The table of one bundle, and its report: planted masks of volumes and of pictures."""

import base64
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from numpy.typing import NDArray
from scipy import ndimage
from sklearn import metrics

from heatmask.errors import InputError, OutputError
from heatmask.experiments.baselines import BASELINES, find_inner_head, score_baselines
from heatmask.experiments.cases import Case, Cases
from heatmask.experiments.classifier_metrics import score_classes
from heatmask.experiments.entries import Entry
from heatmask.experiments.figures import draw_masks
from heatmask.experiments.one_bundle import RIGHT_CLASS, tabulate
from heatmask.experiments.one_bundle_figure import draw_evaluation
from heatmask.experiments.one_bundle_page import (
    find_class_dice,
    find_difference,
    format_cases,
    format_json,
    format_markdown,
    write_evaluation,
)
from heatmask.experiments.overlap import score_mask
from heatmask.experiments.results import Comparison, Row
from heatmask.experiments.scores import score_whole
from helpers.pictures import assert_like_kept

SHAPE, SPACING_MM = (48, 40, 10), (2.5, 3.0, 6.0)
AFFINE = np.diag([-SPACING_MM[0], SPACING_MM[1], SPACING_MM[2], 1])
FLAT = (40, 48, 1)
NAMES = ("meningioma", "glioma", "pituitary tumour")
TWIN = f"good, {RIGHT_CLASS}"


class Planted:
    """One case: an image, its reference, a mask by rule, and probabilities by slice."""

    def __init__(
        self, case: Case, image: NDArray, reference: NDArray, masks: list[NDArray], given: NDArray
    ) -> None:
        self.case, self.image, self.reference = case, image, reference
        self.masks, self.probabilities = masks, given

    def score(self, mask: NDArray, pictures: bool) -> dict[str, Any]:
        return score_whole(mask, self.reference, AFFINE, 2, pictures, outline=False)


def make_volume(number: int, tumour: bool = True) -> Planted:
    """A noisy ellipse of a head with a bright box; one mask finds most of it, the other half."""
    rng = np.random.default_rng(number)
    x, y, _ = np.indices(SHAPE)
    image = np.where(((x - 24) / 21) ** 2 + ((y - 20) / 18) ** 2 < 1, 100.0, 0.0)
    image += rng.normal(0, 8, SHAPE)
    reference = np.zeros(SHAPE, bool)
    if tumour:
        reference[20 + number : 28 + number, 15:23, 3:7] = True
    image += 40 * reference
    good, half = reference.copy(), reference.copy()
    good[:, 15:17], half[:, 15:19] = False, False
    labels = reference.any(axis=(0, 1)).astype(int)
    given = np.clip(0.6 * labels + rng.normal(0.2, 0.2, labels.size), 0, 1)
    case = Case(f"P{number}", f"P{number}", "", Path(), tuple(labels.tolist()))
    return Planted(case, image, reference, [good, half], given[:, None])


def make_picture(number: int, predicted: int | None = None, group: str | None = None) -> Planted:
    """A noisy head with a bright box. The true class is the number modulo 3.

    Without a given one, every fourth picture is predicted wrongly.
    """
    rng = np.random.default_rng(number)
    x, y, _ = np.indices(FLAT)
    image = np.where(((x - 20) / 18) ** 2 + ((y - 24) / 21) ** 2 < 1, 100.0, 0.0)
    image += rng.normal(0, 8, FLAT)
    reference = np.zeros(FLAT, bool)
    reference[10 + number : 18 + number, 15:23] = True
    image[reference] += 40
    true = number % 3
    predicted = (true + (number % 4 == 3)) % 3 if predicted is None else predicted
    good, half = reference.copy(), reference.copy()
    good[:, 15 : 15 + number % 3], half[:, 15:19] = False, False
    given = np.full(3, 0.1 + 0.01 * number)
    given[predicted] = 1 - given.sum() + given[0]
    group = f"G{number // 2}" if group is None else group
    case = Case(f"{number}.png", group, "", Path(), (true,))
    return Planted(case, image, reference, [good, half], given[None])


def evaluate(planted: Sequence[Planted], classes: tuple[str, ...] = ()) -> Comparison:
    training = () if classes else (tuple(int(abs(i - 4.5) < 2) for i in range(10)),)
    cases = Cases("test", tuple(p.case for p in planted), {}, classes, training)
    found = [
        {
            "rules": {
                rule: p.score(mask, bool(classes))
                for rule, mask in zip(("own", "not snapped"), p.masks, strict=True)
            },
            "probabilities": p.probabilities.tolist(),
            "predicted": [True],
            "confidence": 1.0,
            "seconds": 0.0,
        }
        for p in planted
    ]
    baselines = [
        score_baselines(
            p.image, AFFINE, 2, bool(classes), lambda m, _, p=p: p.score(m, bool(classes))
        )
        for p in planted
    ]
    return tabulate(cases, Entry(Path("good"), "inherent"), {"good": found}, baselines)


VOLUMES = [make_volume(number, tumour=number != 4) for number in range(5)]
PICTURES = [make_picture(number) for number in range(9)]


@pytest.fixture(scope="module")
def volumes() -> Comparison:
    found = evaluate(VOLUMES)
    found.notes.append("Spacing is made up.")
    return found


@pytest.fixture(scope="module")
def pictures() -> Comparison:
    return evaluate(PICTURES, NAMES)


def get_row(comparison: Comparison, name: str) -> Row:
    return next(row for row in comparison.rows if row.name == name)


def get_dice(comparison: Comparison, name: str) -> NDArray:
    return get_row(comparison, name).scores["dice"]


# --- rows ----------------------------------------------------------------------------------


def test_scores_are_those_of_the_masks(volumes: Comparison) -> None:
    # 8 x 8 in the reference, 6 x 8 and 4 x 8 in the masks.
    assert get_dice(volumes, "good")[:4] == pytest.approx([2 * 48 / (48 + 64)] * 4)
    iou = get_row(volumes, "good, not snapped").scores["iou"]
    assert iou[:4] == pytest.approx([0.5] * 4)


def test_dice_and_iou_are_monais(pictures: Comparison) -> None:
    found, true = (
        torch.stack([torch.from_numpy(m[None, ..., 0]) for m in masks])
        for masks in ([p.masks[0] for p in PICTURES], [p.reference for p in PICTURES])
    )
    row, dice = get_row(pictures, "good"), compute_dice(found, true).numpy()[:, 0]
    np.testing.assert_allclose(row.scores["dice"], dice, rtol=1e-6)
    iou = compute_iou(found, true).numpy()[:, 0]
    np.testing.assert_allclose(row.scores["iou"], iou, rtol=1e-6)
    assert pictures.find_interval(row.scores["dice"]).mean == pytest.approx(dice.mean())
    assert row.median_dice == pytest.approx(np.median(dice))
    assert row.mean("iou") == pytest.approx(iou.mean())
    by_class = {name: pytest.approx(dice[k::3].mean()) for k, name in enumerate(NAMES)}
    assert find_class_dice(pictures, row) == by_class


def test_pixels_are_counted(pictures: Comparison) -> None:
    row = get_row(pictures, "good")
    assert set(row.scores["reference_size"]) == {64.0}
    assert row.scores["mask_size"][:3].tolist() == [64, 56, 48]


def test_an_empty_pair_is_not_counted_but_reported(volumes: Comparison) -> None:
    row = volumes.rows[0]
    assert np.isnan(row.scores["dice"][4])
    assert row.n_counted == 4
    assert volumes.find_interval(row.scores["dice"]).mean == pytest.approx(0.857, abs=1e-3)
    assert "| good | (a) | yes | 4 |" in format_markdown(volumes)
    assert "P4,good,a,True,,,0,0,,0\n" in format_cases(volumes, "patient")


def test_empty_masks_of_pictures_follow_the_rule() -> None:
    first, second, _, wrong = (make_picture(number) for number in range(4))
    second.masks = wrong.masks = [np.zeros(FLAT, bool)] * 2
    wrong.reference = np.zeros(FLAT, bool)
    found = evaluate([first, second, wrong], NAMES)
    for name in ("good", TWIN):
        np.testing.assert_array_equal(get_dice(found, name), [1, 0, np.nan])
        assert get_row(found, name).n_counted == 2
    assert "3.png,G1,meningioma,glioma,good,a,True,,,0,0,\n" in format_cases(found, "picture")


def test_where_the_wrong_class_is_predicted_the_twin_counts_nothing(pictures: Comparison) -> None:
    right = np.array([p.probabilities[0].argmax() == p.case.labels[0] for p in PICTURES])
    for name in ("good", "good, not snapped"):
        dice, both = get_dice(pictures, name), get_dice(pictures, f"{name}, {RIGHT_CLASS}")
        np.testing.assert_array_equal(both, np.where(right, dice, 0))
        assert (dice > 0).all()
    assert (get_row(pictures, TWIN).scores["mask_size"][~right] == 0).all()
    assert get_row(pictures, TWIN).n_counted == len(PICTURES)


def test_baselines_stand_beside_the_methods(volumes: Comparison, pictures: Comparison) -> None:
    assert [row.name for row in volumes.rows] == ["good", "good, not snapped", *BASELINES]
    assert [row.rule for row in volumes.rows] == list("aaaaaacc")
    names = ["good", TWIN, "good, not snapped", f"good, not snapped, {RIGHT_CLASS}"]
    assert [row.name for row in pictures.rows] == [*names, *BASELINES]


def test_the_best_baseline_is_label_free_and_the_others_are_compared_with_it(
    volumes: Comparison,
) -> None:
    best = volumes.best_baseline
    assert best is not None
    means = {r.name: r.mean("dice") for r in volumes.rows if r.kind == "baseline"}
    label_free = {name: mean for name, mean in means.items() if BASELINES[name].label_free}
    assert best.name == max(label_free, key=lambda name: label_free[name])
    assert find_difference(volumes, best) is None
    difference = find_difference(volumes, volumes.rows[0])
    assert difference is not None
    own = (volumes.rows[0].scores["dice"] - best.scores["dice"])[:4]
    assert difference.mean == pytest.approx(own.mean())
    assert difference.low <= difference.mean <= difference.high


def test_an_oracle_has_the_best_level_of_its_grid(volumes: Comparison) -> None:
    baseline = BASELINES["best threshold"]
    heads = [find_inner_head(p.image, SPACING_MM) for p in VOLUMES]
    means = []
    for level in baseline.levels:
        masks = [baseline.make_mask(p.image, h, level) for p, h in zip(VOLUMES, heads, strict=True)]
        pairs = zip(masks, VOLUMES, strict=True)
        means.append(np.nanmean([score_mask(m, p.reference, SPACING_MM)["dice"] for m, p in pairs]))
    row = get_row(volumes, "best threshold")
    assert row.level == baseline.levels[int(np.argmax(means))]
    assert row.mean("dice") == pytest.approx(max(means))


def test_the_scalp_is_a_share_of_the_picture() -> None:
    """The same head in eight times as many pixels, with a bright skin that is to be left out."""

    def enlarge(array: NDArray) -> NDArray:
        return array.repeat(8, axis=0).repeat(8, axis=1)

    small = make_picture(1)
    head = small.image > 50
    skin = head & ~ndimage.binary_erosion(head[..., 0])[..., None]
    small.image = np.where(skin, 200.0, small.image)
    large = make_picture(1)
    large.image, large.reference = enlarge(small.image), enlarge(small.reference)
    large.masks = [enlarge(mask) for mask in small.masks]
    for picture in (small, large):
        dice = get_dice(evaluate([picture], NAMES), "90th percentile in the head")
        assert dice == pytest.approx([0.78], abs=0.08)


# --- intervals -----------------------------------------------------------------------------


def test_copies_within_a_group_do_not_narrow_the_interval(pictures: Comparison) -> None:
    copies = []
    for number in range(9):
        for copy in range(3):
            one = make_picture(number)
            one.case = replace(one.case, name=f"{copy}/{number}")
            copies.append(one)
    found = evaluate(copies, NAMES)
    for name in ("good", TWIN):
        once, often = (e.find_interval(get_dice(e, name)) for e in (pictures, found))
        assert often == pytest.approx(once)
    once, often = (e.predictions[0].class_scores.macro_f1 for e in (pictures, found))
    assert often == pytest.approx(once)


def test_one_group_has_no_interval() -> None:
    found = evaluate([make_picture(number, group="G") for number in range(9)], NAMES)
    scores = found.predictions[0].class_scores
    intervals = (found.find_interval(get_dice(found, "good")), scores.macro_f1, scores.accuracy)
    for interval in intervals:
        assert not np.isnan(interval.mean)
        assert np.isnan(interval[1:]).all()
    assert json.loads(format_json(found))["methods"][0]["mean_dice"]["low"] is None
    draw_evaluation(found)


def test_one_healthy_patient_is_reported_without_a_number() -> None:
    found = evaluate([make_volume(0, tumour=False)])
    assert found.rows[0].n_counted == 0
    assert np.isnan(found.find_interval(found.rows[0].scores["dice"])).all()
    assert json.loads(format_json(found))["methods"][0]["mean_dice"]["mean"] is None
    assert "nan" in format_markdown(found)
    draw_evaluation(found)


# --- classes -------------------------------------------------------------------------------


def test_slices_of_all_cases_are_pooled(volumes: Comparison) -> None:
    slices = volumes.predictions[0]
    assert len(slices.labels) == len(slices.any_class) == len(slices.positions) == 50
    assert slices.labels.sum() == 16
    assert slices.positions[10:12] == pytest.approx([0.05, 0.15])
    assert volumes.position_auroc > 0.8


def test_classes_are_scored_as_by_sklearn(pictures: Comparison) -> None:
    true = [p.case.labels[0] for p in PICTURES]
    predicted = [int(p.probabilities.argmax()) for p in PICTURES]
    assert true != predicted
    scores = pictures.predictions[0].class_scores
    macro_f1 = metrics.f1_score(true, predicted, average="macro")
    assert scores.macro_f1.mean == pytest.approx(macro_f1)
    np.testing.assert_allclose(scores.f1, metrics.f1_score(true, predicted, average=None))
    assert scores.accuracy.mean == metrics.accuracy_score(true, predicted) == pytest.approx(7 / 9)
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(true, predicted))
    assert scores.confusion[0, 1] == 1  # picture 3: a meningioma, predicted to be a glioma
    assert scores.commonest == pytest.approx(1 / 3)
    assert scores.macro_f1.low < scores.macro_f1.mean < scores.macro_f1.high
    assert scores.accuracy.low < scores.accuracy.mean < scores.accuracy.high


def test_calibration_error_is_of_the_largest_probability() -> None:
    given = [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.2, 0.6, 0.2], [0.3, 0.1, 0.6]]
    scores = score_classes([0, 1, 1, 2], given, list("abcd"))
    assert scores.ece == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0))


def test_a_class_that_nowhere_occurs_is_left_out_of_the_mean() -> None:
    scores = score_classes([0, 1, 0], np.eye(3)[[0, 1, 1]], list("abc"))
    assert np.isnan(scores.f1[2])
    assert scores.macro_f1.mean == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="Classes must be 0 to 2"):
        score_classes([3], [[0.2, 0.3, 0.5]], ["a"])


# --- on paper ------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_case_and_method(volumes: Comparison, pictures: Comparison) -> None:
    rows = list(csv.DictReader(format_cases(volumes, "patient").splitlines()))
    assert len(rows) == 5 * (2 + len(BASELINES))
    assert float(rows[0]["reference_ml"]) == pytest.approx(8 * 8 * 4 * 0.045)
    rows = list(csv.DictReader(format_cases(pictures, "picture").splitlines()))
    assert len(rows) == len(PICTURES) * len(pictures.rows)
    wrong = next(r for r in rows if r["picture"] == "3.png" and r["method"] == TWIN)
    assert (wrong["group"], wrong["class"], wrong["predicted"]) == ("G1", *NAMES[:2])
    assert (wrong["dice"], wrong["reference_pixels"]) == ("0", "64")


def test_json_is_strict_and_states_the_rules(volumes: Comparison, pictures: Comparison) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    summary = json.loads(format_json(volumes), parse_constant=refuse)
    assert summary["n_patients"] == 5
    assert "not counted" in summary["empty_rule"]
    assert summary["rules"].keys() == {"a", "b", "c"}
    assert summary["slices"]["auroc_within_deciles"]["per_decile"][0] is None
    assert summary["notes"] == ["Spacing is made up."]
    summary = json.loads(format_json(pictures), parse_constant=refuse)
    assert (summary["n_pictures"], summary["n_groups"]) == (9, 5)
    assert summary["methods"][0]["mean_dice_by_class"].keys() == set(NAMES)
    assert summary["classes"]["confusion"][0] == [2, 1, 0]
    assert summary["classes"]["classifier"] == "good"


def test_markdown_tables_are_rectangular_and_say_what_counts(
    volumes: Comparison, pictures: Comparison
) -> None:
    table = [line for line in format_markdown(volumes).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(volumes.rows)
    assert len({line.count("|") for line in table}) == 1
    text = format_markdown(pictures)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    methods, classes = lines[: 2 + len(pictures.rows)], lines[2 + len(pictures.rows) :]
    assert len({line.count("|") for line in methods}) == 1
    assert len(classes) == 2 + len(NAMES)
    assert len({line.count("|") for line in classes}) == 1
    assert classes[2] == "| meningioma | 2 | 1 | 0 |"
    assert f"Rows '{RIGHT_CLASS}': a picture counts 0" in text
    assert "9 pictures, none left out" in text
    assert "over their 5 groups" in text
    assert "| best threshold (mean + " in text


def test_figures_show_every_method_and_what_the_classifier_does(
    volumes: Comparison, pictures: Comparison
) -> None:
    for found, count in ((volumes, 5), (pictures, 9)):
        left, right = draw_evaluation(found).axes
        labels = [text.get_text() for text in left.get_yticklabels()]
        assert [label.split("\n")[0] for label in labels] == [row.name for row in found.rows]
        assert all("chosen on these masks" in label for label in labels[-2:])
        assert [len(dots.get_offsets()) for dots in left.collections] == [count] * len(labels)
        if found is volumes:
            assert len(right.patches) == 10
        else:
            assert "9 pictures in 5 groups" in left.get_title("left")
            assert [text.get_text() for text in right.texts][:2] == ["2\n67%", "1\n33%"]
            assert [text.get_text() for text in right.get_yticklabels()] == list(NAMES)


@pytest.mark.parametrize("kind", ["volumes", "pictures"])
def test_the_figure_looks_as_kept(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    write_evaluation(request.getfixturevalue(kind), tmp_path)
    assert_like_kept(tmp_path / "evaluation.png", f"evaluation_{kind}")


def test_the_figure_of_a_comparison_looks_as_kept(volumes: Comparison, tmp_path: Path) -> None:
    """Its first, of the same planted masks."""
    picture = draw_masks(volumes)
    (tmp_path / "masks.png").write_bytes(base64.b64decode(picture.data))
    assert_like_kept(tmp_path / "masks.png", "comparison_masks")


def test_files_are_written_and_nothing_else(volumes: Comparison, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = write_evaluation(volumes, folder)
    names = {"per_patient.csv", "summary.json", "evaluation.md", "evaluation.png"}
    assert {path.name for path in paths} == {path.name for path in folder.iterdir()} == names
    assert (folder / "evaluation.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_is_a_file_is_refused(volumes: Comparison, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="taken"):
        write_evaluation(volumes, tmp_path / "taken")
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


def test_a_failed_write_leaves_the_old_file(
    volumes: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "per_patient.csv").write_text("old", encoding="utf-8")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_evaluation(volumes, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["per_patient.csv"]
    assert (tmp_path / "per_patient.csv").read_text(encoding="utf-8") == "old"
