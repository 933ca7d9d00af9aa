"""Which subjects can be scored at all: the same ones in every row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import track

from heatmask.comparison.entries import Entry, digest_preparation, read_methods
from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.store import Kept, digest, digest_code, digest_file
from heatmask.comparison.subjects import Subject
from heatmask.comparison.work import Place, open_explanations, read_subjects
from heatmask.errors import Failures, InputError

_CODE = digest_code((
    "data", "transforms.py", "geometry.py", "scoring.py", "evaluation/segmentation.py",
    "comparison/usable.py",
))  # fmt: skip


class Checking(Kept[Subject]):
    """Why a bundle cannot use a subject; empty where it can.

    Parameters
    ----------
    explanations
        Of any entry of the bundle: its preprocessing reads the scans.
    """

    def __init__(self, explanations: Explanations) -> None:
        self.explanations, self.store = explanations, explanations.store
        self._preparation = digest_preparation(explanations.parser)

    def find_key(self, subject: Subject) -> str:
        """Return what the answer for a subject is kept under."""
        files = [(path.name, digest_file(path)) for path in subject.files]
        return digest([files, subject.labels, self._preparation, _CODE])

    def _compute(self, subject: Subject) -> str:
        failures = Failures()
        with failures.catch(subject.name):
            scan: Any = self.explanations.prepare(subject)["scan"]
            subject.load_reference(scan)
            if len(subject.labels) != scan.shape[3]:
                raise InputError(
                    "Each slice along the file's third axis must have one label; the scan has "
                    f"{scan.shape[3]} slices and {len(subject.labels)} labels. Mend its lines in "
                    "slice_labels.csv."
                )
        return failures.reasons.get(subject.name, "")


def leave_out(bundles: Sequence[Path], place: Place) -> Place:
    """Return the place without the subjects that none of the bundles can use.

    What only some of them can use stays; the others are then refused with the reason.
    """
    found = [_find_problems(bundle, place) for bundle in bundles]
    unusable = {
        name: reason
        for name, reason in found[0].items()
        if all(problems.get(name) for problems in found)
    }
    return replace(place, unusable=tuple(unusable.items()))


def _find_problems(bundle: Path, place: Place) -> dict[str, str]:
    checking = Checking(open_explanations(Entry(bundle, read_methods(bundle)[0]), place))
    subjects = [*read_subjects(bundle, place, place.split).subjects, *_list_given(bundle, place)]
    reading = track(subjects, f"Checking scans and masks, {checking.explanations.entry.label}")
    return {subject.name: checking.get(subject) for subject in reading}


def _list_given(bundle: Path, place: Place) -> Sequence[Subject]:
    try:
        return read_subjects(bundle, place, place.given).subjects
    except InputError:  # No masks there: said where they would be used
        return ()
