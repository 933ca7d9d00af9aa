"""Everything that is measured on one subject: of a heatmap's masks by rule, and of the heatmap."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from heatmask.comparison.heatmaps import Explanations, Heatmap, measure_range
from heatmask.comparison.store import Kept, digest, digest_code, digest_file
from heatmask.comparison.subjects import Subject, Subjects
from heatmask.evaluation.heatmaps import score_heatmap
from heatmask.evaluation.segmentation import measure_spacing_mm, score_mask
from heatmask.evaluation.surface import score_surface
from heatmask.geometry import find_array_axis, find_ras_slice_axis, order_as_stored
from heatmask.parts import offer_options
from heatmask.transforms import HeatmapToMaskd

OWN = "own"
LABEL_FREE_RULES = (OWN, "not snapped", "multi-Otsu", "paper")
"""Rules that look at no mask: the bundle's own, and what is changed of it in `_RULES`."""
N_LEVELS = 20
"""Levels that the rules (b) and (c) choose from, evenly over the heatmap's range."""
TOLERANCE = 2.0
"""Of surface Dice, in mm or pixels."""
_RULES: dict[str, dict[str, Any]] = {
    OWN: {},
    "not snapped": {"snap": False},
    "multi-Otsu": {"threshold_rule": "multi_otsu"},
    "paper": {"preset": "paper"},
}
CODE = digest_code((
    "masks", "scoring.py", "evaluation/segmentation.py", "evaluation/heatmaps.py",
    "evaluation/surface.py", "transforms.py", "comparison/scores.py",
))  # fmt: skip
"""Of what scores masks."""
_PIXEL_EDGES = (10.0, 10.0, 10.0)  # So that a pixel is 1 ml, and `score_mask` counts pixels

Scores = dict[str, Any]


class Scoring(Kept[Subject]):
    """Scores of one entry.

    Parameters
    ----------
    explanations
        The entry's heatmaps.
    subjects
        Those of one split; a control's range is measured on their heatmaps.
    levels
        Whether masks at `N_LEVELS` levels are scored too.
    """

    def __init__(self, explanations: Explanations, subjects: Subjects, levels: bool) -> None:
        self.explanations, self.subjects = explanations, subjects
        self.store, self.levels = explanations.store, levels
        # The paper's steps work on logits, which the networks with a preset have.
        options = offer_options(explanations.entry.bundle, explanations.parser.get())
        offered = 4 if "preset" in options else 3
        self.rules = LABEL_FREE_RULES[: 2 if explanations.entry.control else offered]
        # A control's range depends on all scans.
        among = subjects.subjects if explanations.entry.control else ()
        self._among = digest([explanations.find_key(subject) for subject in among])
        self._range: tuple[float, float] | None = None

    def find_key(self, subject: Subject) -> str:
        """Return what the scores of a subject are kept under."""
        own = self.explanations
        config = {k: v for k, v in own.parser.get().items() if isinstance(v, str | int | float)}
        used = {
            name: config.get(name)
            for name in (
                "blur_mm", "threshold_rule", "threshold_level", "min_volume_mm3", "keep", "snap",
                "snap_distance_mm", "smooth_mm", "preset", "otsu_offset",
            )
        }  # fmt: skip
        reference = digest_file(subject.reference)
        return digest([own.find_key(subject), reference, used, self.levels, self._among, CODE])

    def _compute(self, subject: Subject) -> Scores:
        """Return what `score_subject` and `describe_classes` say, and Dice by level if asked."""
        data = self.explanations.prepare(subject)
        heatmap = self.explanations.explain(subject, data)
        masker, low, high = self._prepare_masker()
        image: Any = data["image"]
        filled = heatmap.fill(image, self.explanations.slice_axis, low)
        result = self.explanations.segmenter.bring_to_scan(
            {**data, "heatmap": filled, "shown": heatmap.shown}
        )
        reference = subject.load_reference(result["scan"])
        scores = score_subject(result, masker, reference, low, self.subjects.pictures, self.rules)
        if self.levels:
            scores["levels"] = [
                score_dice(mask, reference) for mask in make_levels(result, masker, low, high)
            ]
        return {**scores, **describe_classes(heatmap, result["scan"], self.explanations)}

    def _prepare_masker(self) -> tuple[HeatmapToMaskd, float, float]:
        """Return the bundle's step from heatmap to mask, and the range that it works with."""
        masker = self.explanations.segmenter.masker
        if self.explanations.entry.control:
            if self._range is None:
                every = [self.explanations.explain(s) for s in self.subjects.subjects]
                self._range = measure_range(every)
            masker.settings = replace(masker.settings, calibration=self._range)
        return masker, *masker.settings.calibration


