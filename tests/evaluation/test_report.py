import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from heatmask.errors import InputError, OutputError
from heatmask.evaluation.baselines import FLOORS, find_inner_head
from heatmask.evaluation.figure import draw_evaluation
from heatmask.evaluation.protocol import Case, evaluate_cases
from heatmask.evaluation.report import format_csv, format_json, format_markdown, write_evaluation
from heatmask.evaluation.segmentation import score_mask
from heatmask.evaluation.table import Method

SHAPE = (48, 40, 10)
SPACING_MM = (2.5, 3.0, 6.0)
METHODS = [Method("good"), Method("tuned", rule="b", label_free=False)]


def make_case(number: int, tumour: bool = True, slice_axis: int = 2) -> Case:
    """A noisy ellipse of a head with a bright box; "good" finds most of it, "tuned" half."""
    rng = np.random.default_rng(number)
    x, y, _ = np.indices(SHAPE)
    image = np.where(((x - 24) / 21) ** 2 + ((y - 20) / 18) ** 2 < 1, 100.0, 0.0)
    image += rng.normal(0, 8, SHAPE)
    reference = np.zeros(SHAPE, np.uint8)
    if tumour:
        reference[20 + number : 28 + number, 15:23, 3:7] = 1
    image += 40 * reference
    good, tuned = reference.copy(), reference.copy()
    good[:, 15:17], tuned[:, 15:19] = 0, 0
    affine = np.diag([-SPACING_MM[0], SPACING_MM[1], SPACING_MM[2], 1])
    labels = reference.any(axis=tuple(a for a in range(3) if a != slice_axis)).astype(int)
    probabilities = np.clip(0.6 * labels + rng.normal(0.2, 0.2, labels.size), 0, 1)
    return Case(
        f"P{number}", image, {"good": good, "tuned": tuned}, reference, affine,
        probabilities, labels, slice_axis,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluation():
    positions = (np.arange(10) + 0.5) / 10
    training = (positions, (abs(positions - 0.5) < 0.2).astype(int))
    cases = (make_case(n, tumour=n != 4) for n in range(5))
    return evaluate_cases(cases, METHODS, training, notes=["Spacing is made up."])


def test_scores_are_those_of_the_masks(evaluation):
    # 8 x 8 in the reference, 6 x 8 and 4 x 8 in the masks.
    assert evaluation.column("good")[:4] == pytest.approx([2 * 48 / (48 + 64)] * 4)
    assert evaluation.column("tuned", "iou")[:4] == pytest.approx([0.5] * 4)


def test_an_empty_pair_is_not_counted_but_reported(evaluation):
    assert np.isnan(evaluation.column("good")[4])
    row = evaluation.rows[0]
    assert row.n_counted == 4
    assert row.dice.mean == pytest.approx(0.857, abs=1e-3)
    assert "| good | (a) | yes | 4 |" in format_markdown(evaluation)
    assert "P4,good,a,True,,,0,0,0\n" in format_csv(evaluation)


def test_floors_stand_beside_the_methods(evaluation):
    assert [m.name for m in evaluation.methods] == ["good", "tuned", *FLOORS]
    assert [m.rule for m in evaluation.methods] == ["a", "b", "a", "a", "a", "a", "c", "c"]
    assert [m.label_free for m in evaluation.methods] == [True, False, *[True] * 4, *[False] * 2]


def test_the_best_floor_is_label_free_and_the_others_are_compared_with_it(evaluation):
    best = evaluation.best_floor
    means = {r.method.name: r.dice.mean for r in evaluation.rows if r.method.floor}
    label_free = {name: mean for name, mean in means.items() if FLOORS[name].label_free}
    assert best.name == max(label_free, key=label_free.get)
    for row in evaluation.rows:
        if row.method == best:
            assert row.difference is None
            continue
        difference = (evaluation.column(row.method.name) - evaluation.column(best.name))[:4]
        if row.method.name == "good":  # the fifth patient is not counted there
            assert row.difference.mean == pytest.approx(difference.mean())


def test_an_oracle_has_the_best_level_of_its_grid(evaluation):
    """The streamed choice equals choosing with all scans in memory."""
    name = "best threshold"
    cases = [make_case(n, tumour=n != 4) for n in range(5)]
    heads = [find_inner_head(c.image, c.spacing_mm) for c in cases]
    means = []
    for level in FLOORS[name].levels:
        masks = [
            FLOORS[name].make_mask(c.image, h, level) for c, h in zip(cases, heads, strict=True)
        ]
        dice = [
            score_mask(m, c.reference, SPACING_MM)["dice"]
            for m, c in zip(masks, cases, strict=True)
        ]
        means.append(np.nanmean(dice))
    method = next(m for m in evaluation.methods if m.name == name)
    assert method.level == FLOORS[name].levels[int(np.argmax(means))]
    assert np.nanmean(evaluation.column(name)) == pytest.approx(max(means))


def test_slices_of_all_cases_are_pooled(evaluation):
    slices = evaluation.slices
    assert len(slices.labels) == len(slices.probabilities) == len(slices.positions) == 50
    assert sum(slices.labels) == 16
    assert slices.positions[10:12] == pytest.approx([0.05, 0.15])
    assert evaluation.position_auroc > 0.8


def test_one_volume_at_a_time():
    """The next case is asked for only when the one before is scored, and none is kept."""
    import weakref

    alive = []

    def stream():
        for n in range(3):
            case = make_case(n)
            alive.append(weakref.ref(case.image))
            yield case
            del case
            assert sum(ref() is not None for ref in alive) <= 1

    evaluate_cases(stream(), METHODS)


def test_slices_may_lie_along_another_axis():
    result = evaluate_cases([make_case(0, slice_axis=0), make_case(1, slice_axis=0)], METHODS)
    assert len(result.slices.labels) == 96
    assert np.isnan(result.position_auroc)


def test_one_healthy_patient_is_reported_without_a_number():
    result = evaluate_cases([make_case(0, tumour=False)], METHODS)
    assert result.rows[0].n_counted == 0
    assert np.isnan(result.rows[0].dice).all()
    assert json.loads(format_json(result))["methods"][0]["mean_dice"]["mean"] is None
    assert "nan" in format_markdown(result)
    draw_evaluation(result)


def test_csv_has_a_line_for_each_patient_and_method(evaluation):
    rows = list(csv.DictReader(format_csv(evaluation).splitlines()))
    assert len(rows) == 5 * (2 + len(FLOORS))
    assert float(rows[0]["reference_ml"]) == pytest.approx(8 * 8 * 4 * 0.045)


def test_json_is_strict_and_states_the_rules(evaluation):
    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads(format_json(evaluation), parse_constant=refuse)
    assert summary["n_patients"] == 5
    assert "not counted" in summary["empty_rule"]
    assert summary["rules"].keys() == {"a", "b", "c"}
    assert summary["slices"]["auroc_within_deciles"]["per_decile"][0] is None
    assert summary["notes"] == ["Spacing is made up."]


def test_markdown_table_is_rectangular(evaluation):
    table = [line for line in format_markdown(evaluation).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(evaluation.rows)
    assert len({line.count("|") for line in table}) == 1


def test_figure_shows_every_method_and_patient(evaluation):
    figure = draw_evaluation(evaluation)
    left, right = figure.axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert [label.split("\n")[0] for label in labels] == [m.name for m in evaluation.methods]
    assert all("chosen on these masks" in label for label in labels[-2:])
    assert [len(dots.get_offsets()) for dots in left.collections] == [5] * len(labels)
    assert len(right.patches) == 10


def test_files_are_written_and_nothing_else(evaluation, tmp_path):
    paths = write_evaluation(evaluation, tmp_path / "new" / "folder")
    names = {"per_patient.csv", "summary.json", "evaluation.md", "evaluation.png"}
    assert set(paths) == {path.name for path in (tmp_path / "new" / "folder").iterdir()} == names
    assert paths["evaluation.png"].read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_is_a_file_is_refused(evaluation, tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"taken.*Give a folder"):
        write_evaluation(evaluation, tmp_path / "taken")
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


def test_a_failed_write_leaves_the_old_file(evaluation, tmp_path, monkeypatch):
    (tmp_path / "per_patient.csv").write_text("old", encoding="utf-8")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_evaluation(evaluation, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["per_patient.csv"]
    assert (tmp_path / "per_patient.csv").read_text(encoding="utf-8") == "old"


def test_no_case_is_refused():
    with pytest.raises(InputError, match="at least one case, got none"):
        evaluate_cases([], METHODS)


def test_a_patient_twice_is_refused():
    with pytest.raises(InputError, match="come once, got P1 again"):
        evaluate_cases([make_case(1), make_case(1)], METHODS)


@pytest.mark.parametrize("methods", [METHODS[:1], [*METHODS, Method("third")]])
def test_masks_must_be_those_of_the_methods(methods):
    with pytest.raises(InputError, match="P1: masks must be given for the methods"):
        evaluate_cases([make_case(1)], methods)


def test_a_method_named_like_a_floor_is_refused():
    case = replace(make_case(1), masks={"multi-Otsu": make_case(1).reference})
    with pytest.raises(InputError, match="named like a floor"):
        evaluate_cases([case], [Method("multi-Otsu")])


def test_a_case_on_another_grid_is_refused():
    case = make_case(1)
    with pytest.raises(InputError, match=r"got \(47, 40, 10\) against \(48, 40, 10\)"):
        replace(case, masks={"good": case.reference[1:]})


@pytest.mark.parametrize("name", ["slice_probabilities", "slice_labels"])
def test_a_case_needs_a_value_for_each_slice(name):
    with pytest.raises(InputError, match=f"P1: {name} must hold one value .* 10 .* got 9"):
        replace(make_case(1), **{name: [0] * 9})
