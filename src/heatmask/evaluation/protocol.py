"""Score methods and floors over patients, one scan in memory at a time.

Thresholds are reported apart by how they were chosen: (a) without any mask, (b) with a few
validation masks, (c) on the very masks reported on, which is an upper bound and no result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heatmask.errors import InputError
from heatmask.evaluation.baselines import FLOORS, Floor, find_inner_head
from heatmask.evaluation.bootstrap import (
    Interval,
    bootstrap_clusters,
    bootstrap_mean,
    paired_difference,
)
from heatmask.evaluation.classification import (
    DecileAuroc,
    auroc_within_position_deciles,
    compute_relative_positions,
    position_only_auroc,
    score_slices,
    slice_auroc,
)
from heatmask.evaluation.segmentation import (
    check_same_affine,
    check_same_shape,
    measure_spacing_mm,
    score_mask,
)

Scores = dict[str, float]


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


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's scan with the masks made of it; checked when made (`InputError`).

    Attributes
    ----------
    patient
        One case per patient, for the patient is what the bootstrap draws.
    image
        Scan (X, Y, Z), finite.
    masks
        One label map (X, Y, Z) per method's name.
    reference
        A human's label map (X, Y, Z).
    affine, reference_affine
        4 x 4 voxel-to-world affines of the scan (and its masks) and of the reference, in mm.
    slice_probabilities, slice_labels
        (n,) for the n slices along `slice_axis`: the network's probability of tumour and 0 or 1.
    """

    patient: str
    image: NDArray
    masks: Mapping[str, NDArray]
    reference: NDArray
    affine: NDArray
    reference_affine: NDArray
    slice_probabilities: ArrayLike
    slice_labels: ArrayLike
    slice_axis: int = 2

    def __post_init__(self) -> None:
        for array in (self.image, *self.masks.values()):
            check_same_shape(array, self.reference)
        check_same_affine(self.affine, self.reference_affine, self.reference.shape)
        n_slices = self.reference.shape[self.slice_axis]
        for name in ("slice_probabilities", "slice_labels"):
            n_given = np.size(getattr(self, name))
            if n_given != n_slices:
                raise InputError(
                    f"{self.patient}: {name} must hold one value for each of the {n_slices} "
                    f"slices along axis {self.slice_axis}, got {n_given}."
                )

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Length of a voxel's edge along each axis."""
        return tuple(float(edge) for edge in measure_spacing_mm(self.affine))


@dataclass(frozen=True)
class Row:
    """One method over all patients.

    Attributes
    ----------
    n_counted
        Patients whose Dice is counted: not those where mask and reference are both empty.
    dice, median_dice, mean_iou
        Over the counted patients, NaN without any.
    tumour_free_slices_ml
        Mean volume found on slices without tumour, over all patients.
    difference
        Paired, to the best label-free floor; None for that floor itself.
    """

    method: Method
    n_counted: int
    dice: Interval
    median_dice: float
    mean_iou: float
    tumour_free_slices_ml: float
    difference: Interval | None


