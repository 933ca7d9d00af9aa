"""Scans whose sequences stand in a ``dataset.json``: the Medical Segmentation Decathlon, nnU-Net.

Task01_BrainTumour keeps four sequences in the channels of one NIfTI (Antonelli et al., Nature
Communications 13:4128, 2022), nnU-Net each in a file of its own, ``CASE_0000.nii.gz``,
``CASE_0001.nii.gz`` (Isensee et al., Nature Methods 18:203, 2021). The table lies beside the
scans or one folder above.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from glob import escape
from pathlib import Path

from heatmask.data.paths import get_place, get_stem, is_picture, split_scan_name
from heatmask.data.recognition.bids import is_no_structure
from heatmask.data.recognition.sequence import (
    UNKNOWN,
    SequenceClue,
    read_name_clue,
    recognise_sequence,
)
from heatmask.errors import InputError

BRAIN_TUMOUR = ("FLAIR", "T1", "T1-Gd", "T2")
"""Channels of Task01_BrainTumour."""
_MOST_CHANNELS = 8


def name_channels(path: Path, count: int) -> tuple[tuple[str, ...], list[str]]:
    """Return the sequence of each channel of a file, and warnings.

    Parameters
    ----------
    path
        The file; ``dataset.json`` is looked for in its folder and the one above.
    count
        How many channels it has.

    Raises
    ------
    InputError
        ``dataset.json`` is damaged, or names other channels than the file has; or there is
        none, and it is not four channels, which are then taken as `BRAIN_TUMOUR`.
    """
    table, names = _find_names(path)
    if names:
        return _check_names(names, count, path, table), []
    if count != len(BRAIN_TUMOUR):
        raise InputError(
            f"'{path}' has {count} channels, and there is no dataset.json near it that names "
            "them. Split it into one file for each sequence."
        )
    clue = read_name_clue(path.name, get_stem(path))
    if clue.sequence != UNKNOWN or is_no_structure(get_stem(path)):
        raise InputError(
            f"'{path.name}' has four volumes, and by its name they are not one of each sequence. "
            "Give one volume as a file, or write a dataset.json that names the channels."
        )
    return BRAIN_TUMOUR, [
        f"'{path.name}' has four channels and no dataset.json near it; they are taken as "
        f"{', '.join(BRAIN_TUMOUR)}, in this order."
    ]


def find_channel_clue(path: Path) -> SequenceClue | None:
    """What ``dataset.json`` says of a file of nnU-Net's; None if it says nothing.

    Raises
    ------
    InputError
        ``dataset.json`` is damaged.
    """
    case, number = split_channel(path)
    table, names = _find_names(path) if case else (path, {})
    if number not in names:
        return None
    name = names[number]
    sequence = name.upper() if name.upper() in ("CT", "PET") else recognise_sequence(name)
    source = f"{table.name} (channel {number} is '{name}')"
    return SequenceClue(sequence, source if sequence != UNKNOWN else "", f"_{number:04d}", case)


def find_unnamed_channels(paths: Iterable[Path]) -> list[list[Path]]:
    """Files that look like channels of one case, by case; `paths` are of unknown sequence.

    The files beside them count too: numbers from 0 on, and no more than a patient has sequences.
    Other numbers are those of patients.
    """
    cases: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        case, _ = split_channel(path)
        if case and not is_picture(path):
            cases[get_place(path).parent, case].append(path)
    return [chosen for chosen in cases.values() if _are_channels(chosen[0])]


def _are_channels(path: Path) -> bool:
    """Whether a file and those beside it that differ in the number are channels of one case."""
    case, _ = split_channel(path)
    beside = get_place(path).parent.glob(f"{escape(case)}_[0-9][0-9][0-9][0-9].*")
    numbers = {split_channel(other)[1] for other in beside if split_scan_name(other.name)[1]}
    return 0 in numbers and len(numbers) > 1 and max(numbers) < _MOST_CHANNELS


def split_channel(path: Path) -> tuple[str, int]:
    """Split ``CASE_0003.nii.gz`` into case and number; the case of other files is empty."""
    match = re.fullmatch(r"(.+)_(\d{4})", get_stem(path))
    return (match[1], int(match[2])) if match else ("", -1)


def _find_names(path: Path) -> tuple[Path, dict[int, str]]:
    """The table of a file, by the file's own place, and the names of its channels."""
    for folder in get_place(path).parents[:2]:
        table = folder / "dataset.json"
        if table.is_file():
            names = _read_names(table, table.stat().st_mtime_ns)
            if names:
                return table, names
    return path, {}


@lru_cache(maxsize=16)
def _read_names(table: Path, changed_ns: int) -> dict[int, str]:
    """Names of the channels by their numbers, in order; empty if the table has none."""
    try:
        content = json.loads(table.read_text(encoding="utf-8-sig"))
        names = content.get("channel_names") or content.get("modality") or {}
        return {int(key): str(names[key]) for key in sorted(names, key=int)}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"'{table}' does not name the channels in 'modality' or 'channel_names' ({error}). "
            'Write for example {"channel_names": {"0": "FLAIR", "1": "T1w"}}.'
        ) from error


def _check_names(names: dict[int, str], count: int, path: Path, table: Path) -> tuple[str, ...]:
    sequences = tuple(recognise_sequence(name) for name in names.values())
    if len(names) != count or len(set(sequences)) != count:
        raise InputError(
            f"'{path}' has {count} channels, and '{table}' names {', '.join(names.values())}. Name "
            "each channel once."
        )
    return sequences
