"""Everything that is measured on one case: of a heatmap's masks by rule, and of the heatmap."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.experiments.cases import Case, Cases, find_slices
from heatmask.experiments.heatmaps import Explanations, Heatmap, measure_range
from heatmask.experiments.metrics import score_heatmap, score_surface
from heatmask.experiments.overlap import score_mask
from heatmask.experiments.store import Kept, digest, digest_code, digest_file
from heatmask.geometry import find_ras_slice_axis, measure_spacing_mm, order_as_stored
from heatmask.parts import offer_options
from heatmask.transforms import HeatmapToMaskd

OWN = "own"
UNGATED = "every picture masked"
"""Name of the rule by which a picture is masked whatever the classifier predicts."""
RULES: dict[str, dict[str, Any]] = {
    OWN: {},
    "not snapped": {"snap": False, "preset": "default"},
    "multi-Otsu": {"threshold_rule": "multi_otsu"},
    "paper": {"preset": "paper"},
}
"""Rules that look at no mask: what each changes of the bundle's own settings."""
N_LEVELS = 20
"""Levels that the rules (b) and (c) choose from, evenly over the heatmap's range."""
TOLERANCE = 2.0
"""Of surface Dice, in mm or pixels."""
NAN = float("nan")
_PIXEL_EDGES = (10.0, 10.0, 10.0)  # So that a pixel is 1 ml, and `score_mask` counts pixels

Scores = dict[str, Any]


class Scoring(Kept[Case]):
    """Scores of one entry.

    Parameters
    ----------
    explanations
        The entry's heatmaps.
    cases
        Those of one split; a control's range is measured on their heatmaps.
    brief
        No scores of the heatmap, no levels.
    rules
        Some of `RULES`; None for all that make a difference.
    """

    def __init__(
        self,
        explanations: Explanations,
        cases: Cases,
        brief: bool = False,
        rules: Sequence[str] | None = None,
    ) -> None:
        self.explanations, self.cases, self.store = explanations, cases, explanations.store
        self.control, self.brief = bool(explanations.entry.control), brief
        self.rules = list(self._list_rules() if rules is None else rules)
        self._range: tuple[float, float] | None = None

    def _list_rules(self) -> Iterator[str]:
        bundle, config = self.explanations.entry.bundle, self.explanations.parser.get()
        yield OWN
        if (config.get("threshold_rule"), config.get("polarity")) != ("level_sets", "dark"):
            yield "not snapped"
        if not self.control and not self.brief:
            yield "multi-Otsu"
        if not self.control and "preset" in offer_options(bundle, config):
            yield "paper"  # Its steps work on logits

    def find_key(self, item: Case) -> str:
        """Return what the scores of a case are kept under; a control's range depends on all."""
        among = self.cases.cases if self.control else (item,)
        keys = [self.explanations.find_key(case) for case in (item, *among)]
        files = [digest_file(path) for path in item.files]
        return digest([keys, files, item.labels, digest_code(__name__)])

    def _compute(self, item: Case) -> Scores:
        """Score the masks of every rule, and the heatmap.

        Returns
        -------
        dict
            ``rules``: by name of the rule, what `score_whole` returns; ``probabilities``: by slice,
            in the file's order; ``predicted``: whether each class is; ``confidence``: the mean
            probability of what is shown, 0 where
            nothing is; ``seconds``. If not brief, ``heatmap``: what `score_heatmap` returns, of
            the highest class; ``slice_dice``: by rule, the Dice of each slice that holds a
            lesion; of trained weights ``levels``: the Dice at each level.
        """
        data, heatmap = self.explanations.prepare(item), self.explanations.explain(item)
        masker = self._prepare_masker()
        low, _ = masker.settings.calibration
        filled = heatmap.fill(data["image"], self.explanations.slice_axis, low)
        data |= {"heatmap": filled, "shown": heatmap.shown}
        result = self.explanations.pipeline.bring_to_scan(data)
        scan, axis = result["scan"], find_slices(result["scan"])
        reference = item.load_reference(scan)
        masks = {rule: make_mask(result, masker, **RULES[rule]) > 0 for rule in self.rules}
        affine, pictures = np.asarray(scan.affine), self.cases.pictures
        nothing = self.cases.shows_nothing(item)
        scores: Scores = {
            "rules": {
                rule: score_whole(mask, reference, affine, axis, pictures, rule == OWN)
                for rule, mask in masks.items()
            },
            **describe_classes(heatmap, result["scan"], self.explanations.slice_axis),
        }
        if nothing:
            scores["rules"] = {r: keep_sizes(found) for r, found in scores["rules"].items()}
        if not self.brief:
            highest = np.asarray(result["heatmap"]).max(axis=0)
            scores["heatmap"] = score_heatmap(highest, reference, low)
            scores["slice_dice"] = {r: score_slices(m, reference, axis) for r, m in masks.items()}
        if not self.brief and not self.control:
            levels = make_levels(result, masker)
            scores["levels"] = [NAN if nothing else score_dice(m > 0, reference) for m in levels]
        return scores

    def _prepare_masker(self) -> HeatmapToMaskd:
        """Return the bundle's step from heatmap to mask."""
        masker = self.explanations.pipeline.masker
        if self.control:
            every = (self.explanations.explain(case) for case in self.cases.cases)
            self._range = self._range or measure_range(list(every))
            masker.settings = replace(masker.settings, calibration=self._range)
        return masker


