"""Training and validation split by patient."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from heatmask.data.tables.label_rows import SPLITS, LabelRow
from heatmask.errors import InputError

VALIDATION_SHARE = 0.2


def check_splits(path: str | Path, rows: Sequence[LabelRow]) -> None:
    """Refuse a table with a patient in two splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.patient].add(row.split)
    shared = [patient for patient, names in splits.items() if len(names) > 1]
    if shared:
        named = ", ".join(f"{p} ({' and '.join(sorted(splits[p]))})" for p in shared[:10])
        raise InputError(
            f"Patients of {path} are in more than one split: {named}. The network would be judged "
            "on patients that it has seen. Correct the column split."
        )


def draw_splits(rows: Sequence[LabelRow], seed: int) -> list[LabelRow]:
    """Put about a fifth of the patients of each class, and at least one, into validation.

    A patient with several labels counts for the rarest of them. Not by scikit-learn's
    `StratifiedGroupKFold`: with two patients of a class among 22 it left the class out of
    validation for two seeds of three.
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


def check_coverage(
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
                f"The split {split!r} of {path} has no images for: {', '.join(missing)}. Give "
                "more patients, or correct the column split."
            )