@dataclass
class Slices:
    """Every slice of every case: label, probability, relative position and patient, each (N,)."""

    labels: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    positions: list[float] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Take in the slices of one case."""
        labels = np.ravel(case.slice_labels)
        self.labels += labels.tolist()
        self.probabilities += np.ravel(case.slice_probabilities).tolist()
        self.positions += compute_relative_positions(labels.size).tolist()
        self.patients += [case.patient] * labels.size


@dataclass
class Evaluation:
    """Scores of every method on every patient, and of the slices.

    Attributes
    ----------
    patients
        (P,) in the order of the cases.
    methods
        The methods asked for, then the floors.
    scores
        Per method's name, one `score_mask` result per patient.
    slices
        All slices with their probabilities.
    position_auroc
        AUROC of the position-only table, NaN where no training slices were given.
    notes
        Sentences that belong under the table, such as that spacing is nominal.
    """

    patients: list[str]
    methods: list[Method]
    scores: dict[str, list[Scores]]
    slices: Slices
    position_auroc: float = float("nan")
    notes: tuple[str, ...] = ()

    def column(self, name: str, key: str = "dice") -> NDArray[np.float64]:
        """Return one score (P,) of the method `name`, NaN where it is not counted."""
        return np.array([scores[key] for scores in self.scores[name]])

    @property
    def best_floor(self) -> Method:
        """The label-free floor with the highest mean Dice."""
        floors = [m for m in self.methods if m.floor and m.label_free]
        return max(floors, key=lambda m: _mean_counted(self.column(m.name)))

    @cached_property
    def rows(self) -> list[Row]:
        """One row per method, in the order of `methods`."""
        return [self._make_row(method) for method in self.methods]

    @cached_property
    def slice_scores(self) -> Scores:
        """`score_slices` of all slices together."""
        return score_slices(self.slices.labels, self.slices.probabilities)

    @cached_property
    def deciles(self) -> DecileAuroc:
        """AUROC within each tenth of the stack."""
        s = self.slices
        return auroc_within_position_deciles(s.labels, s.probabilities, s.positions)

    @cached_property
    def slice_intervals(self) -> dict[str, Interval]:
        """``auroc``, ``auroc_within_deciles`` and ``f1`` with their intervals over patients."""
        s = self.slices
        labels, told, positions = (np.array(x) for x in (s.labels, s.probabilities, s.positions))

        def rank_within_deciles(chosen: NDArray[np.int64]) -> float:
            within = (labels[chosen], told[chosen], positions[chosen])
            return auroc_within_position_deciles(*within).mean

        def find_f1(chosen: NDArray[np.int64]) -> float:
            true, said = labels[chosen] == 1, told[chosen] >= 0.5
            wrong, right = (true != said).sum(), (true & said).sum()
            return 2 * right / (2 * right + wrong) if right + wrong else float("nan")

        statistics = {
            "auroc": lambda chosen: slice_auroc(labels[chosen], told[chosen]),
            "auroc_within_deciles": rank_within_deciles,
            "f1": find_f1,
        }
        return {name: bootstrap_clusters(f, s.patients) for name, f in statistics.items()}

    def add_mean(self, method: Method, names: Sequence[str]) -> None:
        """Add a method, first of all, that scores the mean of others on every patient."""
        columns = zip(*(self.scores[name] for name in names), strict=True)
        self.scores[method.name] = [
            {key: float(np.mean([scores[key] for scores in one])) for key in one[0]}
            for one in columns
        ]
        self.methods.insert(0, method)

    def _make_row(self, method: Method) -> Row:
        dice, iou = self.column(method.name), self.column(method.name, "iou")
        counted = dice[~np.isnan(dice)]
        return Row(
            method=method,
            n_counted=counted.size,
            dice=_interval(counted),
            median_dice=float(np.median(counted)) if counted.size else float("nan"),
            mean_iou=_mean_counted(iou, float("nan")),
            tumour_free_slices_ml=float(self.column(method.name, "tumour_free_slices_ml").mean()),
            difference=None if method == self.best_floor else self._compare(dice),
        )

    def _compare(self, dice: NDArray[np.float64]) -> Interval:
        floor = self.column(self.best_floor.name)
        both = ~np.isnan(dice) & ~np.isnan(floor)
        if not both.any():
            return _interval(dice[both])
        return paired_difference(dice[both], floor[both])


def evaluate_cases(
    cases: Iterable[Case],
    methods: Sequence[Method],
    training_slices: tuple[ArrayLike, ArrayLike] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Score `methods` and every floor of `baselines.FLOORS` on `cases`.

    Parameters
    ----------
    cases
        Taken one after the other and not kept: let a generator load them.
    methods
        Each case has to carry a mask for each, by name.
    training_slices
        Relative positions and labels of the training patients' slices, for the table that
        knows nothing but the position.
    notes
        Sentences to print under the table.

    Raises
    ------
    InputError
        If there is no case, a patient comes twice, or a case's masks are not those of `methods`.
    """
    patients: list[str] = []
    candidates: dict[str, list[list[Scores]]] = {}
    slices = Slices()
    for case in cases:
        _check_case(case, patients, methods)
        patients.append(case.patient)
        slices.add(case)
        for name, scores in _score_case(case).items():
            candidates.setdefault(name, []).append(scores)
    if not patients:
        raise InputError("An evaluation needs at least one case, got none. Check the data list.")
    best = {name: _find_best_candidate(scores) for name, scores in candidates.items()}
    return Evaluation(
        patients=patients,
        methods=[*methods, *(_describe_floor(n, f, best[n]) for n, f in FLOORS.items())],
        scores={n: [s[best[n]] for s in scores] for n, scores in candidates.items()},
        slices=slices,
        position_auroc=_score_position_table(training_slices, slices),
        notes=tuple(notes),
    )


def _check_case(case: Case, patients: Sequence[str], methods: Sequence[Method]) -> None:
    if case.patient in patients:
        raise InputError(
            f"Each patient must come once, got {case.patient} again. Choose one scan per patient."
        )
    names = [method.name for method in methods]
    if sorted(case.masks) != sorted(names) or set(names) & set(FLOORS):
        raise InputError(
            f"{case.patient}: masks must be given for the methods {sorted(names)}, none of them "
            f"named like a floor, got {sorted(case.masks)}."
        )


def _score_case(case: Case) -> dict[str, list[Scores]]:
    """Score each method's one mask and each floor's candidates."""

    def score(mask: NDArray) -> Scores:
        return score_mask(mask, case.reference, case.spacing_mm, case.slice_axis)

    head = find_inner_head(case.image, case.spacing_mm, slice_axis=case.slice_axis)
    scores = {name: [score(mask)] for name, mask in case.masks.items()}
    for name, floor in FLOORS.items():
        scores[name] = [score(mask) for mask in floor.make_candidates(case.image, head)]
    return scores


def _find_best_candidate(scores: list[list[Scores]]) -> int:
    """Find the candidate with the highest mean Dice over patients; ties go to the first."""
    dice = np.array([[candidate["dice"] for candidate in patient] for patient in scores])
    return int(np.argmax([_mean_counted(column) for column in dice.T]))


def _describe_floor(name: str, floor: Floor, best: int) -> Method:
    if floor.label_free:
        return Method(name, floor=True)
    return Method(name, rule="c", label_free=False, floor=True, level=floor.levels[best])


def _score_position_table(
    training_slices: tuple[ArrayLike, ArrayLike] | None, slices: Slices
) -> float:
    if training_slices is None:
        return float("nan")
    return position_only_auroc(*training_slices, slices.positions, slices.labels)


def _interval(counted: NDArray[np.float64]) -> Interval:
    """Bootstrap, or NaN where not one patient is counted."""
    return bootstrap_mean(counted) if counted.size else Interval(*[float("nan")] * 3)


def _mean_counted(values: NDArray[np.float64], without: float = -1.0) -> float:
    """Mean of what is counted, `without` where nothing is: below any Dice, to be chosen last."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else without
