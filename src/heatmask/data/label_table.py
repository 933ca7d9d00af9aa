"""Image-level labels of one's own: a CSV of images and classes, split by patient."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from heatmask.data.tables.csv_table import Table, raise_problems, read_table
from heatmask.data.tables.image_finder import ImageFinder
from heatmask.errors import InputError, OptionError

NO_FINDING = ("", "none", "healthy", "0")
"""What the label column holds, in any case, where an image shows none of the classes."""
SPLITS = ("train", "val", "test")
VALIDATION_SHARE = 0.2
_WHOLE = re.compile(r"^(\d+)\.0+$")
_NAME = re.compile(r"\w[\w .+()/-]*")  # Nothing that MONAI's config parser would evaluate


@dataclass(frozen=True)
class LabelRow:
    """One line of the table.

    Attributes
    ----------
    line : number of the line in the file, the header is 1
    path : the image
    slice : index along the file's third axis, from 0; None for an image of one slice
    label : value in the mask: 0 for no finding, k + 1 for class k
    patient, split : as in the table; empty where it has no such column
    """

    line: int
    path: Path
    slice: int | None
    label: int
    patient: str
    split: str = ""


@dataclass(frozen=True)
class LabelledImage:
    """An image with the labels of some of its slices, or of its only one.

    Attributes
    ----------
    patient : as in the table; the image's own path where it names none
    path : the image
    labels : slice to label (0 for no finding, k + 1 for class k); the key None stands for the
        only slice
    lines : lines of the table that this comes from, for messages
    """

    patient: str
    path: Path
    labels: Mapping[int | None, int]
    lines: tuple[int, ...]

    @property
    def image(self) -> str:
        """What `heatmask.data.load.LoadSequencesd` takes."""
        return str(self.path)

    def list_labels(self, count: int) -> tuple[int | None, ...]:
        """Return the label of each of `count` slices; None where the table has none.

        Raises
        ------
        InputError
            The image has several slices and the table says not which, or it has fewer.
        """
        if None in self.labels and count != 1:
            raise InputError(
                f"A row of an image with several slices must name one of them; '{self.path}' has "
                f"{count} along its third axis. Fill in the column slice, from 0."
            )
        beyond = [i for i in self.labels if i is not None and i >= count]
        if beyond:
            raise InputError(
                f"slice must lie within the image; '{self.path}' has {count} along its third axis, "
                f"and the table labels slice {max(beyond)}. They count from 0."
            )
        return tuple(self.labels.get(i, self.labels.get(None)) for i in range(count))


@dataclass(frozen=True)
class LabelTable:
    """A table that was read and split.

    Attributes
    ----------
    class_names : what a network has a logit for, in order
    rows : all lines, each in a split
    split_rule : a sentence for people: how the lines came into their splits
    digest : SHA-256 of the file
    """

    class_names: tuple[str, ...]
    rows: tuple[LabelRow, ...]
    split_rule: str
    digest: str

    @cached_property
    def has_negatives(self) -> bool:
        """Whether some images show none of the classes; always so with one class."""
        return any(row.label == 0 for row in self.rows)

    def select(self, *splits: str) -> tuple[LabelledImage, ...]:
        """Return the images of splits, in the order of the table."""
        by_path: dict[Path, list[LabelRow]] = defaultdict(list)
        for row in self.rows:
            if row.split in splits:
                by_path[row.path].append(row)
        return tuple(
            LabelledImage(
                rows[0].patient, path, {r.slice: r.label for r in rows}, tuple(r.line for r in rows)
            )
            for path, rows in by_path.items()
        )

    def count_labels(self, split: str) -> dict[str, int]:
        """Return the number of labelled slices of a split, by class; "none" first if it occurs."""
        found = Counter(row.label for row in self.rows if row.split == split)
        names = {0: "none"} if self.has_negatives else {}
        names |= dict(enumerate(self.class_names, start=1))
        return {name: found[label] for label, name in names.items()}


def read_label_table(
    labels: str | Path,
    images: str | Path,
    classes: Sequence[str] | None = None,
    split_seed: int = 0,
    patient_column: str = "patient",
) -> LabelTable:
    """Read a table of image-level labels and split it by patient.

    Parameters
    ----------
    labels
        CSV with the columns ``image`` (path relative to `images`) and ``label`` (a class, or one
        of `NO_FINDING`), and optionally ``slice`` (from 0, along the file's third axis),
        ``patient`` and ``split`` (train, val or test). Other columns are passed over. With one
        class, the label 1 means it too.
    images
        Folder of the images.
    classes
        The classes in the order of their labels in the mask; None takes those of the table,
        sorted.
    split_seed
        Without a column ``split``, about a fifth of the patients of each class are drawn for
        validation from this seed. Without a column ``patient``, every image counts as one.
    patient_column
        Which column tells the patient, or whatever else must not be in two splits.

    Raises
    ------
    InputError
        The file or a column is missing, lines cannot be used (all are named), only one class
        is there, a patient is in two splits, or a split lacks a class.
    OptionError
        `classes` are no usable names.
    """
    table = _read_lines(labels, patient_column)
    class_names = _choose_classes(labels, table.lines, classes)
    rows = _parse_lines(labels, ImageFinder(images), table.lines, class_names)
    _check_classes(labels, rows, class_names)
    if "split" in table.columns:
        rule = "by the table's column split"
        _check_splits(labels, rows)
    else:
        rows = _draw_splits(rows, split_seed)
        whole = "patient" if "patient" in table.columns else "image (the table names no patients)"
        rule = (
            f"one {whole} in one split, about 1 in 5 for validation, drawn from seed {split_seed}"
        )
    _check_coverage(labels, rows, class_names)
    return LabelTable(class_names, tuple(rows), rule, table.digest)


def read_references(
    labels: str | Path, images: str | Path, column: str = "mask"
) -> dict[Path, Path]:
    """Return the reference mask of each image of a table of labels.

    Parameters
    ----------
    labels, images
        As `read_label_table` takes them.
    column
        Holds the mask's path, relative to `images`; an image where it is empty is left out.

    Raises
    ------
    InputError
        The file or a column is missing.
    """
    table, find = read_table(labels, ["image", column]), ImageFinder(images)
    return {find(row["image"]): find(row[column]) for _, row in table.lines if row[column]}


def _read_lines(path: str | Path, patient_column: str) -> Table:
    """Read the table; the column of the patient is ``patient``, whatever the file calls it."""
    table = read_table(path, ["image", "label", *[patient_column] * (patient_column != "patient")])
    lines = tuple((line, _write_plainly(row, patient_column)) for line, row in table.lines)
    return replace(table, columns=tuple(lines[0][1]) if lines else (), lines=lines)


def _write_plainly(row: dict[str, str], patient_column: str) -> dict[str, str]:
    """A row with 1 for the 1.0 that pandas and spreadsheets make of it, and ``patient``."""
    plain = dict(row)
    for name in {"label", "slice"} & row.keys():
        plain[name] = _WHOLE.sub(r"\1", row[name])
    if patient_column in row:
        plain["patient"] = row[patient_column]
    return plain


def _choose_classes(
    path: str | Path, lines: Sequence[tuple[int, dict[str, str]]], classes: Sequence[str] | None
) -> tuple[str, ...]:
    found = sorted({row["label"] for _, row in lines if row["label"].lower() not in NO_FINDING})
    names = tuple(found if classes is None else (name.strip() for name in classes))
    if names == ("1",):
        raise OptionError(
            f"The labels in {path} are 0 and 1, and the segment must have a name. Give it, for "
            "example --classes tumour."
        )
    wrong = [n for n in names if not _NAME.fullmatch(n) or n.lower() in (*NO_FINDING, "background")]
    if not names or wrong or len({name.lower() for name in names}) < len(names):
        raise OptionError(
            "classes must be one name or several that differ in more than case, of letters, digits "
            f"and ' .+-_()/', and none of {', '.join(NO_FINDING[1:])}, background; got "
            f"{', '.join(map(repr, names)) or 'none'}. Rename them, in the table too."
        )
    return names


def _parse_lines(
    path: str | Path,
    find: ImageFinder,
    lines: Sequence[tuple[int, dict[str, str]]],
    class_names: tuple[str, ...],
) -> list[LabelRow]:
    values = dict.fromkeys(NO_FINDING, 0) | {n: k for k, n in enumerate(class_names, start=1)}
    if len(class_names) == 1:
        values["1"] = 1
    rows, problems = [], []
    first: dict[tuple[Path, int | None], int] = {}
    for line, row in lines:
        place = find(row["image"])
        problem = _find_problem(row, place, find.folder, values)
        if not problem:
            index = int(row["slice"]) if row.get("slice") else None
            earlier = first.setdefault((place, index), line)
            if earlier != line:
                problem = f"'{row['image']}'{_say_slice(index)} has a label in line {earlier}"
        if problem:
            problems.append(f"line {line}: {problem}")
            continue
        value = row["label"] if row["label"] in values else row["label"].lower()
        patient = row.get("patient") or row["image"]
        rows.append(LabelRow(line, place, index, values[value], patient, row.get("split", "")))
    if problems:
        raise_problems(f"{path} has {len(problems)} of {len(lines)} lines", problems)
    return rows


def _find_problem(row: dict[str, str], place: Path, folder: Path, values: Mapping[str, int]) -> str:
    """What is wrong with a line; empty if nothing is."""
    label, split = row["label"], row.get("split", SPLITS[0])
    if not row["image"]:
        return "image is empty"
    if not place.exists():
        return f"'{row['image']}' is not in {folder}"
    if row.get("slice") and not row["slice"].isdecimal():
        return f"slice must be a whole number from 0, got {row['slice']!r}"
    if label not in values and values.get(label.lower()) != 0:
        return f"label {label!r} is none of {', '.join(n for n, v in values.items() if v)}"
    if split not in SPLITS:
        return f"split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got {split!r}"
    return "" if row.get("patient", "-") else "patient is empty"


def _say_slice(index: int | None) -> str:
    return "" if index is None else f", slice {index},"


def _check_classes(
    path: str | Path, rows: Sequence[LabelRow], class_names: tuple[str, ...]
) -> None:
    found = {row.label for row in rows}
    missing = [name for k, name in enumerate(class_names, start=1) if k not in found]
    if missing:
        raise InputError(
            f"{path} must have images of every class, and none is of {', '.join(missing)}. "
            "Add some, or leave the class out of --classes."
        )
    if len(found) < 2:
        raise InputError(
            f"{path} must have images of two classes, or of one and some without a finding "
            f"({', '.join(NO_FINDING[1:])} or empty); all {len(rows)} are "
            f"'{class_names[0]}'. Nothing can be learnt from one class."
        )


def _check_splits(path: str | Path, rows: Sequence[LabelRow]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.patient].add(row.split)
    shared = [patient for patient, names in splits.items() if len(names) > 1]
    if shared:
        named = ", ".join(f"{p} ({' and '.join(sorted(splits[p]))})" for p in shared[:10])
        raise InputError(
            f"{path} must have each patient in one split; {len(shared)} in several: {named}. A "
            "network would be judged on patients that it has seen. Correct the column split."
        )


def _draw_splits(rows: Sequence[LabelRow], seed: int) -> list[LabelRow]:
    """Put about a fifth of the patients of each class into validation.

    A patient with several labels counts for the rarest of them.
    """
    commonness = Counter(row.label for row in rows)
    rarest: dict[str, int] = {}
    for row in rows:
        other = rarest.setdefault(row.patient, row.label)
        rarest[row.patient] = min(row.label, other, key=lambda label: (commonness[label], label))
    validation: set[str] = set()
    draw = random.Random(seed)
    for label in sorted(set(rarest.values())):
        patients = sorted(patient for patient, own in rarest.items() if own == label)
        draw.shuffle(patients)
        validation.update(patients[: max(1, round(VALIDATION_SHARE * len(patients)))])
    return [replace(r, split="val" if r.patient in validation else "train") for r in rows]


def _check_coverage(
    path: str | Path, rows: Sequence[LabelRow], class_names: tuple[str, ...]
) -> None:
    """Refuse a split in which a class cannot be learnt, or not be judged."""
    names: Iterable[str] = ("no finding", *class_names)
    for split in SPLITS[:2]:
        found = {row.label for row in rows if row.split == split}
        missing = [
            name
            for label, name in enumerate(names)
            if label not in found and any(row.label == label for row in rows)
        ]
        if missing:
            raise InputError(
                f"{path} must have images of every class in the split {split!r}; it has none of "
                f"{', '.join(missing)}. Give more patients, or correct the column split."
            )
