"""Image-level labels of slices, from CSV files to one list of volumes a split."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heatmask.data.cases import Study, find_studies
from heatmask.data.tables.csv_table import read_table
from heatmask.errors import InputError, list_reasons


@dataclass(frozen=True)
class LabelledVolume:
    """A volume and the label (0 or 1) of each slice along the file's third axis.

    Attributes
    ----------
    patient : as in the tables
    path : the reference scan, whose slices are labelled
    slice_labels : from slice 0 on
    image : what `heatmask.data.load.LoadSequencesd` takes: the path, or that of every sequence
    """

    patient: str
    path: Path
    slice_labels: tuple[int, ...]
    image: str | Mapping[str, str] = field(default="", hash=False)
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", self.image or str(self.path))

    def list_labels(self, count: int) -> tuple[int, ...]:
        """Return the label of each of `count` slices.

        Raises
        ------
        InputError
            The table labels another number of slices.
        """
        if count != len(self.slice_labels):
            raise InputError(
                f"{self.path} has {count} slices along its third axis, and the table labels "
                f"{len(self.slice_labels)}."
            )
        return self.slice_labels


def list_labelled_volumes(
    images: str | Path,
    pattern: str | None,
    slice_labels: str | Path,
    patients: str | Path,
    split: str,
    sequences: Sequence[str] = ("FLAIR",),
) -> list[LabelledVolume]:
    """Return the volumes of one split, in the order of the patients' table.

    Parameters
    ----------
    images, pattern, sequences
        As `heatmask.data.cases.find_studies`: without a pattern every study comes with all of
        its scans in `sequences`, with one only with those that fit it. A study belongs to the
        patient whose name that of its reference begins with.
    slice_labels
        CSV with the columns patient, slice (from 0, along the file's third axis) and tumour
        (0 or 1).
    patients
        CSV with the columns patient and split.
    split
        Which rows of `patients` to take.

    Raises
    ------
    InputError
        A table lacks a column, a patient stands in two splits, the split is empty, or patients
        have no scan, two scans, or slices without a label: all of them are named.
    """
    labels = read_slice_labels(slice_labels)
    chosen = read_split(patients, split)
    studies = find_studies(images, pattern, sequences)
    volumes, problems = [], {}
    for patient in chosen:
        try:
            study = _find_study(patient, studies).select(sequences)
            volumes.append(
                LabelledVolume(patient, study.reference, _find_labels(patient, labels), study.image)
            )
        except InputError as error:
            problems[patient] = str(error)
    if problems:
        raise InputError(
            f"{len(problems)} of {len(chosen)} patients of the split {split!r} in {patients} "
            f"cannot be used. Correct their lines and files, or take them out of the table:"
            f"{list_reasons(problems)}"
        )
    return volumes


def read_slice_labels(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return each patient's slice labels in slice order."""
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for line, row in read_table(path, ("patient", "slice", "tumour")).lines:
        if not row["slice"].isdecimal() or row["tumour"] not in ("0", "1"):
            raise InputError(
                f"{path}, line {line}: slice must be a whole number from 0 and tumour 0 or 1, "
                f"got {row['slice']!r} and {row['tumour']!r}."
            )
        labels, index = found[row["patient"]], int(row["slice"])
        if index in labels:
            raise InputError(
                f"{path}, line {line}: slice {index} of {row['patient']} has a second label. "
                "Remove one of the two lines."
            )
        labels[index] = int(row["tumour"])
    for patient, slices in found.items():
        if sorted(slices) != list(range(len(slices))):
            raise InputError(
                f"In {path} the slices of {patient} are not labelled from 0 on without a gap: "
                f"{len(slices)} labels up to slice {max(slices)}."
            )
    return {p: tuple(s[i] for i in range(len(s))) for p, s in found.items()}


def read_split(path: str | Path, split: str) -> list[str]:
    """Return the patients of one split; a patient in two splits is refused."""
    splits: dict[str, str] = {}
    for line, row in read_table(path, ("patient", "split")).lines:
        if splits.setdefault(row["patient"], row["split"]) != row["split"]:
            raise InputError(
                f"{path}, line {line}: {row['patient']} is in two splits, "
                f"{splits[row['patient']]!r} and {row['split']!r}."
            )
    chosen = [patient for patient, name in splits.items() if name == split]
    if not chosen:
        raise InputError(
            f"{path} has no patients of the split {split!r}; its splits are "
            f"{', '.join(sorted(set(splits.values()))) or 'none'}."
        )
    return chosen


def _find_labels(patient: str, labels: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if patient not in labels:
        raise InputError(f"No line labels a slice of {patient}.")
    return labels[patient]


def _find_study(patient: str, studies: list[Study]) -> Study:
    begins = tuple(patient + sign for sign in "-_.")
    found = [s for s in studies if s.case == patient or s.case.startswith(begins)]
    if len(found) != 1:
        names = ", ".join(str(study.reference) for study in found) or "none"
        raise InputError(
            f"There must be one scan whose name begins with {patient}, and there are "
            f"{len(found)}: {names}. Narrow the pattern, or correct the names."
        )
    return found[0]
