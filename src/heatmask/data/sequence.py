"""Which MR sequence a scan is, by its DICOM header or its file name.

A network trained on FLAIR answers on a T1 scan as readily as on a FLAIR scan. The voxels
hardly say which it was (`heatmask.data.contrast`); the header and the name often do. What is
recognised here tells which scans are of one head, feeds the error that lists the modalities of
a folder and the warning on a scan of the wrong sequence. Nothing is refused on a guess.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    """

    sequence: str
    source: str = ""
    token: str = ""


# All patterns are matched against `_normalise_text`: lower case, words apart by one space.
# Protocols glue planes in front of the weighting: "ax3dT1". "patient1" holds no "t1".
_PLANES = r"\b(?:ax|sag|cor|tra|[23]d)*"
_WORDS: tuple[tuple[str, str], ...] = (  # in order: the first that matches decides
    ("DWI", r"\b(?:dwi|adc|dti|diff\w*|tracew?|ep2d\w*)\b"),
    ("SWI", r"\b(?:swi|swan)\b"),
    ("angiography", r"\b(?:tof|mra|angio\w*)\b"),
    ("FLAIR", r"\w*flair\w*|dark ?fluid|\bt2f\b|\btirm\b"),
    ("T1", _PLANES + r"t1(?:w\w*|n|c|ce|gd|gad\w*|km|post)?\b|mp2?rage|\bspgr\b"),
    ("T2*", _PLANES + r"t2(?:\*| ?star\b|s\b)|\bgre\b|\bhemo\b"),
    ("T2", _PLANES + r"t2(?:w\w*)?\b"),
    ("PD", r"\b(?:pdw?|proton ?density)\b"),
)
# An inversion-recovery T1 that General Electric calls "T1 FLAIR". In file names "t1" beside
# "flair" is more often the first time point, so this holds for headers only.
_T1_FLAIR = _PLANES + r"t1w? ?flair"
_CONTRAST = (
    r"\bt1 ?(?:c|ce|gd|gad\w*|km|post)\b|\+ ?(?:c|gd|km)\b"
    r"|\b(?:gd|gad\w*|ce|km|contrast|post(?! ?op)\w*)\b"
)
_NO_CONTRAST = r"\b(?:pre|non?|without|w ?o|unenhanced|nativ\w*)\b ?(?:gd|gad\w*|km|contrast)?"


def recognise_sequence(path_or_name: str | Path, dicom_header: Header | None = None) -> str:
    """Name the sequence of a scan; the header, if it tells anything, beats the name.

    Returns
    -------
    str
        One of `SEQUENCES`, a DICOM modality other than MR ("CT"), or "unknown".
    """
    return find_sequence_clue(path_or_name, dicom_header).sequence


def find_sequence_clue(
    path_or_name: str | Path, dicom_header: Header | None = None
) -> SequenceClue:
    """Name the sequence of a scan together with the source of that knowledge."""
    if dicom_header is not None:
        clue = _read_header(dicom_header)
        if clue.sequence != UNKNOWN:
            return clue
    name = Path(path_or_name).name
    sequence, token = _read_words(_normalise_text(name))
    source = f"the file name '{name}'" if token else ""
    return SequenceClue(sequence, source, token)


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


def strip_sequence_words(name: str) -> str:
    """Return a name in lower case without the words that tell the sequence.

    Scans of one head that lie in one folder are left with the same words: "p1" of both
    "p1_flair" and "P1-T1_post". Empty if nothing else was in the name.
    """
    words = _normalise_text(name)
    sequence, token = _read_words(words)
    if token:
        words = re.sub(rf"(?<!\S){re.escape(token)}(?!\S)", " ", words, count=1)
    if sequence in ("T1", "T1-Gd"):
        words = re.sub(_CONTRAST, " ", re.sub(_NO_CONTRAST, " ", words))
    return " ".join(words.split())


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


def _normalise_text(text: str) -> str:
    """Words apart by single spaces, up to the first "to": "flair_to_t1" is a FLAIR."""
    words = re.sub(r"[^a-z0-9+*]+", " ", text.lower()).strip()
    return re.split(r" (?:reg2|to|in|on) ", words)[0]


def _read_words(words: str) -> tuple[str, str]:
    """Sequence and the word that told, from normalised text."""
    for sequence, pattern in _WORDS:
        match = re.search(pattern, words)
        if match:
            with_contrast = re.search(_CONTRAST, re.sub(_NO_CONTRAST, " ", words))
            if sequence == "T1" and with_contrast:
                sequence = "T1-Gd"
            return sequence, match.group()
    return UNKNOWN, ""


def _read_header(header: Header) -> SequenceClue:
    """Modality, then the descriptions people wrote, then the physics."""
    modality = str(header.get("Modality") or "MR")
    if modality != "MR":
        return SequenceClue(modality, f"the DICOM header (Modality '{modality}')")
    clue = _read_descriptions(header)
    if clue.sequence == UNKNOWN:
        clue = _read_timing(header)
    agent = str(header.get("ContrastBolusAgent") or "").strip()
    if clue.sequence == "T1" and agent.lower() not in ("", "no", "none", "0", "n"):
        source = f"the DICOM header (ContrastBolusAgent '{agent}')"
        return SequenceClue("T1-Gd", source)
    return clue


def _read_descriptions(header: Header) -> SequenceClue:
    for keyword in ("SeriesDescription", "ProtocolName"):
        text = str(header.get(keyword) or "")
        words = _normalise_text(text)
        if re.search(_T1_FLAIR, words):
            words = words.replace("flair", " ")
        sequence, token = _read_words(words)
        if token:
            return SequenceClue(sequence, f"the DICOM header ({keyword} '{text}')")
    return SequenceClue(UNKNOWN)


def _read_timing(header: Header) -> SequenceClue:
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
    return SequenceClue(sequence, f"the DICOM header ({timing})")


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
    """Codes of an attribute that holds one string, several, or none."""
    value = header.get(keyword) or ()
    return (value,) if isinstance(value, str) else tuple(value)
