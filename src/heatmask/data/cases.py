"""Which scans are of one head, and which of them a network works on: the cases.

No torch here, as in `heatmask.data.finding.scans`.
"""

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heatmask.data.finding.passed_over import list_names
from heatmask.data.finding.scans import Found, Scan, find_scans
from heatmask.data.paths import get_name, get_place
from heatmask.data.recognition.channels import find_unnamed_channels
from heatmask.data.recognition.sequence import SEQUENCES, UNKNOWN, check_sequences
from heatmask.errors import InputError, OptionError

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

SIBLING_FOLDER = "modalities"
"""Scans in a folder of this name lie, in effect, beside those in the folder above."""


@dataclass(frozen=True)
class Study:
    """Scans of one head, at most one a sequence.

    Attributes
    ----------
    case : name of the reference scan; unique in its list, safe in any path
    paths : sequence (or "unknown") to scan; the first is the reference, on whose grid the
        mask will lie
    """

    case: str
    paths: Mapping[str, Path]

    @property
    def reference(self) -> Path:
        """The scan on whose grid the mask will lie."""
        return next(iter(self.paths.values()))

    @property
    def image(self) -> str | dict[str, str]:
        """What `heatmask.data.load.LoadSequencesd` takes: one path, or paths by sequence."""
        if len(self.paths) == 1:
            return str(self.reference)
        return {sequence: str(path) for sequence, path in self.paths.items()}

    def select(self, sequences: Sequence[str]) -> "Study":
        """Return the study without siblings of other sequences; the reference stays."""
        kept = {s: p for s, p in self.paths.items() if s in sequences or p is self.reference}
        return Study(self.case, kept)


class Listing(list[Item]):
    """A list with `notes`: sentences on what was found and is not in it; logged once."""

    def __init__(self, items: Iterable[Item], notes: Iterable[str]) -> None:
        super().__init__(items)
        self.notes = list(notes)


def list_cases(
    path: str | Path | None,
    pattern: str | None = None,
    sequences: Sequence[str] = ("FLAIR",),
    input: str | Path | None = None,
) -> Listing[dict[str, Any]]:
    """Return `find_studies` as the data list of a bundle.

    Each entry has ``case``, ``image`` (a path, or paths by sequence, for
    `heatmask.data.load.LoadSequencesd`) and ``image_path`` (the reference scan). Siblings that
    the network does not take are in it, so that the report of the case can name them, and are
    logged here once.

    Parameters
    ----------
    path, pattern, sequences
        As `find_studies`.
    input
        Another name for the path, as a bundle has two for it: both may not be given.

    Raises
    ------
    OptionError
        No path is given, or two are; otherwise as `find_studies`.
    """
    if input is not None and str(input) != str(path):
        raise OptionError(
            f"input and dataset_dir are two names of one option, got {input} and {path}. Give one."
        )
    if not path:
        raise OptionError("Give a scan or a folder of scans: --input SCAN.")
    studies = find_studies(path, pattern, sequences)
    siblings = [s for study in studies for s in list(study.paths)[1:] if s not in sequences]
    if siblings:
        taken = " and ".join(sequences)
        studies.notes.append(f"Left out, the network takes {taken}: {_count(siblings)}.")
        logger.warning("%s", studies.notes[-1])
    cases = (
        {"case": study.case, "image": study.image, "image_path": str(study.reference)}
        for study in studies
    )
    return Listing(cases, studies.notes)


