"""What is new in a viewer's strokes and clicks, and what is kept of them and for how long."""

from contextlib import nullcontext

import numpy as np
import pytest

from heatmask.errors import InputError, NotFoundError
from heatmask.interaction import Correction, Edit
from heatmask.serving.corrections import (
    BACKGROUND,
    FOREGROUND,
    Clicks,
    Corrections,
    Strokes,
    limit_edit,
)

SHAPE, SPACING_MM = (24, 20, 9), (1.5, 1.25, 4.0)


def make_correction() -> Correction:
    scan = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    scan[4:12, 5:13, 2:6] += 80
    return Correction(scan, SPACING_MM)


def paint(kind: int, *voxels: tuple[int, int, int]) -> np.ndarray:
    painted = np.zeros(SHAPE, np.int8)
    painted[tuple(np.array(voxels).T)] = kind
    return painted


FIRST, SECOND, OUT = paint(FOREGROUND, (7, 8, 4)), paint(FOREGROUND, (20, 16, 7)), (2, 2, 1)


@pytest.fixture
def strokes() -> Strokes:
    return Strokes(make_correction(), 1, np.zeros(SHAPE, np.int8))


def test_a_stroke_that_comes_again_counts_once(strokes: Strokes) -> None:
    first = strokes.update(np.zeros(SHAPE, np.uint8), FIRST)
    assert first[7, 8, 4] == 1
    np.testing.assert_array_equal(strokes.update(first, FIRST), first)
    both = strokes.update(first, FIRST + SECOND)
    alone = make_correction()
    alone.apply(Edit.click((7, 8, 4)))
    np.testing.assert_array_equal(both, alone.apply(Edit.click((20, 16, 7))))


def test_what_was_changed_by_hand_counts(strokes: Strokes) -> None:
    first = strokes.update(np.zeros(SHAPE, np.uint8), FIRST)
    by_hand = first.copy()
    by_hand[OUT], by_hand[5:7] = 1, 0
    np.testing.assert_array_equal(strokes.update(by_hand, FIRST), by_hand)
    after = strokes.update(by_hand, FIRST + paint(BACKGROUND, OUT))
    assert after[OUT] == 0
    assert after[7, 8, 4] == 1, "the earlier stroke still holds"


def test_an_erased_stroke_says_nothing_any_more(strokes: Strokes) -> None:
    first = strokes.update(np.zeros(SHAPE, np.uint8), FIRST)
    erased = strokes.update(first, np.zeros(SHAPE, np.int8))
    np.testing.assert_array_equal(erased, first)
    assert not strokes.update(erased, paint(BACKGROUND, (7, 8, 4)))[7, 8, 4]


def test_what_lies_below_a_stroke_is_not_taken_for_a_change(strokes: Strokes) -> None:
    """A label volume holds one value a voxel: the painted ones hide the mask."""
    first = strokes.update(np.zeros(SHAPE, np.uint8), FIRST)
    hidden = np.where(FIRST == 0, first, 0).astype(np.uint8)
    np.testing.assert_array_equal(strokes.update(hidden, FIRST), first)
    assert len(strokes.correction.edits) == 1, "nothing was begun anew"


def test_clicks_are_answered_once_and_taken_back() -> None:
    clicks = Clicks(make_correction(), 1)
    states = [clicks.update([], [])]
    for foreground, background in (
        ([(7, 8, 4)], []), ([(7, 8, 4), (20, 16, 7)], []), ([(7, 8, 4), (20, 16, 7)], [OUT]),
    ):  # fmt: skip
        states.append(clicks.update(foreground, background))
        np.testing.assert_array_equal(clicks.update(foreground, background), states[-1])
    assert len(clicks.correction.edits) == 3
    np.testing.assert_array_equal(clicks.update([(7, 8, 4), (20, 16, 7)], []), states[2])
    without = clicks.update([(20, 16, 7)], [])  # the first of them was removed
    alone = make_correction().apply(Edit.click((20, 16, 7)))
    np.testing.assert_array_equal(without, alone)
    with pytest.raises(InputError, match="24 x 20 x 9 voxels"):
        clicks.update([(20, 16, 7), (24, 0, 0)], [])
    np.testing.assert_array_equal(clicks.update([(20, 16, 7)], []), without)


def test_what_is_kept_is_bounded_and_ends() -> None:
    now = [0.0]
    voxels = int(np.prod(SHAPE))
    kept = Corrections(2 * voxels, 60, clock=lambda: now[0])
    made = []

    def make(name: str) -> Clicks:
        made.append(name)
        return Clicks(make_correction(), 1)

    def use(*names: str) -> list[str]:
        made.clear()
        for name in names:
            with kept.open(name, lambda name=name: make(name)):
                pass
        return list(made)

    assert use("a", "b", "a") == ["a", "b"]
    assert use("c", "a", "b") == ["c", "b"], "b was unused for longest when c came"
    now[0] += 61
    assert use("a") == ["a"]
    kept.drop("a")
    assert use("a") == ["a"]


def test_many_clicks_can_be_taken_back_at_once() -> None:
    clicks = Clicks(make_correction(), 1)
    many = [(x, y, 1) for x in range(14, 22) for y in range(2, 10)]
    first = clicks.update([(7, 8, 4)], [])
    clicks.update([(7, 8, 4)], many)
    np.testing.assert_array_equal(clicks.update([(7, 8, 4)], []), first)


@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_an_edit_that_takes_too_long_is_not_made(seconds: float) -> None:
    clicks = Clicks(make_correction(), 1)
    before = clicks.update([(7, 8, 4)], [])
    refused = pytest.raises(InputError, match="at most 0 s; this one took longer and was not made")
    with refused if seconds == 0 else nullcontext(), limit_edit(seconds=seconds):
        clicks.update([(7, 8, 4)], [(20, 16, 7)])
    assert len(clicks.correction.edits) == 1 + (seconds > 0)
    if not seconds:
        np.testing.assert_array_equal(clicks.correction.mask, before)
    after = clicks.update([(7, 8, 4)], [(20, 16, 7)])
    assert not after[20, 16, 7]
    assert after[7, 8, 4]


def test_an_edit_is_stopped_with_its_job() -> None:
    """Its client has gone, or the server ends."""

    def stop(done: int, total: int) -> None:
        raise NotFoundError("gone")

    clicks = Clicks(make_correction(), 1)
    with pytest.raises(NotFoundError, match="gone"), limit_edit(stop):
        clicks.update([(7, 8, 4)], [])
    assert not clicks.correction.edits
