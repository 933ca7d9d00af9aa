"""Image-level labels of a user's own: a CSV of images and classes, split by patient."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from heatmask.data.tables.image_finder import ImageFinder
from heatmask.data.tables.label_rows import (
    LabelRow,
    check_classes,
    choose_classes,
    parse_lines,
    read_lines,
)
from heatmask.data.tables.splits import check_coverage, check_splits, draw_splits
from heatmask.errors import InputError


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
                f"'{self.path}' has {count} slices along its third axis, and the table does not "
                "say which is meant. Fill in the column slice, from 0."
            )
        beyond = [i for i in self.labels if i is not None and i >= count]
        if beyond:
            raise InputError(
                f"'{self.path}' has {count} slices along its third axis, and the table labels "
                f"slice {max(beyond)}. They count from 0."
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
    """

    class_names: tuple[str, ...]
    rows: tuple[LabelRow, ...]
    split_rule: str

    @cached_property
    def has_negatives(self) -> bool:
        """Whether some images show none of the classes; always so with one class."""
        return any(row.label == 0 for row in self.rows)

    def join_classes(self, name: str) -> "LabelTable":
        """Return the table with one class that stands for all of its own."""
        rows = tuple(replace(row, label=min(row.label, 1)) for row in self.rows)
        return replace(self, class_names=(name,), rows=rows)

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
        Which column holds the patient, or whatever else must not be in two splits.

    Raises
    ------
    InputError
        The file or a column is missing, lines cannot be used (all are named), only one class
        is there, a patient is in two splits, or a split lacks a class.
    OptionError
        `classes` are no usable names.
    """
    table = read_lines(labels, patient_column)
    class_names = choose_classes(labels, table.lines, classes)
    rows = parse_lines(labels, ImageFinder(images), table.lines, class_names)
    check_classes(labels, rows, class_names)
    if "split" in table.columns:
        rule = "by the table's column split"
        check_splits(labels, rows)
    else:
        rows = draw_splits(rows, split_seed)
        whole = "patient" if "patient" in table.columns else "image (the table names no patients)"
        rule = (
            f"one {whole} in one split, about 1 in 5 for validation, drawn from seed {split_seed}"
        )
    check_coverage(labels, rows, class_names)
    return LabelTable(class_names, tuple(rows), rule)
