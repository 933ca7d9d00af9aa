"""Which MR sequence a scan is, by a header (of DICOM, or a sidecar's) or its file name.

A network trained on FLAIR answers on a T1 scan as readily as on a FLAIR scan. The voxels
hardly say which it was (`heatmask.data.checks.contrast`); the header and the name often do. What is
recognised here groups the scans of one head, feeds the error that lists the modalities of
a folder and the warning on a scan of the wrong sequence. Nothing is refused on a guess.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from heatmask.data.recognition.bids import is_no_structure, parse_bids
from heatmask.data.recognition.words import denies_contrast, read_words
from heatmask.errors import OptionError

UNKNOWN = "unknown"
SEQUENCES = ("FLAIR", "T1", "T1-Gd", "T2", "T2*", "PD", "DWI", "SWI", "angiography")


class Header(Protocol):
    """What is read from a header: a pydicom `Dataset` or a dict by DICOM keyword."""

    def get(self, key: str, /) -> Any:
        """Value of an attribute, None where it is absent."""


@dataclass(frozen=True)
class SequenceClue:
    """A recognised sequence and where the knowledge comes from.

    Attributes
    ----------
    sequence : one of `SEQUENCES`, "unknown", or a DICOM modality other than MR ("CT")
    source : a phrase for messages, "the file name 'x-t1c.nii.gz'"; empty if unknown
    token : the word of the name that gave it away, lower case; empty for headers
    head : the name without the words of the sequence, the same for all scans of one head
    conflict : a sentence where two sources say different things; empty if they do not
    """

    sequence: str
    source: str = ""
    token: str = ""
    head: str = field(default="", compare=False)
    conflict: str = field(default="", compare=False)


def recognise_sequence(name: str) -> str:
    """Return the sequence that a word or two stand for, such as a channel's name in a table.

    Returns
    -------
    str
        One of `SEQUENCES`, or "unknown".
    """
    return read_name_clue(name, name).sequence


def read_name_clue(name: str, stem: str) -> SequenceClue:
    """What a name says; `stem` is the part of it without the suffix of its format."""
    bids = parse_bids(stem)
    if bids and bids.sequence:
        source = f"the file name '{name}'"
        return SequenceClue(bids.sequence, source, bids.suffix.lower(), bids.head)
    if bids and is_no_structure(stem):
        return SequenceClue(UNKNOWN, head=bids.head)
    sequence, token, rest = read_words(stem)
    source = f"the file name '{name}'" if token else ""
    return SequenceClue(sequence or UNKNOWN, source, token, rest)


def weigh_clues(strong: SequenceClue, weak: SequenceClue) -> SequenceClue:
    """Combine what a header or table says with what a name does, which counts less.

    A header that says T1 says nothing against contrast, unless it does so in words: where the
    name speaks of contrast, it is T1-Gd.
    """
    strong = replace(strong, head=strong.head or weak.head)
    if strong.sequence == UNKNOWN:
        return weak
    refined = (strong.sequence, weak.sequence)
    if refined == ("T1", "T1-Gd") and not denies_contrast(strong.source.rpartition("(")[2]):
        return replace(weak, head=strong.head)
    if weak.sequence in (UNKNOWN, strong.sequence) or refined == ("T1-Gd", "T1"):
        return strong
    conflict = (
        f"{weak.source[0].upper()}{weak.source[1:]} says {weak.sequence}, but {strong.source} says "
        f"{strong.sequence}, which counts."
    )
    return replace(strong, conflict=conflict)


def check_sequences(sequences: Iterable[str]) -> tuple[str, ...]:
    """Return the sequences that a network takes, one for each of its input channels.

    ``["unknown"]`` is a network for scans of a kind that has no name here.

    Raises
    ------
    OptionError
        There is none, one is not known, or one stands there twice.
    """
    names = (sequences,) if isinstance(sequences, str) else tuple(sequences or ())
    wrong = [name for name in names if name not in (*SEQUENCES, UNKNOWN)]
    if not names or wrong or len(set(names)) < len(names):
        raise OptionError(
            f"sequences must name each channel of the network once, by one of "
            f"{', '.join(SEQUENCES)}; got {list(names)}."
        )
    return names


def describe_mismatch(clue: SequenceClue, expected: Iterable[str]) -> str | None:
    """Warn about a scan that is known to be none of the expected sequences.

    Returns
    -------
    str or None
        One sentence or two for people; None if the sequence fits or is unknown.
    """
    expected = tuple(expected)
    if UNKNOWN in expected or clue.sequence in (UNKNOWN, *expected):
        return None
    wanted = " or ".join(expected)
    article = "an" if wanted[0] in "AEIOS" else "a"
    return (
        f"Expected {article} {wanted} scan; {clue.source} says {clue.sequence}. "
        "The mask may mean nothing."
    )