def make_mask(result: Mapping[str, Any], masker: HeatmapToMaskd, **changes: Any) -> NDArray:
    """Return the label map (X, Y, Z) of a heatmap with some settings changed."""
    data: Any = dict(result)  # whose keys are words
    return np.asarray(masker.change(**changes)(data)["mask"][0])


def make_levels(result: Mapping[str, Any], masker: HeatmapToMaskd) -> Iterator[NDArray]:
    """Yield the masks at `N_LEVELS` levels of the heatmap's range."""
    for step in range(N_LEVELS):
        level = (step + 0.5) / N_LEVELS
        yield make_mask(result, masker, threshold_rule="fixed", threshold_level=level)


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


def keep_sizes(scores: Scores) -> Scores:
    """Return the scores of a mask where nothing is to be found: no overlap and no outline."""
    return {key: value if key.endswith("size") else NAN for key, value in scores.items()}


def score_dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return the Dice of a mask, NaN where both are empty."""
    sizes = np.count_nonzero(mask) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(mask & reference) / sizes if sizes else float("nan")


def score_slices(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], slice_axis: int
) -> list[float]:
    """Return the Dice of each slice that holds a lesion."""
    slices = (np.moveaxis(part, slice_axis, 0) for part in (mask, reference))
    return [score_dice(ours, theirs) for ours, theirs in zip(*slices, strict=True) if theirs.any()]


def describe_classes(heatmap: Heatmap, scan: Any, slice_axis: int) -> Scores:
    """Return what the classifier predicts: see `Scoring`."""
    affine = np.asarray(scan.affine)
    axis = find_ras_slice_axis(scan.shape[1:], affine, slice_axis)
    stored = order_as_stored(heatmap.probabilities, affine, axis)
    shown = heatmap.probabilities[heatmap.shown]
    return {
        "probabilities": np.asarray(stored, float).tolist(),
        "predicted": [bool(one) for one in heatmap.predicted.any(axis=0)],
        "confidence": float(shown.mean()) if shown.size else 0.0,
        "seconds": heatmap.seconds,
    }


def find_best_level(by_case: Sequence[Scores], clusters: Sequence[str]) -> int:
    """Return the number of the level with the highest mean Dice over clusters."""
    dice = np.array([scores["levels"] for scores in by_case])
    names = np.array(clusters)
    counted = ~np.isnan(dice).all(axis=1)
    dice, names = dice[counted], names[counted]
    means = [np.nanmean(dice[names == name], axis=0) for name in dict.fromkeys(names)]
    return int(np.nanmean(means, axis=0).argmax())
