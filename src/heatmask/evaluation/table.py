"""The table of an evaluation: methods and floors over many cases, whatever a case is.

Thresholds are reported apart by how they were chosen: (a) without any mask, (b) with a few
validation masks, (c) on the very masks reported on, which is an upper bound and no result.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import InputError
from heatmask.evaluation.baselines import FLOORS, Floor, find_inner_head
from heatmask.evaluation.bootstrap import Interval

Scores = dict[str, float]
NAN = float("nan")


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    name
        As the table shows it.
    rule
        How its threshold was chosen: ``"a"``, ``"b"`` or ``"c"`` as above.
    label_free
        Whether no mask was used, neither for training nor for the threshold.
    floor
        Whether it works without learning.
    level
        The level that an oracle was given, in standard deviations above the head's mean.
    """

    name: str
    rule: Literal["a", "b", "c"] = "a"
    label_free: bool = True
    floor: bool = False
    level: float | None = None


@dataclass(frozen=True)
class Row:
    """One method over all cases.

    Attributes
    ----------
    n_counted
        Cases whose Dice is counted: not those where mask and reference are both empty.
    dice, median_dice, mean_iou
        Over the counted cases, NaN without any.
    difference
        Paired, to the best label-free floor; None for that floor itself.
    """

    method: Method
    n_counted: int
    dice: Interval
    median_dice: float
    mean_iou: float
    difference: Interval | None


@dataclass
class ScoreTable(ABC):
    """Scores of every method on every case.

    Attributes
    ----------
    methods
        The methods asked for, then the floors.
    scores
        Per method's name, one `score_mask` result per case.
    left_out
        Why a case could not be scored, by its name.
    unit, cluster
        What a case is, and what the bootstrap draws, in one word each.
    """

    methods: list[Method]
    scores: dict[str, list[Scores]]
    left_out: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    unit: ClassVar[str]
    cluster: ClassVar[str]

    @abstractmethod
    def find_interval(self, values: NDArray[np.float64]) -> Interval:
        """Return the mean of the values (N,), one a case, that are not NaN, with its interval."""

    def column(self, name: str, key: str = "dice") -> NDArray[np.float64]:
        """Return one score (N,) of the method `name`, NaN where it is not counted."""
        return np.array([scores[key] for scores in self.scores[name]])

    @property
    def n_asked(self) -> int:
        """How many cases were to be scored, with those left out."""
        return len(next(iter(self.scores.values()))) + len(self.left_out)

    @property
    def best_floor(self) -> Method:
        """The label-free floor with the highest mean Dice."""
        floors = [m for m in self.methods if m.floor and m.label_free]
        return max(floors, key=lambda m: mean_counted(self.column(m.name), -1.0))

    @cached_property
    def rows(self) -> list[Row]:
        """One row per method, in the order of `methods`."""
        return [self._make_row(method) for method in self.methods]

    def add_mean(self, method: Method, names: Sequence[str]) -> None:
        """Add a method, first of all, that scores the mean of others on every case."""
        columns = zip(*(self.scores[name] for name in names), strict=True)
        self.scores[method.name] = [
            {key: float(np.mean([scores[key] for scores in one])) for key in one[0]}
            for one in columns
        ]
        self.methods.insert(0, method)

    def _make_row(self, method: Method) -> Row:
        dice, best = self.column(method.name), self.best_floor
        counted = dice[~np.isnan(dice)]
        return Row(
            method=method,
            n_counted=counted.size,
            dice=self.find_interval(dice),
            median_dice=float(np.median(counted)) if counted.size else NAN,
            mean_iou=mean_counted(self.column(method.name, "iou")),
            difference=(
                None if method == best else self.find_interval(dice - self.column(best.name))
            ),
        )


def check_masks(case: str, masks: Mapping[str, NDArray], methods: Sequence[Method]) -> None:
    """Refuse masks that are not those of the methods, or are named like floors: `InputError`."""
    names = [method.name for method in methods]
    if sorted(masks) != sorted(names) or set(names) & set(FLOORS):
        raise InputError(
            f"{case}: masks must be given for the methods {sorted(names)}, none of them "
            f"named like a floor, got {sorted(masks)}."
        )


def score_candidates(
    image: NDArray,
    masks: Mapping[str, NDArray],
    spacing_mm: Sequence[float],
    score: Callable[[NDArray], Scores],
    slice_axis: int = 2,
) -> dict[str, list[Scores]]:
    """Score the one mask of each method and every candidate of each floor, on one case.

    Parameters
    ----------
    image, spacing_mm, slice_axis
        As `find_inner_head` takes them.
    masks
        One of the image's shape per method's name.
    score
        Called with each mask.
    """
    head = find_inner_head(image, spacing_mm, slice_axis=slice_axis)
    scores = {name: [score(mask)] for name, mask in masks.items()}
    for name, floor in FLOORS.items():
        scores[name] = [score(mask) for mask in floor.make_candidates(image, head)]
    return scores


def choose_levels(
    methods: Sequence[Method], candidates: Mapping[str, list[list[Scores]]]
) -> tuple[list[Method], dict[str, list[Scores]]]:
    """Give each oracle the level that is best over all cases; the other floors have one mask.

    Parameters
    ----------
    methods
        Those asked for; the floors are added.
    candidates
        Per name and case, what `score_candidates` returned.

    Returns
    -------
    list of Method
        With the floors.
    dict
        Per name, one score a case.
    """
    best = {name: _find_best_candidate(scores) for name, scores in candidates.items()}
    floors = [_describe_floor(name, floor, best[name]) for name, floor in FLOORS.items()]
    chosen = {name: [s[best[name]] for s in scores] for name, scores in candidates.items()}
    return [*methods, *floors], chosen


def mean_counted(values: NDArray[np.float64], without: float = NAN) -> float:
    """Return the mean of what is not NaN; `without` where nothing is left."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else without


def _find_best_candidate(scores: list[list[Scores]]) -> int:
    """Find the candidate with the highest mean Dice over cases; ties go to the first."""
    dice = np.array([[candidate["dice"] for candidate in case] for case in scores])
    return int(np.argmax([mean_counted(column, -1.0) for column in dice.T]))


def _describe_floor(name: str, floor: Floor, best: int) -> Method:
    if floor.label_free:
        return Method(name, floor=True)
    return Method(name, rule="c", label_free=False, floor=True, level=floor.levels[best])