def make_mask(result: Mapping[str, Any], masker: HeatmapToMaskd, **changes: Any) -> NDArray:
    """Return the label map (X, Y, Z) of a heatmap with some settings changed."""
    settings = masker.settings
    try:
        masker.settings = replace(settings, **changes)
        data: Any = dict(result)  # whose keys are words
        return np.asarray(masker(data)["mask"][0])
    finally:
        masker.settings = settings


def make_levels(
    result: Mapping[str, Any], masker: HeatmapToMaskd, low: float, high: float
) -> Iterator[NDArray]:
    """Yield the masks at `N_LEVELS` levels above `low`, up to just below `high`."""
    for step in range(N_LEVELS):
        level = low + (high - low) * (step + 0.5) / N_LEVELS
        yield make_mask(result, masker, threshold_rule="level", threshold_level=level)


def score_subject(
    result: Mapping[str, Any],
    masker: HeatmapToMaskd,
    reference: NDArray[np.bool_],
    low: float,
    pictures: bool,
    rules: Sequence[str],
) -> Scores:
    """Score the masks of label-free rules, and the heatmap.

    Returns
    -------
    dict
        ``rules``: by name of the rule, what `score_whole` returns; ``heatmap``: what
        `heatmask.evaluation.heatmaps.score_heatmap` returns, of the highest class;
        ``slice_dice``: by rule, the Dice of each slice that holds a lesion.
    """
    scan: Any = result["scan"]
    axis = find_slices(scan)
    whole: dict[str, Scores] = {}
    by_slice: dict[str, list[float]] = {}
    for rule in rules:
        found = make_mask(result, masker, **_RULES[rule]) > 0
        whole[rule] = score_whole(
            found, reference, np.asarray(scan.affine), axis, pictures, outline=rule == OWN
        )
        by_slice[rule] = score_slices(found, reference, axis)
    heatmap = np.asarray(result["heatmap"]).max(axis=0)
    return {
        "rules": whole,
        "heatmap": score_heatmap(heatmap, reference, low),
        "slice_dice": by_slice,
    }


def score_whole(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    affine: NDArray,
    slice_axis: int,
    pictures: bool,
    outline: bool = True,
) -> Scores:
    """Return overlap, sizes and, if asked, distances of one mask; ml and mm, of pictures pixels."""
    edges: Sequence[float] = measure_spacing_mm(affine).tolist()
    found = score_mask(mask, reference, _PIXEL_EDGES if pictures else edges, slice_axis)
    unit = (1.0, 1.0, 1.0) if pictures else edges
    return {
        "dice": found["dice"],
        "iou": found["iou"],
        "mask_size": found["mask_ml"],
        "reference_size": found["reference_ml"],
        "false_size": found["tumour_free_slices_ml"],
        **(score_surface(mask, reference, unit, TOLERANCE) if outline else {}),
    }


def score_dice(mask: NDArray, reference: NDArray[np.bool_]) -> float:
    """Return the Dice of a label map, NaN where both are empty."""
    found = mask > 0
    sizes = np.count_nonzero(found) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(found & reference) / sizes if sizes else float("nan")


def score_slices(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], slice_axis: int
) -> list[float]:
    """Return the Dice of each slice that holds a lesion."""
    pairs = zip(
        np.moveaxis(mask, slice_axis, 0), np.moveaxis(reference, slice_axis, 0), strict=True
    )
    return [score_dice(ours, theirs) for ours, theirs in pairs if theirs.any()]


def find_slices(scan: MetaTensor) -> int:
    """Return the array axis of a scan's axial slices, or the only one of a single slice."""
    affine = np.asarray(scan.affine)
    return find_array_axis(affine, find_ras_slice_axis(scan.shape[1:], affine, 2))


def describe_classes(heatmap: Heatmap, scan: MetaTensor, explanations: Explanations) -> Scores:
    """Return what the classifier said: probabilities by slice, in the file's order.

    ``confidence`` is the mean probability of what is shown, over the slices where something is; 0
    where nothing is.
    """
    affine = np.asarray(scan.affine)
    axis = find_ras_slice_axis(scan.shape[1:], affine, explanations.slice_axis)
    told = order_as_stored(heatmap.probabilities, affine, axis)
    shown = heatmap.probabilities[heatmap.shown]
    return {
        "probabilities": np.asarray(told, float).tolist(),
        "confidence": float(shown.mean()) if shown.size else 0.0,
        "seconds": heatmap.seconds,
    }


def find_best_level(by_subject: Sequence[Scores], clusters: Sequence[str]) -> int:
    """Return the number of the level with the highest mean Dice over clusters."""
    dice = np.array([scores["levels"] for scores in by_subject])
    names = np.array(clusters)
    means = [np.nanmean(dice[names == name], axis=0) for name in dict.fromkeys(clusters)]
    return int(np.nanmean(means, axis=0).argmax())
