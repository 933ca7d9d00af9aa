"""What a header says of the sequence: DICOM's, or the JSON of dcm2niix and BIDS beside a scan."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatmask.data.paths import get_place, split_scan_name
from heatmask.data.recognition.sequence import UNKNOWN, Header, SequenceClue
from heatmask.data.recognition.words import read_words

_TIMES = ("EchoTime", "InversionTime", "RepetitionTime")
_LONGEST_ECHO_S = 1.5


def find_sidecar(path: Path) -> Path | None:
    """The JSON of a scan's own name in its own folder; None if there is none."""
    place = get_place(path)
    sidecar = place.with_name(split_scan_name(place.name)[0] + ".json")
    return sidecar if sidecar.is_file() else None


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """Read it as a header by DICOM keyword, with times in ms; empty if it is none.

    Times are in s by BIDS; where the echo time would then be impossibly long, they are in ms.
    """
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, Mapping):
        return {}
    header = dict(values)
    header.setdefault("ContrastBolusAgent", values.get("ContrastBolusIngredient"))
    times = {key: header[key] for key in _TIMES if isinstance(header.get(key), int | float)}
    scale = 1 if times.get("EchoTime", 0) > _LONGEST_ECHO_S else 1000
    return header | {key: time * scale for key, time in times.items()}


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