def find_studies(
    path: str | Path, pattern: str | None = None, sequences: Sequence[str] = ("FLAIR",)
) -> Listing[Study]:
    """List the studies at or below a path, in the order of their reference scans.

    Scans are of one head that lie in one folder under names that differ only in the words that
    name the sequence (BraTS: ``p1_flair``, ``p1_t1ce``; ``p1-t2f``, ``p1-t1c``; BIDS: of one
    subject and session; nnU-Net: ``p1_0000``, ``p1_0001`` with a ``dataset.json``), and DICOM
    series of one StudyInstanceUID in one folder. Where a sequence is there twice, nothing says
    which of the two belongs to the others, and each stands alone.

    Parameters
    ----------
    path, pattern
        As `heatmask.data.finding.scans.find_scans`. With a pattern, only the files that fit it are
        looked at, and every one of them belongs to a study.
    sequences
        What the network takes, in the order of its channels. The first of them that a study
        has is its reference. Without a pattern, scans of other sequences are siblings or left
        out, unless the folder holds one sequence alone; scans that nothing is known about
        are studies of their own where no scan of `sequences` lies beside them.

    Raises
    ------
    InputError
        There are several sequences, none of them in `sequences`, and no pattern chooses one;
        otherwise as `find_scans`.
    OptionError
        `sequences` or the pattern are not what they must be.
    """
    check_sequences(sequences)  # before a folder is looked through
    scans, notes = _leave_out_unnamed_channels(*find_scans(path, pattern))
    return group_studies(scans, notes, path, pattern, sequences)


def group_studies(
    scans: list[Scan],
    notes: list[str],
    path: str | Path,
    pattern: str | None,
    sequences: Sequence[str],
) -> Listing[Study]:
    """Put scans together to studies; see `find_studies`.

    Parameters
    ----------
    scans, notes
        What was found, and what is to be said of the rest.
    path
        Where, for messages.
    pattern, sequences
        As `find_studies`.
    """
    sequences = check_sequences(sequences)
    groups = _group_scans(scans)
    if pattern is None:
        groups = _choose_groups(path, groups, sequences)
    studies = [study for group in groups for study in _make_studies(group, sequences)]
    chosen = {scan for study in studies for scan in study.paths.values()}
    unused = [scan for scan in scans if scan.path not in chosen]
    if unused:
        notes.append(f"Not cases below '{path}': {_list_by_sequence(unused)}.")
    for note in notes:
        logger.warning("%s", note)
    return Listing(sorted(studies, key=lambda study: study.reference), notes)


def count_heads(path: str | Path, pattern: str | None = None) -> Counter[frozenset[str]]:
    """Count the heads at or below a path by the sequences that there are of each.

    Parameters and errors as `find_studies`; nothing is left out for its sequence.
    """
    scans, _ = _leave_out_unnamed_channels(*find_scans(path, pattern))
    return count_groups(scans)


def count_groups(scans: Iterable[Scan]) -> Counter[frozenset[str]]:
    """Count the heads that scans are of by the sequences that there are of each."""
    return Counter(frozenset(group) for group in _group_scans(scans))


def _leave_out_unnamed_channels(scans: list[Scan], notes: list[str]) -> Found:
    """Drop the channels of nnU-Net's cases where nothing says which sequences they are.

    One that was chosen from its case, by a pattern or its path, stays.
    """
    unknown = [scan.path for scan in scans if scan.clue.sequence == UNKNOWN]
    cases = find_unnamed_channels(unknown)
    alone = [paths[0].name for paths in cases if len(paths) == 1]
    if alone:
        files = list_names(alone, f"file{'s' * (len(alone) > 1)}")
        notes = [*notes, f"Nothing says which sequence is in {files}, one channel of several."]
    unnamed = {path for paths in cases for path in paths if len(paths) > 1}
    if not unnamed:
        return Found(scans, notes)
    message = (
        f"{list_names([path.name for path in unnamed], 'files')} look like channels of one case, "
        "and there is no dataset.json, beside them or one folder above, that names their "
        'sequences. Write {"channel_names": {"0": "FLAIR", "1": "T1"}}, choose one with a pattern '
        "such as *_0000*, or rename the files if they are of different heads."
    )
    left = [scan for scan in scans if scan.path not in unnamed]
    if not left:
        raise InputError(message)
    return Found(left, [*notes, f"Left out: {message}"])


