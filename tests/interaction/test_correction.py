"""The correction engine: what holds for any scan, any mask and any edits."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from monai.data import MetaTensor
from scipy import ndimage

from heatmask.errors import InputError, OptionError
from heatmask.interaction import Correction, Edit
from heatmask.interaction.correction import UNDOABLE
from heatmask.progress import listen

SPACINGS = ((1.0, 1.0, 5.0), (0.7, 1.3, 2.0), (2.0, 2.0, 2.0))


@st.composite
def scans(draw):
    """A scan with a blob, its spacing, a heatmap or none, and a mask to begin with."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.lists(st.integers(1, 14), min_size=3, max_size=3)))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    scan = smooth + 0.1 * smooth.std() * rng.normal(size=shape)
    heatmap = smooth + 0.5 * smooth.std() * rng.normal(size=shape)
    start = draw(st.sampled_from(("empty", "full", "blob", "noise", "two")))
    mask = {
        "empty": np.zeros(shape, np.uint8),
        "full": np.ones(shape, np.uint8),
        "blob": (smooth > np.median(smooth)).astype(np.uint8),
        "noise": rng.integers(0, 2, shape).astype(np.uint8),
        "two": rng.integers(0, 3, shape).astype(np.uint8),
    }[start]
    spacing = draw(st.sampled_from(SPACINGS))
    return scan, spacing, draw(st.sampled_from((None, heatmap))), mask


@st.composite
def edits(draw, shape):
    """One edit of any kind inside `shape`."""
    voxel = st.tuples(*(st.integers(0, size - 1) for size in shape))
    positive, label = draw(st.booleans()), draw(st.integers(1, 2))
    kind = draw(st.sampled_from(("click", "stroke", "box", "lasso")))
    if kind == "click":
        return Edit.click(draw(voxel), positive, label)
    if kind == "box":
        corners = np.sort([draw(voxel), draw(voxel)], axis=0)
        return Edit.box(corners[0], corners[1] + 1, positive, label)
    make = Edit.stroke if kind == "stroke" else Edit.lasso
    return make(np.array(draw(st.lists(voxel, min_size=1, max_size=6))), positive, label)


@st.composite
def stories(draw):
    """A correction that has begun, and the edits to come."""
    scan, spacing, heatmap, mask = draw(scans())
    asked = draw(st.lists(edits(scan.shape), min_size=1, max_size=4))
    return Correction(scan, spacing, heatmap, mask), asked


@settings(max_examples=60, deadline=None)
@given(stories())
def test_what_was_said_holds_until_it_is_contradicted(story):
    correction, asked = story
    said = {}
    for edit in asked:
        mask = correction.apply(edit)
        if edit.exact:
            here = {tuple(voxel) for voxel in edit.voxels.tolist()}
            if edit.positive:  # "It is 2" contradicts "it is 1".
                said = {(*v, k): p for (*v, k), p in said.items() if not (p and tuple(v) in here)}
            said |= {(*voxel, edit.label): edit.positive for voxel in here}
        for (x, y, z, label), positive in said.items():
            assert (mask[x, y, z] == label) == positive


@settings(max_examples=60, deadline=None)
@given(stories(), st.floats(0, 20))
def test_nothing_changes_beyond_reach(story, reach_mm):
    correction, asked = story
    for edit in asked:
        before = correction.mask
        after = correction.apply(edit, reach_mm)
        touched = np.zeros(before.shape, bool)
        touched[edit.index] = True
        away = ndimage.distance_transform_edt(~touched, sampling=correction.spacing_mm)
        assert np.array_equal(before[away > reach_mm], after[away > reach_mm])


@settings(max_examples=60, deadline=None)
@given(stories())
def test_a_positive_edit_adds_and_a_negative_one_takes_away(story):
    correction, asked = story
    for edit in asked:
        before = correction.mask == edit.label
        after = correction.apply(edit) == edit.label
        lost, won = before & ~after, after & ~before
        assert not (lost if edit.positive else won).any()


@settings(max_examples=60, deadline=None)
@given(stories())
def test_other_labels_keep_what_the_edit_does_not_touch(story):
    correction, asked = story
    for edit in asked:
        before = correction.mask
        after = correction.apply(edit)
        touched = set(np.unique(before[edit.index])) if edit.positive and edit.exact else set()
        for label in {1, 2} - {edit.label} - touched:
            assert np.array_equal(before == label, after == label)


