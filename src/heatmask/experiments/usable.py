"""Which cases can be scored at all: the same ones in every row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from heatmask.errors import Failures, InputError
from heatmask.experiments.cases import Case, Place
from heatmask.experiments.entries import Entry, read_methods
from heatmask.experiments.heatmaps import Explanations
from heatmask.experiments.store import Kept, digest, digest_code, digest_file
from heatmask.experiments.work import open_explanations, read_cases


class Checking(Kept[Case]):
    """Why a bundle cannot use a case; empty where it can.

    Parameters
    ----------
    explanations
        Of any entry of the bundle: its preprocessing reads the scans.
    """

    def __init__(self, explanations: Explanations) -> None:
        self.explanations, self.store = explanations, explanations.store

    def find_key(self, item: Case) -> str:
        """Return what the answer for a case is kept under."""
        files = [(path.name, digest_file(path)) for path in item.files]
        return digest([files, item.labels, self.explanations.preparation, digest_code(__name__)])

    def _compute(self, item: Case) -> str:
        failures = Failures()
        with failures.catch(item.name):
            item.load_reference(self.explanations.prepare(item)["scan"])
        return failures.reasons.get(item.name, "")


def leave_out(bundles: Sequence[Path], place: Place) -> Place:
    """Return the place without the cases that none of the bundles can use.

    What only some of them can use stays; the others are then refused with the reason.
    """
    found = [_find_problems(bundle, place) for bundle in bundles]
    unusable = {n: why for n, why in found[0].items() if all(other.get(n) for other in found)}
    return replace(place, unusable=tuple((*where, why) for where, why in unusable.items()))


def _find_problems(bundle: Path, place: Place) -> Mapping[tuple[str, str], str]:
    """Return what is wrong with each case, by split and name."""
    checking = Checking(open_explanations(Entry(bundle, read_methods(bundle)[0]), place))
    reported = read_cases(bundle, place, place.split).cases
    cases = [(place.split, case) for case in reported]
    cases += [(place.given, case) for case in _list_given(bundle, place)]
    reading = track(cases, f"Checking scans and masks, {checking.explanations.entry.label}")
    return {(split, case.name): checking.get(case) for split, case in reading}


def _list_given(bundle: Path, place: Place) -> Sequence[Case]:
    try:
        return read_cases(bundle, place, place.given).cases
    except InputError:  # No masks there: said where they would be used
        return ()
