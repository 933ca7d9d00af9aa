"""Which bundle to run on scans where the user names none: the one with the best evidence."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from heatmask.bundle.evidence import BundleInfo, join_sequences, list_bundles, order_bundles
from heatmask.bundle.find import find_bundle
from heatmask.data.cases import count_heads
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.errors import InputError

POOR_DICE = 0.5
"""Below it the user is warned of poor masks."""


@dataclass(frozen=True)
class Choice:
    """A bundle, and why it was taken.

    Attributes
    ----------
    bundle
        The bundle to run.
    reason
        A sentence that begins with its name.
    """

    bundle: BundleInfo
    reason: str


def pick_bundle(
    name: str | None, scan: str | Path, pattern: str | None, show: Callable[[str], None]
) -> Path:
    """Return the folder of the bundle that a user named, or else of the best, and show why.

    Errors as `find_bundle` and `choose_bundle`.
    """
    if name is not None:
        return find_bundle(name)
    choice = choose_bundle(scan, pattern)
    show(f"Bundle: {choice.reason}")
    return choice.bundle.folder


def choose_bundle(scan: str | Path, pattern: str | None = None) -> Choice:
    """Choose the bundle that did best on the sequences of a scan, or of most of a folder's heads.

    Parameters
    ----------
    scan, pattern
        As `heatmask.data.finding.scans.find_scans`.

    Raises
    ------
    InputError
        There is no scan, or no bundle.
    """
    bundles = list_bundles()
    if not bundles:
        raise InputError("There must be a bundle in bundles/, and there is none. Name a --bundle.")
    kinds = count_kinds(scan, pattern, bundles)
    # Of two kinds that are as frequent, the one with the better bundle.
    sequences = max(kinds, key=lambda kind: (kinds[kind], _find_best_dice(bundles, kind)))
    first = order_bundles(bundles, sequences)[0]
    reason = _explain(first, sequences)
    if kinds[sequences] < kinds.total():
        reason += f" {kinds[sequences]} of {kinds.total()} heads are such; the others get it too."
    return Choice(first, reason)


def count_kinds(
    scan: str | Path, pattern: str | None, bundles: Iterable[BundleInfo]
) -> Counter[frozenset[str]]:
    """Count heads by those of their sequences that a bundle takes.

    Heads without any are left out, unless all are. Parameters and errors as `choose_bundle`.
    """
    return keep_taken(count_heads(scan, pattern), bundles)


def keep_taken(
    heads: Counter[frozenset[str]], bundles: Iterable[BundleInfo]
) -> Counter[frozenset[str]]:
    """Count heads by those of their sequences that a bundle takes; see `count_kinds`."""
    taken = {UNKNOWN}.union(*(bundle.sequences for bundle in bundles))
    kinds: Counter[frozenset[str]] = Counter()
    for sequences, count in heads.items():
        if sequences & taken:
            kinds[sequences & taken] += count
    return kinds or heads


def _find_best_dice(bundles: Iterable[BundleInfo], sequences: frozenset[str]) -> float:
    return max((b.dice for bundle in bundles if (b := bundle.find_evidence(sequences))), default=0)


def _explain(bundle: BundleInfo, sequences: frozenset[str]) -> str:
    """Why this bundle is the first for these sequences, and what to expect of it."""
    measured = bundle.find_evidence(sequences)
    if measured:
        warning = " Expect a poor mask." if measured.dice < POOR_DICE else ""
        return f"{bundle.name}, the best of those here: {measured}.{warning}"
    best = f"the best of those here ({bundle.best})" if bundle.best else "the first by name"
    if sequences == {UNKNOWN}:
        return f"{bundle.name}, {best}. Nothing says which sequence the scan is."
    given = join_sequences(sequences)
    return f"{bundle.name}, {best}. None was measured on {given}: the mask may mean nothing."
