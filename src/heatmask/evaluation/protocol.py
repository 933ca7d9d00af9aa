"""Score methods and floors over patients' volumes, one scan in memory at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heatmask.errors import InputError
from heatmask.evaluation.bootstrap import Interval, bootstrap_clusters, bootstrap_mean
from heatmask.evaluation.classification import (
    DecileAuroc,
    auroc_within_position_deciles,
    compute_relative_positions,
    position_only_auroc,
    score_slices,
    slice_auroc,
)
from heatmask.evaluation.segmentation import (
    check_same_shape,
    measure_spacing_mm,
    score_mask,
)
from heatmask.evaluation.table import (
    NAN,
    Method,
    Scores,
    ScoreTable,
    check_masks,
    choose_levels,
    score_candidates,
)


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
        A human's label map (X, Y, Z), on the scan's voxels (see `match_voxels`).
    affine
        4 x 4 voxel-to-world affine of all of them, in mm.
    slice_probabilities, slice_labels
        (n,) for the n slices along `slice_axis`: the network's probability of tumour and 0 or 1.
    """

    patient: str
    image: NDArray
    masks: Mapping[str, NDArray]
    reference: NDArray
    affine: NDArray
    slice_probabilities: ArrayLike
    slice_labels: ArrayLike
    slice_axis: int = 2

    def __post_init__(self) -> None:
        for array in (self.image, *self.masks.values()):
            check_same_shape(array, self.reference)
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
class Evaluation(ScoreTable):
    """Scores of every method on every patient, and of the slices.

    Attributes
    ----------
    methods, scores
        As in `ScoreTable`, one score a patient.
    patients
        (P,) in the order of the cases.
    slices
        All slices with their probabilities.
    position_auroc
        AUROC of the position-only table, NaN where no training slices were given.
    notes
        Sentences that belong under the table, such as that spacing is nominal.
    """

    patients: list[str]
    slices: Slices
    position_auroc: float = NAN
    notes: tuple[str, ...] = ()

    unit = cluster = "patient"

    def find_interval(self, values: NDArray[np.float64]) -> Interval:
        """Bootstrap over patients; NaN where not one is counted."""
        counted = values[~np.isnan(values)]
        return bootstrap_mean(counted) if counted.size else Interval(NAN, NAN, NAN)

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
            return 2 * right / (2 * right + wrong) if right + wrong else NAN

        statistics = {
            "auroc": lambda chosen: slice_auroc(labels[chosen], told[chosen]),
            "auroc_within_deciles": rank_within_deciles,
            "f1": find_f1,
        }
        return {name: bootstrap_clusters(f, s.patients) for name, f in statistics.items()}


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
        for name, found in _score_case(case).items():
            candidates.setdefault(name, []).append(found)
    if not patients:
        raise InputError("An evaluation needs at least one case, got none. Check the data list.")
    all_methods, scores = choose_levels(methods, candidates)
    return Evaluation(
        all_methods,
        scores,
        patients=patients,
        slices=slices,
        position_auroc=_score_position_table(training_slices, slices),
        notes=tuple(notes),
    )


def _check_case(case: Case, patients: Sequence[str], methods: Sequence[Method]) -> None:
    if case.patient in patients:
        raise InputError(
            f"Each patient must come once, got {case.patient} again. Choose one scan per patient."
        )
    check_masks(case.patient, case.masks, methods)


def _score_case(case: Case) -> dict[str, list[Scores]]:
    """Score each method's one mask and each floor's candidates."""

    def score(mask: NDArray) -> Scores:
        return score_mask(mask, case.reference, case.spacing_mm, case.slice_axis)

    return score_candidates(case.image, case.masks, case.spacing_mm, score, case.slice_axis)


def _score_position_table(
    training_slices: tuple[ArrayLike, ArrayLike] | None, slices: Slices
) -> float:
    if training_slices is None:
        return NAN
    return position_only_auroc(*training_slices, slices.positions, slices.labels)
