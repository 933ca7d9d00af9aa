"""The lines of a table of image-level labels: which image, which slice, which class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heatmask.data.tables.csv_table import Table, raise_problems, read_table
from heatmask.data.tables.image_finder import ImageFinder
from heatmask.errors import InputError, OptionError

NO_FINDING = ("", "none", "healthy", "normal", "0")
"""What the label column holds, in any case, where an image shows none of the classes."""
SPLITS = ("train", "val", "test")
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


def read_lines(path: str | Path, patient_column: str) -> Table:
    """Read the table; the column of the patient is ``patient``, whatever the file calls it."""
    table = read_table(path, ["image", "label", *[patient_column] * (patient_column != "patient")])
    if not table.lines:
        raise InputError(f"{path} has a header and no line below it. Write one for each image.")
    lines = tuple((line, _write_plainly(row, patient_column)) for line, row in table.lines)
    return replace(table, columns=tuple(lines[0][1]), lines=lines)


def _write_plainly(row: dict[str, str], patient_column: str) -> dict[str, str]:
    """A row with 1 for the 1.0 that pandas and spreadsheets make of it, and ``patient``."""
    plain = dict(row)
    for name in {"label", "slice"} & row.keys():
        plain[name] = _WHOLE.sub(r"\1", row[name])
    if patient_column in row:
        plain["patient"] = row[patient_column]
    return plain


def choose_classes(
    path: str | Path, lines: Sequence[tuple[int, dict[str, str]]], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the classes that were given, or those of the table, sorted; refuse bad names."""
    found = sorted({row["label"] for _, row in lines if row["label"].lower() not in NO_FINDING})
    if not found:
        raise InputError(
            f"All {len(lines)} labels of {path} say that there is no finding, and nothing can be "
            "learnt from one kind of image. Add images that show what is to be found."
        )
    names = tuple(found if classes is None else (name.strip() for name in classes))
    if names == ("1",):
        raise OptionError(
            f"The labels in {path} are 0 and 1, and the segment needs a name. Give it, for "
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


def parse_lines(
    path: str | Path,
    find: ImageFinder,
    lines: Sequence[tuple[int, dict[str, str]]],
    class_names: tuple[str, ...],
) -> list[LabelRow]:
    """Return a row for each line, or refuse those that cannot be used, all of them named."""
    values = dict.fromkeys(NO_FINDING, 0) | {n: k for k, n in enumerate(class_names, start=1)}
    if len(class_names) == 1:
        values["1"] = 1
    rows, problems = [], []
    first: dict[tuple[Path, int | None], int] = {}
    named: dict[Path, tuple[str, bool]] = {}  # by the name that comes first, with slices or not
    for line, row in lines:
        place = find(row["image"])
        problem = _find_problem(row, place, find.folder, values)
        if not problem:
            index = int(row["slice"]) if row.get("slice") else None
            name, sliced = named.setdefault(place, (row["image"], index is not None))
            earlier = first.setdefault((place, index), line)
            if earlier != line:
                problem = f"'{row['image']}'{_say_slice(index)} has a label in line {earlier}"
            elif sliced != (index is not None):
                problem = f"'{row['image']}' has lines with a slice and without; write it in all"
        if problem:
            problems.append(f"line {line}: {problem}")
            continue
        value = row["label"] if row["label"] in values else row["label"].lower()
        patient = row.get("patient") or name
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


def check_classes(path: str | Path, rows: Sequence[LabelRow], class_names: tuple[str, ...]) -> None:
    """Refuse a table without images of a class, or with images of one label alone."""
    found = {row.label for row in rows}
    missing = [name for k, name in enumerate(class_names, start=1) if k not in found]
    if missing:
        raise InputError(
            f"{path} has no images of {', '.join(missing)}. Add some, or leave the class out of "
            "--classes."
        )
    if len(found) < 2:
        raise InputError(
            f"All {len(rows)} images of {path} are '{class_names[0]}', and nothing can be learnt "
            "from one class. Add images of another, or without a finding "
            f"({', '.join(NO_FINDING[1:])} or empty)."
        )