def _group_scans(scans: Iterable[Scan]) -> list[dict[str, Scan]]:
    """Scans of one head each, by sequence."""
    by_key: dict[Hashable, list[Scan]] = {}
    for scan in scans:
        by_key.setdefault(_find_key(scan), []).append(scan)
    groups = []
    for together in by_key.values():
        counts = Counter(scan.clue.sequence for scan in together)
        once = {s.clue.sequence: s for s in together if counts[s.clue.sequence] == 1}
        twice = [{s.clue.sequence: s} for s in together if counts[s.clue.sequence] > 1]
        groups += [once, *twice] if once else twice
    return groups


def _find_key(scan: Scan) -> Hashable:
    """What the scans of one head, and no others, have in common."""
    if scan.clue.sequence not in SEQUENCES:
        return scan.path
    folder = get_place(scan.path).parent
    if folder.name == SIBLING_FOLDER:
        folder = folder.parent
    uid = scan.header.get("StudyInstanceUID") if scan.header else None
    return folder, str(uid) if uid else scan.clue.head


def _choose_groups(
    path: str | Path, groups: list[dict[str, Scan]], sequences: Sequence[str]
) -> list[dict[str, Scan]]:
    """The groups to work on where no pattern says it; see `find_studies`."""
    wanted = [group for group in groups if not group.keys().isdisjoint(sequences)]
    taken = {scan.path.parent for group in wanted for scan in group.values()}
    unknown = [g for g in groups if UNKNOWN in g and g[UNKNOWN].path.parent not in taken]
    chosen = wanted + [group for group in unknown if group not in wanted]
    if not chosen and len({sequence for group in groups for sequence in group}) > 1:
        raise InputError(_explain_choice(path, groups, sequences))
    return chosen or groups


def _make_studies(group: dict[str, Scan], sequences: Sequence[str]) -> list[Study]:
    """One study; a study for each scan where the network takes none of them."""
    order = [s for s in sequences if s in group]
    if not order:
        return [Study(scan.case, {sequence: scan.path}) for sequence, scan in group.items()]
    order += [sequence for sequence in group if sequence not in order]
    return [Study(group[order[0]].case, {s: group[s].path for s in order})]


def _count(sequences: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(sequences).items()))


def _sort_by_sequence(scans: Iterable[Scan]) -> dict[str, list[Scan]]:
    by_sequence: dict[str, list[Scan]] = {}
    for scan in scans:
        by_sequence.setdefault(scan.clue.sequence, []).append(scan)
    return by_sequence


def _list_by_sequence(scans: Iterable[Scan]) -> str:
    by_sequence = sorted(_sort_by_sequence(scans).items())
    return ", ".join(list_names([get_name(s.path) for s in those], k) for k, those in by_sequence)


def _explain_choice(
    path: str | Path, groups: list[dict[str, Scan]], sequences: Sequence[str]
) -> str:
    by_sequence = _sort_by_sequence(scan for group in groups for scan in group.values())
    patterns = {sequence: _suggest_pattern(scans) for sequence, scans in by_sequence.items()}
    found = ", ".join(
        f"{len(scans)} {sequence} ({patterns[sequence]})" for sequence, scans in by_sequence.items()
    )
    return (
        f"There is no {' or '.join(sequences)} below '{path}', but {found}. Choose one, for "
        f'example --pattern "{next(iter(patterns.values()))}".'
    )


def _suggest_pattern(scans: list[Scan]) -> str:
    """A glob that the names of scans share: from the word that names the sequence onwards."""
    tails, tokens = set(), {scan.clue.token for scan in scans}
    for scan in scans:
        name, token = get_name(scan.path), scan.clue.token
        start = name.lower().rfind(token) if token else -1
        tails.add(name[max(start - 1, 0) :] if start >= 0 else name)
    if len(tails) == 1:
        return "*" + tails.pop()
    one_token = len(tokens) == 1 and "" not in tokens
    return f"*{tokens.pop()}*" if one_token else get_name(scans[0].path)
