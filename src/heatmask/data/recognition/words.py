"""The words of names and protocols that stand for an MR sequence.

A name begins with the patient, the diagnosis, the time of the scan, and ends with the scan's own
words: "diffuse_glioma_01_flair", "Swan_J_t1". So whole words count, and of several the last.
"""

import re
from typing import NamedTuple

# All patterns are matched against `normalise_text`: lower case, words apart by one space.
# Protocols glue planes in front of the weighting: "ax3dT1". "patient1" holds no "t1".
_PLANES = r"\b(?:ax|sag|cor|tra|[23]d)*"
_TECHNIQUE = r"(?:tse|fse|se|tfe|ffe|spc|space|cube|vista|mprage|mpr|spgr|fl[23]d|vibe)"
_AGENT = (
    r"gad(?:o(?:(?:lin|vist|ter|but|pic|pen|dia|ben|xet)\w*)?)?|dotarem|magnevist|omniscan|prohance"
    r"|multihance|clariscan|contrast\w*|enhanced"
)
# "post treatment" is the patient's, not the scan's
_NO_EVENT = (
    r"(?! (?:op|surg|treat|rad|rt\b|chemo|ther|resect|biops|mort|part|trauma|stroke|ict|fossa))"
)
_POST = rf"post(?:c|gd|gad\w*|km|contrast\w*|inj\w*)?\d?\b{_NO_EVENT}"
_SHORT_AGENT = rf"(?:gd|ce|km|mdc|inj(?:ect\w*)?|{_POST})"
_VENDOR_FLAIR = (
    r"\btirm\b|\bdark ?fl(?:uid)?\b|\bda ?fl\b|\b(?:spc|space) ?ir\b"
    r"|\bfluid att\w*(?: inv\w*(?: rec\w*)?)?"
)

_FLAIR = (
    rf"(?:{_PLANES}t2w? )?(?:\w*flair\w*|{_PLANES}(?:t2)?flr\b|\bt2 ?f(?:la?)?\b|{_VENDOR_FLAIR})"
)
_WORDS = {
    "DWI": r"\b(?:dwi\d*|adc|dti|tracew)\b",
    "SWI": r"\bswip?\b",
    "angiography": r"\b(?:[23]d)?(?:tof|mra)\b",
    "FLAIR": _FLAIR,
    "T1": _PLANES
    + rf"(?:t1(?:w\w*|n|c[ea]?|pre|gd|gad\w*|km|{_POST}|contrast\w*|inj\w*|{_TECHNIQUE})?|ct1)\b",
    "T2*": _PLANES + r"t2(?:\*| ?star\w*|s\b)",
    "T2": _PLANES + rf"t2(?:w\w*|{_TECHNIQUE})?\b",
    "PD": r"\b(?:pdw|proton ?density)\b",
}
# Techniques, abbreviations and words that may be a patient's: only where nothing above is found.
_WEAK_WORDS = {
    "DWI": r"\b(?:diff|diffusion|trace|ep2d\w*)\b",
    "SWI": r"\b(?:swan|venobold)\b",
    "angiography": r"\bangio(?:gra\w+)?\b",
    "T1": r"\bmp ?2?rage\b|\b(?:f?spgr|bravo|vibe|thrive|lava)\b",
    "T2*": r"\b(?:gre|hemo)\b",
    "PD": r"\bpd\b",
}
_T2_STAR_TECHNIQUE = r"\b(?:gre|hemo|ffe|fl[23]d)\b"
_T1_GD = r".*(?:\bct1|t1w?(?:c[ea]?|gd|gad\w*|km|post\w*|contrast\w*|inj\w*))"
# An inversion-recovery T1, "t1_tirm_tra_dark-fluid". "T1 FLAIR" is one by General Electric's
# headers; in file names "t1" beside "flair" is more often the first time point.
_T1_INVERSION = rf"{_PLANES}t1w?\b(?:(?!t2).)*(?:{_VENDOR_FLAIR})"
_T1_FLAIR = rf"{_PLANES}t1w? ?flair"

