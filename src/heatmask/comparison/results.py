"""What a comparison found, as numbers: rows of masks, classifiers, trainings and controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heatmask.comparison.entries import RANDOM, Entry, Refusal, list_draws
from heatmask.comparison.outcomes import Outcome
from heatmask.comparison.subjects import Subjects
from heatmask.evaluation.bootstrap import Interval, bootstrap_cluster_mean, bootstrap_mean
from heatmask.evaluation.paired import adjust_holm, compare_paired
from heatmask.evaluation.report import explain_left_out

NAN = float("nan")
ALPHA = 0.05
KEYS = (
    "dice", "iou", "hd95", "surface_dice", "mask_size", "reference_size", "false_size",
    "empty", "auprc", "pointing", "energy", "confidence", "seconds",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Row:
    """One way to make masks, on every subject.

    Attributes
    ----------
    name
        As tables show it.
    kind
        A trained network's explanation; one of a network that has forgotten; a floor without
        learning; or a network that was trained on masks.
    rule
        ``"a"``: no mask was looked at; ``"b"``: masks of validation patients chose the threshold
        or trained the network; ``"c"``: the very masks that it is scored on chose the threshold.
    how
        The threshold in words.
    scores
        By key of `KEYS`, (N,), NaN where something is not counted; keys may be absent. ``empty``
        is 1 where there is no mask, else 0; over several draws the mean.
    slice_dice
        Dice of each slice that holds a lesion, with the number of its subject, both (M,).
    """

    name: str
    kind: Literal["method", "control", "floor", "masks"]
    rule: Literal["a", "b", "c"]
    how: str
    scores: Mapping[str, NDArray[np.float64]]
    entry: Entry | None = None
    slice_dice: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None

    def get(self, key: str) -> NDArray[np.float64] | None:
        """Return a score of every subject, None where it was not asked."""
        return self.scores.get(key)

    def mean(self, key: str) -> float:
        """Return the mean over subjects, NaN left out."""
        values = self.scores.get(key)
        if values is None or not np.isfinite(values).any():
            return NAN
        return float(np.nanmean(values))

    @property
    def label_free(self) -> bool:
        """Whether no mask was looked at."""
        return self.rule == "a"


@dataclass(frozen=True, eq=False)
class Contrast:
    """A trained network's masks beside those of random weights.

    Attributes
    ----------
    row, control
        By the same method and rule; the control is the mean over `draws` networks.
    difference
        Of Dice.
    p
        Paired, adjusted for all contrasts of the comparison.
    """

    row: Row
    control: Row
    draws: int
    difference: Interval
    p: float

    @property
    def holds(self) -> bool:
        """Whether the masks are better than those of random weights."""
        return self.difference.low > 0 and self.p < ALPHA

    @property
    def is_idle(self) -> bool:
        """Whether the control has no mask anywhere, so that anything is better."""
        return bool((self.control.scores["empty"] == 1).all())


@dataclass(frozen=True, eq=False)
class Classifier:
    """What the classifier of a bundle said of every slice or picture.

    Attributes
    ----------
    name
        The bundle's.
    labels
        (N,), 0 or 1 of slices; the class, from 0, of pictures.
    probabilities
        (N, K).
    positions
        (N,), relative height of slices.
    clusters
        (N,).
    """

    name: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    positions: NDArray[np.float64]
    clusters: Sequence[str]


@dataclass(frozen=True)
class Depth:
    """How a method fares when the stages nearest to the output have forgotten.

    Attributes
    ----------
    stages
        How many have.
    last
        The one farthest from the output among them.
    dice, difference, similarity
        Mean Dice of the masks; the same less that of the trained network's; mean rank correlation
        with its heatmap.
    """

    stages: int
    last: str
    dice: float
    difference: Interval
    similarity: float


@dataclass(eq=False)
class Comparison:
    """All that a report tells.

    Attributes
    ----------
    subjects, given
        What is scored, and the subjects whose masks rule (b) uses; None without masks there.
    rows
        Of masks, in the order of the plan.
    classifiers
        By bundle.
    faithfulness
        By entry, deletion and insertion of each subject.
    cascades
        By entry, from no stage to all.
    outcomes, retrained
        Of retraining, and the bundle it was done with.
    memory_gb
        By entry, what explaining a volume took at most beside what was there.
    refused
        What could not be done, and why.
    notes
        Sentences on how the figures were obtained.
    """

    subjects: Subjects
    given: Subjects | None
    rows: list[Row] = field(default_factory=list)
    classifiers: list[Classifier] = field(default_factory=list)
    faithfulness: dict[Entry, list[dict[str, float]]] = field(default_factory=dict)
    cascades: dict[Entry, list[Depth]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    retrained: str = ""
    memory_gb: dict[Entry, float] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    position_auroc: float = NAN

    @property
    def unit(self) -> str:
        """Of lengths: nominal where the set's spacing is."""
        return "pixels" if self.subjects.pictures else "mm"

    def explain_left_out(self) -> list[str]:
        """Return a text for each split of which something was left out."""
        what = "pictures" if self.subjects.pictures else "volumes"
        lines = []
        for part in filter(None, (self.subjects, self.given)):
            items = f"{what} of the split {part.split!r}"
            lines += explain_left_out(part.left_out, part.n_asked, items)
        return lines

    def find_interval(self, values: NDArray[np.float64]) -> Interval:
        """Return the mean of what is not NaN with its 95 % interval over clusters."""
        counted = ~np.isnan(values)
        if not counted.any():
            return Interval(NAN, NAN, NAN)
        clusters = self.subjects.clusters
        if len(set(clusters)) == len(clusters):
            return bootstrap_mean(values[counted])
        return bootstrap_cluster_mean(values, clusters)

    def find_headlines(self) -> list[Row]:
        """Return each trained entry's row by the bundle's own rule, the best first."""
        own = [row for row in self.rows if row.kind == "method" and row.how == "own"]
        return sorted(own, key=lambda row: -row.mean("dice"))

    def find_row(self, entry: Entry, how: str = "own") -> Row | None:
        """Return an entry's row by a rule, None where there is none."""
        found = [row for row in self.rows if row.entry == entry and row.how == how]
        return found[0] if found else None

    def find_control(self, entry: Entry | None) -> Row | None:
        """Return the row of the same method on random weights."""
        return None if entry is None else self.find_row(Entry(entry.bundle, entry.method, RANDOM))

    @cached_property
    def best_floor(self) -> Row | None:
        """The label-free floor of the highest mean Dice."""
        floors = [row for row in self.rows if row.kind == "floor" and row.label_free]
        return max(floors, key=lambda row: row.mean("dice"), default=None)

    @cached_property
    def ranking(self) -> list[tuple[Row, float]]:
        """Explanations, the best first, then what needs none, each with p against the first.

        p is paired by cluster and adjusted for the number of rows.
        """
        others = [row for row in self.rows if row.kind in ("floor", "masks")]
        others.sort(key=lambda row: -row.mean("dice"))
        first, *rest = [*self.find_headlines(), *others]
        p_values = self._compare([(row, first) for row in rest])
        return [(first, NAN), *zip(rest, p_values, strict=True)]

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Explanations beside the same on random weights, the best first."""
        pairs = [
            (row, control)
            for row in self.find_headlines()
            if (control := self.find_control(row.entry)) is not None
        ]
        return [
            Contrast(
                row,
                control,
                self._count_draws(row),
                self.find_interval(row.scores["dice"] - control.scores["dice"]),
                p,
            )
            for (row, control), p in zip(pairs, self._compare(pairs), strict=True)
        ]

    def _count_draws(self, row: Row) -> int:
        draws = list_draws(row.entry) if row.entry else []
        return sum(self.find_row(draw) is not None for draw in draws)

    def _compare(self, pairs: Sequence[tuple[Row, Row]]) -> list[float]:
        clusters = self.subjects.clusters
        found = [compare_paired(a.scores["dice"], b.scores["dice"], clusters) for a, b in pairs]
        return adjust_holm(found).tolist()