@settings(max_examples=60, deadline=None)
@given(stories())
def test_undo_and_redo_are_exact(story):
    correction, asked = story
    masks = [correction.mask, *(correction.apply(edit) for edit in asked)]
    for mask in masks[-2::-1]:
        assert np.array_equal(correction.undo(), mask)
    assert np.array_equal(correction.undo(), masks[0])
    for mask in masks[1:]:
        assert np.array_equal(correction.redo(), mask)
    assert np.array_equal(correction.redo(), masks[-1])
    # An edit after undo forgets what was undone, and is answered as if that had never been said.
    correction.undo()
    again = correction.apply(asked[-1])
    assert np.array_equal(again, masks[-1])
    assert np.array_equal(correction.redo(), masks[-1])


@settings(max_examples=60, deadline=None)
@given(scans(), st.data())
def test_same_answer_in_any_storage_order(given_scan, data):
    scan, spacing, heatmap, mask = given_scan
    asked = [data.draw(edits(scan.shape))]
    axes = data.draw(st.permutations(range(3)))
    flips = [axis for axis in range(3) if data.draw(st.booleans())]

    def store(array):
        return None if array is None else np.flip(array.transpose(axes), flips)

    plain = Correction(scan, spacing, heatmap, mask)
    other = Correction(store(scan), [spacing[a] for a in axes], store(heatmap), store(mask))
    for edit in asked:
        touched = np.zeros(scan.shape, bool)
        touched[edit.index] = True
        moved = Edit(np.argwhere(store(touched)), edit.positive, edit.label, edit.exact)
        assert np.array_equal(store(plain.apply(edit)), other.apply(moved))


@settings(max_examples=20, deadline=None)
@given(stories())
def test_same_edits_same_masks(story):
    correction, asked = story
    first = [correction.apply(edit) for edit in asked]
    correction.reset()
    second = [correction.apply(edit) for edit in asked]
    assert np.array_equal(first, second)


