"""Which MR sequence a scan is, by a header (of DICOM, or a sidecar's) or its file name.

A network trained on FLAIR answers on a T1 scan as readily as on a FLAIR scan. The voxels
hardly say which it was (`heatmask.data.contrast`); the header and the name often do. What is
recognised here tells which scans are of one head, feeds the error that lists the modalities of
a folder and the warning on a scan of the wrong sequence. Nothing is refused on a guess.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from heatmask.data.bids import NO_STRUCTURE, parse_bids
from heatmask.data.words import denies_contrast, read_words
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
    """Name the sequence that a word or two tell, such as a channel's name in a table.

    Returns
    -------
    str
        One of `SEQUENCES`, or "unknown".
    """
    return read_name_clue(name, name).sequence


def read_name_clue(name: str, stem: str) -> SequenceClue:
    """What a name tells; `stem` is the part of it without the suffix of its format."""
    bids = parse_bids(stem)
    if bids and bids.sequence:
        source = f"the file name '{name}'"
        return SequenceClue(bids.sequence, source, bids.suffix.lower(), bids.head)
    if bids and bids.suffix in NO_STRUCTURE:
        return SequenceClue(UNKNOWN, head=bids.head)
    sequence, token, rest = read_words(stem)
    source = f"the file name '{name}'" if token else ""
    return SequenceClue(sequence or UNKNOWN, source, token, rest)


def weigh_clues(strong: SequenceClue, weak: SequenceClue) -> SequenceClue:
    """Combine what a header or table tells with what a name does, which counts less.

    A header that says T1 says nothing against contrast, unless it does so in words: where the
    name tells of contrast, it is T1-Gd.
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
            f"sequences must name, each once, what the network's channels are, of "
            f"{', '.join(SEQUENCES)}; got {list(names)}. Correct the names, for example "
            '["FLAIR", "T1-Gd"].'
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


def read_header_clue(header: Header, source: str = "the DICOM header") -> SequenceClue:
    """Modality, then the descriptions people wrote, then the physics."""
    modality = str(header.get("Modality") or "MR")
    if modality != "MR":
        return SequenceClue(modality, f"{source} (Modality '{modality}')")
    clue, timing = _read_descriptions(header, source), _read_timing(header, source)
    # A "T2" that inverts fluid away is a FLAIR under a short name.
    if clue.sequence == UNKNOWN or (clue.sequence, timing.sequence) == ("T2", "FLAIR"):
        clue = timing
    agent = str(header.get("ContrastBolusAgent") or "").strip()
    if clue.sequence == "T1" and agent.lower() not in ("", "no", "none", "0", "n"):
        return SequenceClue("T1-Gd", f"{source} (ContrastBolusAgent '{agent}')")
    return clue


def _read_descriptions(header: Header, source: str) -> SequenceClue:
    for keyword in ("SeriesDescription", "ProtocolName", "ImageType"):
        value = header.get(keyword) or ""
        text = value if isinstance(value, str) else " ".join(map(str, value))
        sequence = read_words(text, by_scanner=True).sequence
        if sequence:
            return SequenceClue(sequence, f"{source} ({keyword} '{text}')")
    return SequenceClue(UNKNOWN)


def _read_timing(header: Header, source: str) -> SequenceClue:
    """Sequence by its timing, in ms, where the usual clinical ranges leave no doubt.

    FLAIR nulls fluid (long inversion time) and reads late; magnetisation-prepared T1
    inverts for about a second and reads early; spin echoes separate T1 and T2 by echo
    and repetition time. Echo-planar images (diffusion, perfusion) are left unknown.
    """
    inversion_ms, echo_ms, repetition_ms = (
        _read_number(header, key) for key in ("InversionTime", "EchoTime", "RepetitionTime")
    )
    technique = _read_codes(header, "ScanningSequence")
    sequence = UNKNOWN
    if "EP" in technique:
        pass
    elif inversion_ms >= 1500 and echo_ms >= 60:
        sequence = "FLAIR"
    elif 300 <= inversion_ms <= 1300 and 0 < echo_ms <= 20:
        sequence = "T1"
    elif "SE" in technique and inversion_ms == 0 and echo_ms > 0 and repetition_ms > 0:
        sequence = _read_spin_echo(echo_ms, repetition_ms)
    if sequence == UNKNOWN:
        return SequenceClue(UNKNOWN)
    timing = f"TE {echo_ms:g} ms, TR {repetition_ms:g} ms, TI {inversion_ms:g} ms"
    return SequenceClue(sequence, f"{source} ({timing})")


def _read_spin_echo(echo_ms: float, repetition_ms: float) -> str:
    if echo_ms <= 30 and repetition_ms <= 1000:
        return "T1"
    if echo_ms >= 60 and repetition_ms >= 2000:
        return "T2"
    return UNKNOWN


def _read_number(header: Header, keyword: str) -> float:
    """Value in ms; 0 where it is absent or not a number."""
    try:
        return float(header.get(keyword) or 0)
    except (TypeError, ValueError):
        return 0.0


def _read_codes(header: Header, keyword: str) -> tuple[str, ...]:
    """Codes of an attribute that holds one string, several, or none; dcm2niix joins them."""
    value = header.get(keyword) or ()
    return tuple(re.findall("[A-Z]+", value)) if isinstance(value, str) else tuple(value)
