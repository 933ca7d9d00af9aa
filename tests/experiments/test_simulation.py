"""`heatmask simulate`: a simulated user, on masks and phantoms whose errors are known."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.experiments.simulated_user import place_click, place_stroke
from heatmask.experiments.simulation import CUT, EMPTY, PSEUDO, STARTS, Course
from heatmask.experiments.simulation_page import summarise_courses
from helpers.phantom import make_phantom, write_phantom


def draw(*boxes, shape=(20, 16, 8)):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    return mask


BIG, SMALL = np.s_[2:9, 2:9, 2:5], np.s_[14:17, 10:13, 2:5]


@pytest.mark.parametrize("positive", [True, False])
def test_click_is_in_the_middle_of_the_largest_error(positive):
    wrong, right = draw(), draw(BIG, SMALL)
    mask, reference = (wrong, right) if positive else (right, wrong)
    click = place_click(mask, reference, (1, 1, 1))
    assert click.positive == positive
    assert click.voxels.tolist() == [[5, 5, 3]]


def test_middle_is_in_mm():
    plate_and_cube = draw(np.s_[2:9, 2:9, 3:4], np.s_[9:12, 4:7, 2:5])
    assert place_click(draw(), plate_and_cube, (1, 1, 9)).voxels.tolist() == [[5, 5, 3]]
    assert place_click(draw(), plate_and_cube, (1, 1, 0.5)).voxels.tolist() == [[10, 5, 3]]


def test_what_touches_the_border_of_the_scan_ends_there():
    click = place_click(draw(), draw(np.s_[:3, 4:11, 2:5]), (1, 1, 1))
    assert click.voxels.tolist() == [[1, 7, 3]]


def test_right_mask_needs_no_edit():
    assert place_click(draw(BIG), draw(BIG), (1, 1, 1)) is None
    assert place_stroke(draw(BIG), draw(BIG), (1, 1, 1)) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("positive", [True, False])
def test_stroke_is_the_middle_line_of_the_error_in_one_slice(axis, positive):
    long = np.moveaxis(draw(np.s_[2:17, 4:9, 2:5]), 2, axis)
    nothing = np.zeros_like(long)
    mask, reference = (nothing, long) if positive else (long, nothing)
    spacing = tuple(np.roll([1.0, 1.0, 4.0], axis - 2))
    stroke = place_stroke(mask, reference, spacing, axis)
    assert stroke.positive == positive
    assert set(stroke.voxels[:, axis]) == {3}
    assert long[stroke.index].all()
    line = np.delete(stroke.voxels, axis, axis=1)
    assert np.ptp(line[:, 0]) >= 8  # along it
    assert np.ptp(line[:, 1]) <= 2  # and not across


def test_goal_that_is_not_reached_counts_as_one_edit_more():
    courses = [
        Course("P1", "P1", start, dice, (1.0, 0.5, 0.1), (0.1, 0.2))
        for start in STARTS
        for dice in ((0.0, 0.86, 0.95), (0.0, 0.5, 0.86))
    ]
    row = next(r for r in summarise_courses(courses) if r["start"] == PSEUDO)
    assert row["edits_to_0.85"] == 1.5
    assert (row["edits_to_0.90"], row["reached_0.90"]) == (2.5, 1)
    assert row["dice_2"] == pytest.approx(0.905)


def test_the_interval_is_over_groups():
    """Pictures of one group are alike: many of them tell no more than one."""
    courses = [
        Course(f"{group}/{n}", str(group), PSEUDO, (0.0, 0.2 * group), (1.0, 0.5), (0.1,))
        for group in range(4)
        for n in range(25)
    ]
    (row,) = summarise_courses(courses)
    low, high = row["dice_interval"]
    assert row["interval_after"] == 1
    assert high - low > 0.3


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    labels = [("patient", "slice", "tumour")]
    splits = [("patient", "split"), ("P1", "train"), ("P2", "test"), ("P3", "test")]
    for patient, seed in (("P1", 71), ("P2", 72), ("P3", 73)):
        phantom = make_phantom(seed, shape=(112, 128, 18), spacing_mm=(2.0, 2.0, 6.0))
        (root / patient).mkdir()
        scan, reference = (root / patient / f"{patient}-{n}.nii.gz" for n in ("t2f", "seg"))
        write_phantom(phantom, scan, reference)
        labels += [(patient, i, int(label)) for i, label in enumerate(phantom.slice_labels)]
    for name, rows in (("slice_labels", labels), ("patients", splits)):
        with open(root / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return root


def run(archive, bundle_dir, output, *options):
    return CliRunner().invoke(
        app,
        ["simulate", str(archive), "--bundle", str(bundle_dir), "-o", str(output),
         "--device", "cpu", "--edits", "3", *options],
    )  # fmt: skip


def test_the_command_writes_what_corrections_cost(bundle_dir, archive, tmp_path, monkeypatch):
    done = run(archive, bundle_dir, tmp_path)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "simulation.json").read_text())
    rows = {row["start"]: row for row in summary["starts"]}
    assert set(rows) == {*STARTS}
    assert rows[EMPTY]["dice_0"] == 0
    assert rows[PSEUDO]["dice_0"] > 0.3
    assert rows[EMPTY]["dice_3"] > 0.5
    assert rows[CUT]["dice_3"] > 0.5
    with open(tmp_path / "simulation.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(STARTS) * 4
    assert (tmp_path / "simulation.png").stat().st_size > 10_000
    # The second run reads the heatmaps of the first, and says the same.
    monkeypatch.setattr("heatmask.pipeline.Pipeline.__call__", None)
    again = run(archive, bundle_dir, tmp_path)
    assert again.exit_code == 0, again.output
    repeated = json.loads((tmp_path / "simulation.json").read_text())["starts"]
    for row, other in zip(summary["starts"], repeated, strict=True):
        assert {k: v for k, v in row.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }
    some = run(archive, bundle_dir, tmp_path, "--most", "1")
    assert some.exit_code == 0, some.output
    with open(tmp_path / "simulation.csv", encoding="utf-8") as file:
        assert {line["case"] for line in csv.DictReader(file)} == {"P2"}


def test_a_split_without_reference_masks_is_refused(bundle_dir, archive, tmp_path):
    done = run(archive, bundle_dir, tmp_path, "--split", "holdout")
    assert done.exit_code != 0
    assert "holdout" in str(done.exception)
