"""What corrections cost: a simulated user clicks or draws until the mask is right."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from rich.progress import track

from heatmask.bundle import read_bundle
from heatmask.errors import Failures, InputError
from heatmask.experiments.cases import Case, Cases, Place, find_slices, list_cases
from heatmask.experiments.click_cut import ClickCut
from heatmask.experiments.entries import list_label_words, read_config
from heatmask.experiments.overlap import score_mask
from heatmask.experiments.simulated_user import place_click, place_stroke
from heatmask.experiments.store import (
    Kept,
    Store,
    digest,
    digest_code,
    digest_file,
    list_targets,
)
from heatmask.interaction import Correction, Edit
from heatmask.pipeline import Pipeline

SHOWN = (0, 1, 2, 3, 5, 10)
"""After how many edits the Dice is reported."""
GOALS = (0.85, 0.90)
PSEUDO, CALLED, EMPTY, CUT = "pseudo-mask", "pseudo-mask when clicked", "empty", "empty, graph cut"
STARTS: dict[str, Callable[[MetaTensor, NDArray[np.bool_]], Correction | ClickCut]] = {
    PSEUDO: lambda scan, mask: Correction(scan, heatmap=mask, mask=mask),
    CALLED: lambda scan, mask: Correction(scan, heatmap=mask),
    EMPTY: lambda scan, _: Correction(scan),
    CUT: lambda scan, _: ClickCut(scan),
}
"""What the user begins with: the first three have one engine, the last is another one."""


@dataclass(frozen=True)
class Course:
    """One patient's correction.

    Attributes
    ----------
    case, cluster, start
        Of which case, of whom, and which of `STARTS`.
    dice
        After 0, 1, 2, ... edits.
    to_paint
        Share of the reference's voxels that a person would still have to paint or erase.
    seconds
        Of the processor, for each edit.
    """

    case: str
    cluster: str
    start: str
    dice: tuple[float, ...]
    to_paint: tuple[float, ...]
    seconds: tuple[float, ...]

    def count_edits(self, goal: float) -> float:
        """Return the edits to a Dice, infinity where it was not reached."""
        reached = np.flatnonzero(np.asarray(self.dice) >= goal)
        return float(reached[0]) if reached.size else float("inf")


class StartMasks(Kept[Case]):
    """Scan and pseudo-mask of each case, kept so that a second run is quick."""

    def __init__(self, bundle: Path, options: Mapping[str, Any], store: Store) -> None:
        self.bundle, self.options, self.store = bundle, dict(options), store
        self.pipeline = Pipeline.from_bundle(bundle, self.options, self.options["device"])
        config = read_bundle(bundle, options=self.options).get()
        self._code = digest_code("heatmask.pipeline", "heatmask.masks.make", *list_targets(config))

    def find_key(self, item: Case) -> str:
        """Return what the result of a case is kept under."""
        weights = [Path(self.options["weights"])] if "weights" in self.options else []
        files = [digest_file(path) for path in (*item.scans, self.bundle, *weights)]
        chosen = {k: str(v) for k, v in self.options.items() if k != "device"}
        return digest(["start masks", self._code, chosen, files])

    def _compute(self, item: Case) -> dict[str, NDArray]:
        explained = self.pipeline.explain_scan(item.image, item.name)
        return {
            "mask": np.asarray(explained.make_mask()[0]) > 0,
            "scan": np.asarray(explained.scan[0], np.float32),
            "affine": np.asarray(explained.scan.affine, np.float64),
        }


def simulate(
    bundle: Path,
    place: Place,
    options: Mapping[str, Any],
    n_edits: int,
    strokes: bool = False,
    most: int | None = None,
) -> tuple[Cases, list[Course]]:
    """Play a user who corrects every case of a split that shows something, from each of `STARTS`.

    Parameters
    ----------
    strokes
        Whether the user draws lines instead of clicking.
    most
        Play so many cases at most, spread evenly over the split; None for all.

    Returns
    -------
    Cases, list of Course
        Those that could be played; the others are in `Cases.left_out`.

    Raises
    ------
    InputError
        Not one case can be played.
    """
    sequences = read_config(bundle)["sequences"]
    cases = list_cases(place, sequences, list_label_words(bundle), place.split).keep_findings()
    if most is not None:
        cases = replace(cases, cases=cases.cases[:: -(-len(cases.cases) // most)])
    starts = StartMasks(bundle, {"device": place.device, **options}, Store(place.cache))
    failures, courses = Failures(), []
    for case in track(cases.cases, "Correcting"):
        with failures.catch(case.name):
            courses += list(play_case(case, starts.get(case), n_edits, strokes))
    return cases.leave_out(failures.reasons), courses


def play_case(
    case: Case, start: Mapping[str, NDArray], n_edits: int, strokes: bool = False
) -> Iterator[Course]:
    """Yield the course of one case from each of `STARTS`; the last needs numpymaxflow.

    Raises
    ------
    InputError
        Its reference mask cannot be used, or is empty.
    """
    scan = MetaTensor(start["scan"][None], affine=start["affine"])
    reference = case.load_reference(scan)
    if not reference.any():
        raise InputError("The reference mask must not be empty: there would be nothing to correct.")
    place = partial(place_stroke, slice_axis=find_slices(scan)) if strokes else place_click
    for name, begin in STARTS.items():
        if name != CUT or find_spec("numpymaxflow"):
            yield _play(case, name, begin(scan, start["mask"]), reference, n_edits, place)


def _play(
    case: Case,
    start: str,
    correction: Correction | ClickCut,
    reference: NDArray[np.bool_],
    n_edits: int,
    place: Callable[..., Edit | None],
) -> Course:
    masks, seconds = [correction.mask > 0], []
    for _ in range(n_edits):
        edit = place(masks[-1], reference, correction.spacing_mm)
        if edit is None:  # nothing is left to correct
            masks.append(masks[-1])
            continue
        begin = time.process_time()
        masks.append(correction.apply(edit) > 0)
        seconds.append(time.process_time() - begin)
    dice = [score_mask(mask, reference, correction.spacing_mm)["dice"] for mask in masks]
    wrong = [np.count_nonzero(mask != reference) / np.count_nonzero(reference) for mask in masks]
    return Course(
        case.name, case.cluster, start, tuple(dice), tuple(map(float, wrong)), tuple(seconds)
    )
