"""Files that look like scans and are none to work on: which, and why, in one line."""

import os
from pathlib import Path

from heatmask.data.finding.masks import is_mask
from heatmask.data.paths import find_missing_content, get_stem, is_picture, split_scan_name
from heatmask.data.readers.dicom_files import DICOM_SUFFIXES
from heatmask.data.recognition.bids import is_no_structure

_NAMED = 3


class PassedOver:
    """What a search passed over, by reason; as a text one clause for each."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, path: Path) -> None:
        """Note a file or folder."""
        self._names.setdefault(reason, []).append(path.name)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        return "; ".join(list_names(names, reason) for reason, names in sorted(self._names.items()))


def list_names(names: list[str], kind: str) -> str:
    """How many there are of a kind, and the first few."""
    first = ", ".join(sorted(names)[:_NAMED])
    return f"{len(names)} {kind} ({first}{', ...' if len(names) > _NAMED else ''})"


def find_reason(path: Path, wants_pictures: bool) -> str:
    """Why a file is no scan to work on although it might be; empty if it is one, or clearly not."""
    if not split_scan_name(path.name)[1]:
        return _find_reason_without_suffix(path)
    if is_picture(path) and not wants_pictures:
        return "as pictures, which need a pattern such as '*.png'"
    if is_mask(path):
        return "named like masks or results"
    if is_no_structure(get_stem(path)):
        return "named like functional images, field maps or parameter maps"
    fix = find_missing_content(path)
    return f"without content, {fix}" if fix else ""


def _find_reason_without_suffix(path: Path) -> str:
    fix = find_missing_content(path) if path.suffix.lower() in ("", *DICOM_SUFFIXES) else ""
    if fix:
        return f"without content, {fix}"
    is_link = path.is_symlink() and split_scan_name(os.readlink(path))[1]
    return "linked under a name without suffix, rename the link" if is_link else ""