_NO_CONTRAST = (
    rf"\b(?:pre{_NO_EVENT}|non?|without|w ?o|ohne|sans|unenhanced|nativ\w*"
    rf"|(?:pre|no|non)(?:gd|contrast))\b(?: (?:{_AGENT}|gd|ce|km|c)\b)?"
)
_CONTRAST = rf"(?:\b(?:ce|post|with|mit) )?\b(?:{_AGENT})\b|\+ ?(?:c|ce|gd|gad\w*|km)\b"
_CONTRAST_BEFORE = (
    rf"{_CONTRAST}|\b{_SHORT_AGENT}(?=(?: (?:ax\w*|sag\w*|cor\w*|tra\w*|[23]d|iso|t?se|fse))* *$)"
)
_CONTRAST_AFTER = rf"{_CONTRAST}|\b{_SHORT_AGENT}\b|^ c\b"

_SPACE = r"(?:flair|t[12]|dwi|pd|mni|std|standard|template|atlas|native)"
_REGISTERED = r" (?:(to|onto|into|reg2|(?:co)?reg(?:istered)?)|in|on|space) "
_REGISTERED_JOINED = rf"\b(\w*?(?:flair|t1(?:ce|c|gd|w|n)?|t2[wf]?))(?:2|to|in){_SPACE}\w*"


class SequenceWord(NamedTuple):
    """The part of a text that names a sequence."""

    sequence: str
    start: int
    end: int


class Reading(NamedTuple):
    """What a text says.

    Attributes
    ----------
    sequence : empty if the text names none
    token : the word that says so, lower case
    rest : the text without the words of the sequence: the same for all scans of one head
    """

    sequence: str
    token: str
    rest: str


def normalise_text(text: str) -> str:
    """Lower case, words apart by single spaces."""
    return re.sub(r"[^a-z0-9+*]+", " ", text.lower()).strip()


def read_words(text: str, by_scanner: bool = False) -> Reading:
    """Read a name, or the description that a scanner wrote in a header."""
    words = cut_registration(normalise_text(text))
    if re.search(_T1_INVERSION, words) or (by_scanner and re.search(_T1_FLAIR, words)):
        words = re.sub(rf"flair|{_VENDOR_FLAIR}", " ", words)
    word = find_sequence_word(words)
    if word is None:
        return Reading("", "", words)
    sequence, token = word.sequence, words[word.start : word.end]
    before, after = words[: word.start], words[word.end :]
    if sequence == "T1":
        with_contrast, before, after = _strip_contrast(before, after)
        if with_contrast or re.fullmatch(_T1_GD, token):
            sequence = "T1-Gd"
    if sequence == "T2" and re.search(_T2_STAR_TECHNIQUE, after):
        sequence = "T2*"
    return Reading(sequence, token.split()[-1], " ".join(f"{before} {after}".split()))


def find_sequence_word(words: str) -> SequenceWord | None:
    """The word of a normalised text that names the sequence; None if there is none.

    The last one does, but a FLAIR stays one beside a weighting: "t2_flair", "visit_t1_flair".
    """
    found = _find_all(words, _WORDS) or _find_all(words, _WEAK_WORDS)
    if not found:
        return None
    flairs = [word for word in found if word.sequence == "FLAIR"]
    is_weighting = found[-1].sequence in ("T1", "T2", "T2*", "PD")
    return flairs[-1] if flairs and is_weighting else found[-1]


def cut_registration(words: str) -> str:
    """Drop what a scan was registered to: "flair_to_t1" and "flair2t1" are FLAIR."""
    words = re.sub(_REGISTERED_JOINED, r"\1", words)
    for match in re.finditer(_REGISTERED, words):
        word = find_sequence_word(words[: match.start()])
        if word is None:
            continue
        directly = match[1] and word.end == match.start()
        if directly or re.match(_SPACE, words[match.end() :]):
            return words[: match.start()]
    return words


def denies_contrast(text: str) -> bool:
    """Whether a text says that no contrast agent was given."""
    return bool(re.search(_NO_CONTRAST, normalise_text(text)))


def _find_all(words: str, patterns: dict[str, str]) -> list[SequenceWord]:
    """Every word that names a sequence, in the order of their ends."""
    found = [
        SequenceWord(sequence, *match.span())
        for sequence, pattern in patterns.items()
        for match in re.finditer(pattern, words)
    ]
    return sorted(found, key=lambda word: word.end)


def _strip_contrast(before: str, after: str) -> tuple[bool, str, str]:
    """Whether a T1 is with contrast by the words before and after it, and these without such."""
    before, after = (re.sub(_NO_CONTRAST, " ", part) for part in (before, after))
    left = re.sub(_CONTRAST_BEFORE, " ", before), re.sub(_CONTRAST_AFTER, " ", after)
    return left != (before, after), *left
