"""Score methods and floors over single 2D pictures, each of which shows one of several classes.

Everything is counted in pixels: a picture has no spacing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import InputError
from heatmask.evaluation.baselines import SCALP_MM
from heatmask.evaluation.bootstrap import Interval, bootstrap_cluster_mean
from heatmask.evaluation.multiclass import ClassScores, score_classes
from heatmask.evaluation.segmentation import check_same_shape, score_mask
from heatmask.evaluation.table import (
    Method,
    Scores,
    ScoreTable,
    check_masks,
    choose_levels,
    mean_counted,
    score_candidates,
)

RIGHT_CLASS = "right class only"
"""Name of the row where a picture of which the wrong class is told counts 0."""
RIM_SHARE = 1 / 32
"""How thick the scalp is for the floors, beside the picture's longer side, which a head fills."""
_ML_EDGES_MM = (10.0, 10.0, 10.0)  # So that a pixel is 1 ml, and `score_mask` counts pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture with the masks made of it; checked when made (`InputError`).

    Attributes
    ----------
    name
        One that no other picture has.
    group
        What the bootstrap draws: the patient, or what comes near to it.
    image
        (X, Y, 1), finite, air dark.
    masks
        One label map (X, Y, 1) per method's name.
    reference
        A human's label map (X, Y, 1).
    class_idx
        The true class, 0 to K - 1.
    probabilities
        Per method's name, the (K,) class probabilities of its network.
    """

    name: str
    group: str
    image: NDArray
    masks: Mapping[str, NDArray]
    reference: NDArray
    class_idx: int
    probabilities: Mapping[str, NDArray]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 1:
            raise InputError(f"A picture must have the shape (X, Y, 1), got {self.image.shape}.")
        for array in (self.image, *self.masks.values()):
            check_same_shape(array, self.reference)
        if sorted(self.masks) != sorted(self.probabilities):
            raise InputError(
                f"Each mask must come with probabilities, got masks of "
                f"{sorted(self.masks)} and probabilities of {sorted(self.probabilities)}."
            )


@dataclass
class PictureEvaluation(ScoreTable):
    """Scores of every method on every picture, and of the classes told.

    Attributes
    ----------
    methods, scores
        As in `ScoreTable`. A score is ``dice`` and ``iou`` of the foreground (any class), NaN
        where mask and reference are both empty; ``mask_pixels`` and ``reference_pixels``. After
        each method comes its twin `RIGHT_CLASS`.
    pictures, groups
        (N,), name and group of each picture.
    class_names
        (K,).
    class_idx
        (N,), the true classes.
    probabilities
        Per method's name but the floors', (N, K).
    notes
        Sentences that belong under the table.
    """

    pictures: list[str]
    groups: list[str]
    class_names: tuple[str, ...]
    class_idx: NDArray[np.int64]
    probabilities: dict[str, NDArray[np.float64]]
    notes: tuple[str, ...] = ()

    unit = "picture"
    cluster = "group"

    def find_interval(self, values: NDArray[np.float64]) -> Interval:
        """Bootstrap over groups; NaN where there is but one, or nothing is counted."""
        return bootstrap_cluster_mean(values, self.groups)

    def find_class_dice(self, name: str) -> list[float]:
        """Return the mean Dice of the method `name` over the pictures of each class, (K,)."""
        dice = self.column(name)
        return [mean_counted(dice[self.class_idx == k]) for k in range(len(self.class_names))]

    @property
    def classifier(self) -> str:
        """The method whose network's classes are reported: the first."""
        return next(iter(self.probabilities))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class (N,) that this network tells."""
        return self.probabilities[self.classifier].argmax(axis=1)

    @cached_property
    def classes(self) -> ClassScores:
        """How well it tells them."""
        return self.score_classes(self.classifier)

    def score_classes(self, name: str) -> ClassScores:
        """Score the classes that the network of the method `name` tells."""
        return score_classes(self.class_idx, self.probabilities[name], self.groups)


def evaluate_pictures(
    pictures: Iterable[Picture],
    methods: Sequence[Method],
    class_names: Sequence[str],
    notes: Sequence[str] = (),
) -> PictureEvaluation:
    """Score `methods`, their twins `RIGHT_CLASS` and every floor of `baselines.FLOORS`.

    Parameters
    ----------
    pictures
        Taken one after the other and not kept: let a generator load them.
    methods
        Each picture has to carry a mask and probabilities for each, by name.
    class_names
        Two or more.
    notes
        Sentences to print under the table.

    Raises
    ------
    InputError
        If there is no picture, one comes twice, its masks are not those of `methods`, or its
        class or probabilities are not of `class_names`.
    """
    names: list[str] = []
    groups: list[str] = []
    class_idx: list[int] = []
    told: dict[str, list[NDArray]] = {method.name: [] for method in methods}
    candidates: dict[str, list[list[Scores]]] = {}
    for picture in pictures:
        _check_picture(picture, names, methods, len(class_names))
        names.append(picture.name)
        groups.append(picture.group)
        class_idx.append(picture.class_idx)
        for name in told:
            told[name].append(np.asarray(picture.probabilities[name], float))
        for name, found in _score_picture(picture).items():
            candidates.setdefault(name, []).append(found)
    if not names:
        raise InputError("An evaluation needs at least one picture, got none. Check the table.")
    all_methods, scores = choose_levels(methods, candidates)
    evaluation = PictureEvaluation(
        all_methods,
        scores,
        pictures=names,
        groups=groups,
        class_names=tuple(class_names),
        class_idx=np.array(class_idx),
        probabilities={name: np.stack(rows) for name, rows in told.items()},
        notes=tuple(notes),
    )
    for method in methods:
        _add_right_class(evaluation, method)
    return evaluation


def name_right_class(name: str) -> str:
    """Return the name of the twin that counts only pictures whose class is told rightly."""
    return f"{name}, {RIGHT_CLASS}"


def _check_picture(
    picture: Picture, names: Sequence[str], methods: Sequence[Method], n_classes: int
) -> None:
    if picture.name in names:
        raise InputError(f"Each picture must come once, got {picture.name} again.")
    check_masks(picture.name, picture.masks, methods)
    shapes = {np.shape(p) for p in picture.probabilities.values()}
    if n_classes < 2 or picture.class_idx not in range(n_classes) or shapes != {(n_classes,)}:
        raise InputError(
            f"{picture.name}: a picture must show one of two classes or more, with a probability "
            f"for each; got class {picture.class_idx} of {n_classes} and probabilities of shape "
            f"{', '.join(map(str, sorted(shapes)))}."
        )


def _score_picture(picture: Picture) -> dict[str, list[Scores]]:
    """Score each method's one mask and each floor's candidates."""

    def score(mask: NDArray) -> Scores:
        found = score_mask(mask, picture.reference, _ML_EDGES_MM)
        return {
            "dice": found["dice"],
            "iou": found["iou"],
            "mask_pixels": found["mask_ml"],
            "reference_pixels": found["reference_ml"],
        }

    pixel_mm = SCALP_MM / (RIM_SHARE * max(picture.image.shape))
    return score_candidates(picture.image, picture.masks, (pixel_mm, pixel_mm, 1.0), score)


def _add_right_class(evaluation: PictureEvaluation, method: Method) -> None:
    """Add the twin of a method after it."""
    right = evaluation.probabilities[method.name].argmax(axis=1) == evaluation.class_idx
    twin = replace(method, name=name_right_class(method.name))
    evaluation.scores[twin.name] = [
        scores if told else _count_as_missed(scores)
        for scores, told in zip(evaluation.scores[method.name], right, strict=True)
    ]
    evaluation.methods.insert(evaluation.methods.index(method) + 1, twin)


def _count_as_missed(scores: Scores) -> Scores:
    """Return the scores of an empty mask; what is not counted stays so."""
    return {
        **scores,
        "dice": 0.0 * scores["dice"],
        "iou": 0.0 * scores["iou"],
        "mask_pixels": 0.0,
    }