def make_ball(shape=(40, 36, 12), spacing=(1.0, 1.0, 4.0), radius_mm=10.0):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    centre = (np.array(shape) // 2) * spacing
    ball = np.linalg.norm(grid - centre, axis=-1) <= radius_mm
    noise = np.random.default_rng(3).normal(0, 4, shape)
    return 60 + 60 * ball + noise, ball, spacing


def measure_dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_one_click_finds_a_bright_ball_on_thick_slices():
    scan, ball, spacing = make_ball()
    found = Correction(scan, spacing).apply(Edit.click(np.array(ball.shape) // 2))
    assert measure_dice(found > 0, ball) > 0.9


def test_one_negative_click_removes_what_is_no_lesion():
    scan, ball, spacing = make_ball()
    mask = ball.copy()
    mask[2:8, 2:8, 5:7] = True
    found = Correction(scan, spacing, mask=mask).apply(Edit.click((5, 5, 5), positive=False))
    assert not found[2:8, 2:8].any()
    assert measure_dice(found > 0, ball) > 0.99


def draw_two_lobes(shape=(60, 30, 12)):
    """Return two like cubes in which nothing in the scan tells right from wrong, and their neck."""
    right, wrong, neck = (np.zeros(shape, bool) for _ in range(3))
    right[5:22, 5:22, 3:8] = True
    wrong[35:52, 5:22, 3:8] = True
    neck[22:35, 12:15, 5:6] = True
    return right, wrong, neck


def test_a_negative_click_in_the_middle_of_a_piece_takes_all_of_it():
    right, wrong, _ = draw_two_lobes()
    scan = np.random.default_rng(5).normal(0, 1, right.shape) + 5 * (right | wrong)
    correction = Correction(scan, (1, 1, 4), mask=right | wrong)
    assert np.array_equal(correction.apply(Edit.click((43, 13, 5), positive=False)) > 0, right)


def test_a_piece_ends_at_its_neck():
    right, wrong, neck = draw_two_lobes()
    scan = np.random.default_rng(5).normal(0, 1, right.shape) + 5 * (right | wrong | neck)
    correction = Correction(scan, (1, 1, 4), mask=right | wrong | neck)
    found = correction.apply(Edit.click((43, 13, 5), positive=False)) > 0
    assert found[right].all()
    assert not found[wrong].any()


def test_a_piece_in_which_something_belongs_is_not_taken_as_a_whole():
    """It is too large; a click in its middle does not contradict the one that found it."""
    scan, ball, spacing = make_ball()
    middle = np.array(ball.shape) // 2
    correction = Correction(scan, spacing, mask=ball)
    correction.apply(Edit.click(np.add(middle, (6, 0, 0))))
    found = correction.apply(Edit.click(middle, positive=False)) > 0
    assert 0 < np.count_nonzero(ball & ~found) < 0.8 * np.count_nonzero(ball)
    alone = Correction(scan, spacing, mask=ball).apply(Edit.click(middle, positive=False))
    assert not alone.any()


def test_a_negative_click_near_the_rim_leaves_the_piece():
    scan, ball, spacing = make_ball()
    voxel = (ball.shape[0] // 2 + 9, ball.shape[1] // 2, ball.shape[2] // 2)
    assert ball[voxel]
    found = Correction(scan, spacing, mask=ball).apply(Edit.click(voxel, positive=False)) > 0
    assert measure_dice(found, ball) > 0.8


@pytest.mark.parametrize("kind", ["heatmap", "pseudo-mask"])
def test_the_first_positive_click_brings_the_piece_of_the_heatmap_that_it_touches(kind):
    first, second, _ = draw_two_lobes()
    scan = np.random.default_rng(5).normal(0, 1, first.shape)
    heatmap = (first | second) * (3.0 if kind == "heatmap" else 1.0)
    heatmap += np.random.default_rng(6).normal(0, 0.1, first.shape) * (kind == "heatmap")
    correction = Correction(scan, (1, 1, 4), heatmap=heatmap)
    assert np.array_equal(correction.apply(Edit.click((13, 13, 5))) > 0, first)


def test_a_reset_is_undone_with_all_that_was_said_before():
    scan, ball, spacing = make_ball()
    correction = Correction(scan, spacing, mask=ball)
    edits = [Edit.click((3, 3, 6)), Edit.click((20, 18, 6), positive=False)]
    masks = [correction.mask, *map(correction.apply, edits)]
    assert np.array_equal(correction.reset(), masks[0])
    assert not correction.edits
    assert not correction.reset(np.zeros_like(masks[0])).any()
    assert np.array_equal(correction.undo(), masks[0])
    assert np.array_equal(correction.undo(), masks[2])
    assert correction.edits == tuple(edits)
    assert np.array_equal(correction.redo(), masks[0])
    assert not correction.edits


def test_heatmap_tells_apart_what_the_scan_does_not():
    scan, ball, spacing = make_ball()
    left = ball & (np.arange(ball.shape[0]) < ball.shape[0] // 2)[:, None, None]
    voxel = (ball.shape[0] // 2 - 5, ball.shape[1] // 2, ball.shape[2] // 2)
    plain = Correction(scan, spacing).apply(Edit.click(voxel)) > 0
    heatmap = ndimage.gaussian_filter(left.astype(float), (1, 1, 0))
    guided = Correction(scan, spacing, heatmap).apply(Edit.click(voxel)) > 0
    assert measure_dice(guided, left) > measure_dice(plain, left) + 0.1


def test_box_finds_what_lies_in_it():
    scan, ball, spacing = make_ball()
    where = np.argwhere(ball)
    start, stop = where.min(axis=0) - 2, where.max(axis=0) + 3
    found = Correction(scan, spacing).apply(Edit.box(start.clip(0), stop.clip(max=ball.shape)))
    assert measure_dice(found > 0, ball) > 0.9


def test_affine_gives_the_spacing():
    scan, _, _ = make_ball()
    volume = MetaTensor(torch.as_tensor(scan)[None], affine=np.diag([0.5, 2, 3, 1.0]))
    assert Correction(volume).spacing_mm == (0.5, 2.0, 3.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"spacing_mm": None}, "no affine"),
        ({"spacing_mm": (1, 0, 1)}, "three lengths"),
        ({"heatmap": np.zeros((3, 3, 3))}, "heatmap must lie on the scan's grid"),
        ({"mask": np.zeros((3, 3, 3))}, "mask must lie on the scan's grid"),
        ({"mask": np.full((4, 5, 6), 0.5)}, "whole numbers"),
        ({"mask": np.full((4, 5, 6), 300)}, "whole numbers from 0 to 255"),
        ({"heatmap": np.full((4, 5, 6), np.nan)}, "heatmap must be finite"),
        ({"scan": np.full((4, 5, 6), np.inf)}, "scan must be finite"),
        ({"scan": np.zeros((4, 5))}, "must be"),
    ],
)
def test_what_cannot_be_corrected_is_refused(change, match):
    arguments = {"scan": np.zeros((4, 5, 6)), "spacing_mm": (1, 1, 1)} | change
    with pytest.raises(InputError, match=match):
        Correction(**arguments)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Edit.click((0, 0)), r"\(n, 3\)"),
        (lambda: Edit.click((0.5, 0, 0)), "whole numbers"),
        (lambda: Edit.stroke(np.zeros((4, 5, 6))), "at least one voxel"),
        (lambda: Edit.click((0, 0, 0), label=0), "from 1 to 255"),
        (lambda: Edit.box((1, 1, 1), (1, 2, 2)), "begin before it ends"),
    ],
)
def test_what_is_no_edit_is_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


