"""Slice labels made from reference masks, which is a use of masks and says so.

Heatmask trains from image-level labels. Data sets such as BraTS come with masks and without
labels: the labels that are derived here stand for what a reader would have noted, slice by
slice. It is done only on request, and each line of the table says where it comes from.
"""

import csv
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from heatmask.data.finding.masks import MASK_FOLDERS
from heatmask.data.paths import get_name, split_scan_name
from heatmask.data.readers.reference import read_reference
from heatmask.errors import InputError, OutputError
from heatmask.files import write_atomically

COLUMNS = ("patient", "slice", "tumour", "split", "source")
SOURCE = "derived from a reference mask"


def derive_slice_labels(
    references: str | Path, output_csv: str | Path, seed: int = 0
) -> dict[str, int]:
    """Write the slice labels that reference masks stand for, as a table for training.

    Parameters
    ----------
    references
        Folder, searched to its ends for masks: files named like those of BraTS
        (``p1_seg.nii.gz``, ``p1-seg.nii.gz``), and all in a folder named like that of the
        Medical Segmentation Decathlon (``labelsTr``). Or one such file.
    output_csv
        A new file with the columns of `heatmask.data.labels.read_slice_labels` and `read_split`,
        so that it serves training as both tables, and ``source``. A slice (from 0, along the
        file's third axis) has a tumour where any voxel is above 0.5: every label counts.
    seed
        Of the draw that puts a fifth of the patients into ``test``, about a seventh into ``val``
        and the others into ``train``.

    Returns
    -------
    dict of str to int
        Patient (the mask's name without ``seg``) to the number of slices with tumour.

    Raises
    ------
    InputError
        There is no mask, two of one patient, or one that is no label map.
    OutputError
        The file is there already, or cannot be written.
    """
    output_csv = Path(output_csv)
    if output_csv.exists():
        raise OutputError(f"'{output_csv}' exists already. Give another name, or move it away.")
    masks = find_reference_masks(references)
    labels = {patient: _read_labels(path) for patient, path in masks.items()}
    _write_table(output_csv, labels, _draw_splits(labels, seed))
    return {patient: int(tumour.sum()) for patient, tumour in labels.items()}


def find_reference_masks(references: str | Path) -> dict[str, Path]:
    """Return the reference masks at or below a path, by patient."""
    root = Path(references).expanduser()
    paths = [root] if root.is_file() else sorted(root.rglob("*"))
    masks: dict[str, Path] = {}
    for path in paths:
        patient = _name_patient(path)
        if patient and masks.setdefault(patient, path) != path:
            raise InputError(
                f"{patient} has two reference masks, '{masks[patient]}' and '{path}'. Give a "
                "folder with one of them."
            )
    if not masks:
        raise InputError(
            f"There is no reference mask in '{root}': none is named like p1_seg.nii.gz or "
            f"p1-seg.nii.gz, or lies in a folder {' or '.join(MASK_FOLDERS)}. Check the path."
        )
    return masks


def _name_patient(path: Path) -> str:
    """The patient that a file is the reference mask of; empty if it is none."""
    stem, suffix = split_scan_name(get_name(path))
    if not suffix or stem.startswith(".") or not path.is_file():
        return ""
    if stem.lower().endswith(("_seg", "-seg")):
        return stem[:-4]
    return stem if path.parent.name in MASK_FOLDERS else ""


def _read_labels(path: Path) -> np.ndarray:
    """Whether each slice along the third axis (slices,) holds any labelled voxel."""
    tumour: np.ndarray = read_reference(path)[0].any(axis=(0, 1))
    return tumour


def _draw_splits(patients: Iterable[str], seed: int) -> dict[str, str]:
    drawn = sorted(patients)
    random.Random(seed).shuffle(drawn)
    test = len(drawn) // 5
    val = test + max(1, len(drawn) // 7) if len(drawn) > 1 else 0
    return {p: "test" if i < test else "val" if i < val else "train" for i, p in enumerate(drawn)}


def _write_table(path: Path, labels: dict[str, np.ndarray], splits: dict[str, str]) -> None:
    with write_atomically(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for patient, tumour in labels.items():
            writer.writerows(
                (patient, i, int(t), splits[patient], SOURCE) for i, t in enumerate(tumour)
            )
