"""Scans with several sequences in one file, as in the Medical Segmentation Decathlon.

Task01_BrainTumour keeps four sequences in the channels of one NIfTI (Antonelli et al., Nature
Communications 13:4128, 2022). What they are stands in the ``dataset.json`` of the task, one
folder above the scans.
"""

import json
from pathlib import Path

from heatmask.data.sequence import recognise_sequence
from heatmask.errors import InputError

BRAIN_TUMOUR = ("FLAIR", "T1", "T1-Gd", "T2")
"""Channels of Task01_BrainTumour."""


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
    for folder in path.resolve().parents[:2]:
        table = folder / "dataset.json"
        if table.is_file():
            names = _read_modalities(table)
            if names:
                return _check_names(names, count, path, table), []
    if count != len(BRAIN_TUMOUR):
        raise InputError(
            f"A scan with several channels must have the four of Task01_BrainTumour, or a "
            f"dataset.json that names them; '{path}' has {count} and no dataset.json near it. "
            "Split it into one file for each sequence."
        )
    return BRAIN_TUMOUR, [
        f"'{path.name}' has four channels and no dataset.json near it; they are taken as "
        f"{', '.join(BRAIN_TUMOUR)}, in this order."
    ]


def _read_modalities(table: Path) -> list[str]:
    """Values of ``modality`` in the order of their numbers; empty if there is none."""
    try:
        modality = json.loads(table.read_text(encoding="utf-8")).get("modality") or {}
        return [str(modality[key]) for key in sorted(modality, key=int)]
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"dataset.json must hold a 'modality' of channel numbers and names; '{table}' does "
            f'not ({error}). Write for example {{"modality": {{"0": "FLAIR", "1": "T1w"}}}}.'
        ) from error


def _check_names(names: list[str], count: int, path: Path, table: Path) -> tuple[str, ...]:
    sequences = tuple(recognise_sequence(name) for name in names)
    if len(names) != count or len(set(sequences)) != count:
        raise InputError(
            f"dataset.json must name each channel once; '{path}' has {count}, and '{table}' says "
            f"{', '.join(names)}. Correct the table."
        )
    return sequences
