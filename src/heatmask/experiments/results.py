"""What a comparison found, as numbers: rows of masks, classifiers, trainings and controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heatmask.experiments.bootstrap import Interval, bootstrap_cluster_mean, bootstrap_mean
from heatmask.experiments.cases import Cases
from heatmask.experiments.classifier_metrics import compute_relative_positions, position_only_auroc
from heatmask.experiments.entries import RANDOM, Entry, Refusal, list_draws
from heatmask.experiments.outcomes import Outcome
from heatmask.experiments.predictions import Predictions
from heatmask.experiments.statistics import adjust_holm, compare_paired, estimate_optimism

NAN = float("nan")
ALPHA = 0.05
_NONE = np.zeros(0)
KEYS = (
    "dice", "iou", "hd95", "surface_dice", "mask_size", "reference_size", "false_size",
    "empty", "auprc", "pointing", "energy", "confidence", "seconds",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Row:
    """One way to make masks, on every case.

    Attributes
    ----------
    name
        As tables show it.
    kind
        A trained network's explanation; one of a network that has forgotten; a baseline
        without learning; or a network that was trained on masks.
    rule
        ``"a"``: no mask was looked at; ``"b"``: masks of validation patients chose the threshold
        or trained the network; ``"c"``: the very masks that it is scored on chose the threshold.
    how
        The threshold in words.
    scores
        By key of `KEYS`, (N,), NaN where something is not counted; keys may be absent. ``empty``
        is 1 where there is no mask, else 0; over several draws the mean.
    slice_dice
        Dice of each slice that holds a lesion, with the number of its case, both (M,).
    level
        Of a baseline that was given the best one, in standard deviations above the head's mean.
    """

    name: str
    kind: Literal["method", "control", "baseline", "masks"]
    rule: Literal["a", "b", "c"]
    how: str
    scores: Mapping[str, NDArray[np.float64]]
    entry: Entry | None = None
    slice_dice: tuple[NDArray[np.float64], NDArray[np.int64]] = (_NONE, _NONE.astype(int))
    level: float | None = None

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice of every case."""
        return self.scores["dice"]

    def mean(self, key: str) -> float:
        """Return the mean over cases, NaN left out."""
        values = self.scores.get(key, np.zeros(0))
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else NAN

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Confidence of every case, NaN where no mask is: there Dice says nothing of the mask."""
        return np.where(self.scores["empty"] == 0, self.scores["confidence"], NAN)

    @property
    def n_counted(self) -> int:
        """Cases whose Dice is counted: not those where mask and reference are both empty."""
        return int(np.isfinite(self.dice).sum())

    @property
    def median_dice(self) -> float:
        """Median Dice over the cases that are counted."""
        return float(np.nanmedian(self.dice)) if self.n_counted else NAN

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
    cases, given
        What is scored, and the cases whose masks rule (b) uses; None without masks there.
    rows
        Of masks, in the order of the plan.
    predictions
        By bundle.
    faithfulness
        By entry, deletion and insertion of each case.
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

    cases: Cases
    given: Cases | None
    rows: list[Row] = field(default_factory=list)
    predictions: list[Predictions] = field(default_factory=list)
    faithfulness: dict[Entry, list[dict[str, float]]] = field(default_factory=dict)
    cascades: dict[Entry, list[Depth]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    retrained: str = ""
    memory_gb: dict[Entry, float] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    _intervals: dict[bytes, Interval] = field(default_factory=dict)

    @cached_property
    def position_auroc(self) -> float:
        """AUROC of a table that knows a slice's position alone; NaN for pictures."""
        training = self.cases.training_labels
        if not training:
            return NAN
        tested = [case.labels for case in self.cases.cases]
        known, asked = (
            np.concatenate([compute_relative_positions(len(part)) for part in parts])
            for parts in (training, tested)
        )
        return position_only_auroc(known, np.concatenate(training), asked, np.concatenate(tested))

    @property
    def unit(self) -> str:
        """Of lengths: nominal where the set's spacing is."""
        return "pixels" if self.cases.pictures else "mm"

    def explain_left_out(self) -> list[str]:
        """Return a text for each split of which something was left out."""
        return [
            f"Left out: {len(part.left_out)} of {part.n_asked} {part.unit}s of the split "
            f"{part.split!r}. {' '.join(f'{name}: {why}' for name, why in part.left_out.items())}"
            for part in (self.cases, self.given)
            if part is not None and part.left_out
        ]

    def find_interval(self, values: NDArray[np.float64]) -> Interval:
        """Return the mean of what is not NaN with its 95 % interval over clusters."""
        key = values.tobytes()
        if key not in self._intervals:
            self._intervals[key] = self._bootstrap(values)
        return self._intervals[key]

    def count_missed(self, row: Row) -> float:
        """Return how many cases that show something have no mask, over several networks the mean.

        Those whose reference mask is empty are not counted.
        """
        return float(row.scores["empty"][self.cases.findings & ~np.isnan(row.dice)].sum())

    def count_false(self, row: Row) -> float:
        """Return how many cases that show nothing have a mask, over several networks the mean."""
        return float((1 - row.scores["empty"][~self.cases.findings]).sum())

    def find_dice(self, row: Row) -> Interval:
        """Return a row's mean Dice."""
        return self.find_interval(row.dice)

    def subtract(self, row: Row, other: Row) -> Interval:
        """Return a row's Dice less that of another, paired by case."""
        return self.find_interval(row.dice - other.dice)

    def _bootstrap(self, values: NDArray[np.float64]) -> Interval:
        counted, clusters = ~np.isnan(values), self.cases.clusters
        if not counted.any():
            return Interval(NAN, NAN, NAN)
        if len(set(clusters)) == len(clusters):
            return bootstrap_mean(values[counted])
        return bootstrap_cluster_mean(values[counted], list(compress(clusters, counted)))

    def find_headlines(self) -> list[Row]:
        """Return each trained entry's row by the bundle's own rule, the best first."""
        own = [row for row in self.rows if row.kind == "method" and row.how == "own"]
        return sorted(own, key=lambda row: -row.mean("dice"))

    @cached_property
    def optimism(self) -> float:
        """How much of the best explanation's Dice is owed to its choice; NaN for a single one."""
        rows = self.find_headlines()
        if len(rows) < 2:
            return NAN
        return estimate_optimism([row.dice for row in rows], self.cases.clusters)

    def find_row(self, entry: Entry, how: str = "own") -> Row | None:
        """Return an entry's row by a rule, None where there is none."""
        found = [row for row in self.rows if row.entry == entry and row.how == how]
        return found[0] if found else None

    def find_control(self, entry: Entry | None) -> Row | None:
        """Return the row of the same method on random weights."""
        return None if entry is None else self.find_row(Entry(entry.bundle, entry.method, RANDOM))

    @cached_property
    def best_baseline(self) -> Row | None:
        """The label-free baseline of the highest mean Dice."""
        baselines = [row for row in self.rows if row.kind == "baseline" and row.label_free]
        return max(baselines, key=lambda row: row.mean("dice"), default=None)

    @cached_property
    def ranking(self) -> list[tuple[Row, float]]:
        """Explanations, the best first, then what needs none, each with p against the first.

        p is paired by cluster and adjusted for the number of rows.
        """
        others = [row for row in self.rows if row.kind in ("baseline", "masks")]
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
                self.subtract(row, control),
                p,
            )
            for (row, control), p in zip(pairs, self._compare(pairs), strict=True)
        ]

    def _count_draws(self, row: Row) -> int:
        draws = list_draws(row.entry) if row.entry else []
        return sum(self.find_row(draw) is not None for draw in draws)

    def _compare(self, pairs: Sequence[tuple[Row, Row]]) -> list[float]:
        clusters = self.cases.clusters
        found = [compare_paired(a.dice, b.dice, clusters) for a, b in pairs]
        return adjust_holm(found).tolist()