@pytest.mark.parametrize("voxel", [(4, 0, 0), (-1, 0, 0), (0, 5, 0), (0, 0, 99)])
def test_an_edit_outside_the_scan_is_refused_and_changes_nothing(voxel):
    correction = Correction(np.zeros((4, 5, 6)), (1, 1, 1))
    with pytest.raises(InputError, match="inside the scan, which has 4 x 5 x 6 voxels"):
        correction.apply(Edit.click(voxel))
    assert not correction.edits
    assert not correction.mask.any()


def test_reach_is_a_length():
    correction = Correction(np.zeros((4, 5, 6)), (1, 1, 1))
    with pytest.raises(OptionError, match="reach_mm"):
        correction.apply(Edit.click((1, 1, 1)), reach_mm=float("nan"))


def test_what_is_returned_is_the_callers_own():
    correction = Correction(np.zeros((4, 5, 6)), (1, 1, 1))
    correction.apply(Edit.click((1, 1, 1)))[:] = 7
    assert correction.mask.max() == 1


def test_the_last_steps_can_be_taken_back_and_the_earlier_ones_still_hold():
    scan = np.random.default_rng(0).normal(size=(9, 8, 5))
    correction = Correction(scan, (1.0, 1.0, 5.0))
    first = correction.apply(Edit.click((4, 4, 2)))
    for step in range(UNDOABLE):
        correction.apply(Edit.click((step % 9, step // 9, 0), positive=False), reach_mm=0)
    for _ in range(UNDOABLE + 5):
        after = correction.undo()
    np.testing.assert_array_equal(after, first)
    assert len(correction.edits) == 1
    assert correction.apply(Edit.click((4, 3, 2), positive=False))[4, 4, 2] == 1


def test_a_flat_box_is_compared_with_its_own_slice():
    scan = np.random.default_rng(0).normal(100, 5, (40, 40, 9))
    scan[10:30, 12:28, 1:8] += 60
    mask = Correction(scan, (1.0, 1.0, 1.0)).apply(Edit.box((6, 8, 4), (34, 32, 5)))
    expected = np.zeros_like(mask)
    expected[10:30, 12:28, 4] = 1
    assert np.count_nonzero(mask != expected) < 0.25 * expected.sum()


def test_an_edit_that_is_stopped_changes_nothing():
    """Whoever listens may stop it at any of its steps, as a server does after some time."""
    scan = np.random.default_rng(5).normal(100, 20, (24, 20, 8)).astype(np.float32)
    correction, twin = (Correction(scan, (1, 1, 4), mask=scan > 140) for _ in range(2))
    before, _ = correction.apply(Edit.click((3, 3, 2))), twin.apply(Edit.click((3, 3, 2)))
    edit, edits, steps = Edit.stroke([(12, y, 4) for y in range(4, 16)]), correction.edits, []
    with listen(lambda *_: steps.append(1)):
        after = twin.apply(edit)
    assert len(steps) > 5
    for last in range(1, len(steps)):
        left = iter(range(last))
        with pytest.raises(TimeoutError), listen(lambda *_, left=left: stop_after(left)):
            correction.apply(edit)
        np.testing.assert_array_equal(correction.mask, before)
        assert correction.edits == edits
    remote = Edit.click((18, 10, 4))
    twin.undo()
    np.testing.assert_array_equal(correction.apply(remote), twin.apply(remote))  # not heard of it
    correction.undo()
    np.testing.assert_array_equal(correction.apply(edit), after)
    np.testing.assert_array_equal(correction.undo(), before)


def stop_after(left):
    if next(left, None) is None:
        raise TimeoutError
