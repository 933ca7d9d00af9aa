"""Names by the Brain Imaging Data Structure: ``sub-01_ses-1_ce-gadolinium_T1w``.

Gorgolewski et al., Scientific Data 3:160044, 2016. The suffix says what a file is; the entities
before it may hold any word.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from heatmask.data.recognition.words import read_words

DATASET_FILE = "dataset_description.json"
NO_RAW_FOLDERS = ("derivatives", "sourcedata")
"""Beside the raw scans of a data set: what was made of them, and what they were made of."""
NO_STRUCTURE = frozenset(
    "bold cbv sbref phase asl m0scan epi phasediff phase1 phase2 magnitude magnitude1 magnitude2 "
    "fieldmap T1map T2map T2starmap R1map R2map R2starmap PDmap M0map MTRmap T1rho pet".split()
)
"""Suffixes of functional images, field maps and parameter maps."""

_SEQUENCES = {
    "FLAIR": "FLAIR",
    "T1w": "T1",
    "inplaneT1": "T1",
    "UNIT1": "T1",
    "MP2RAGE": "T1",
    "T2w": "T2",
    "inplaneT2": "T2",
    "T2star": "T2*",
    "T2starw": "T2*",
    "PDw": "PD",
    "PD": "PD",
    "dwi": "DWI",
    "adc": "DWI",
    "swi": "SWI",
    "angio": "angiography",
}
_OF_ONE_HEAD = ("sub", "ses", "space", "desc")


def is_no_structure(stem: str) -> bool:
    """Whether a name is that of a functional image, a field map or a parameter map."""
    bids = parse_bids(stem)
    return bids is not None and bids.suffix in NO_STRUCTURE


class BidsName(NamedTuple):
    """The parts of a name.

    Attributes
    ----------
    entities : such as ``{"sub": "01", "ce": "gadolinium"}``
    suffix : such as "T1w"
    """

    entities: Mapping[str, str]
    suffix: str

    @property
    def sequence(self) -> str:
        """What the suffix and the contrast agent say; empty if the suffix is no sequence."""
        sequence = _SEQUENCES.get(self.suffix, "")
        if sequence != "T1":
            return sequence
        agent = self.entities.get("ce", "none").lower()
        with_agent = agent not in ("none", "no", "pre")
        by_words = read_words(f"t1 {self.entities.get('acq', '')}").sequence
        return "T1-Gd" if with_agent or by_words == "T1-Gd" else "T1"

    @property
    def head(self) -> str:
        """What the names of all scans of one head and session have in common."""
        return " ".join(
            f"{key} {self.entities[key]}" for key in _OF_ONE_HEAD if key in self.entities
        )


def parse_bids(stem: str) -> BidsName | None:
    """Take a name apart; None if it is not one of BIDS."""
    if not re.fullmatch(r"sub-[A-Za-z0-9]+(?:_[a-z0-9]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+", stem):
        return None
    *entities, suffix = stem.split("_")
    return BidsName(dict(entity.split("-") for entity in entities), suffix)
