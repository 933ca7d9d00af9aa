"""What masks are scored on: volumes or pictures with a reference mask, labels and a cluster."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from heatmask.data.label_table import LabelledImage, LabelTable, read_label_table
from heatmask.data.labels import LabelledVolume, list_labelled_volumes
from heatmask.data.paths import is_picture
from heatmask.data.readers.reference import read_reference
from heatmask.data.tables.csv_table import read_table
from heatmask.data.tables.image_finder import ImageFinder
from heatmask.data.tables.label_rows import NO_FINDING
from heatmask.errors import InputError, OptionError, list_reasons
from heatmask.experiments.overlap import check_same_shape
from heatmask.geometry import find_array_axis, find_ras_slice_axis, match_voxels

Volumes = Sequence[LabelledVolume | LabelledImage]
GROUP = "group"
"""Column of labels.csv that stands for patients where these are only guessed."""


@dataclass(frozen=True)
class Place:
    """Where the data are, and where results are kept.

    Attributes
    ----------
    data
        Folder with patients.csv, slice_labels.csv and a folder a patient; or, of 2D pictures, with
        labels.csv (image, mask, label, split).
    cache
        Folder of the store; empty for none.
    split, given
        The split that is reported on, and the one whose masks rule (b) may use.
    pattern
        File names of the scans, as `heatmask.data.cases.find_studies` takes it.
    device
        As the bundles' configs take it.
    reference_pattern
        File name of the reference mask beside a volume.
    slice_labels, patients, labels
        The tables, below `data` or elsewhere.
    unusable
        Cases to leave out, each with its split and the reason: see `heatmask.experiments.usable`.
    """

    data: str
    cache: str = ""
    split: str = "test"
    given: str = "val"
    pattern: str | None = None
    device: str = "auto"
    reference_pattern: str = "*-seg.nii.gz"
    slice_labels: str = "slice_labels.csv"
    patients: str = "patients.csv"
    labels: str = "labels.csv"
    unusable: tuple[tuple[str, str, str], ...] = ()

    @property
    def pictures(self) -> bool:
        """Whether the data are 2D pictures."""
        return (Path(self.data) / self.labels).is_file()

    def list_unusable(self, split: str) -> dict[str, str]:
        """Return the cases of a split to leave out, each with the reason."""
        return {name: why for own, name, why in self.unusable if own == split}

    def check_splits(self) -> None:
        """Refuse masks that would judge themselves, with an `OptionError`."""
        if self.split == self.given:
            raise OptionError(
                "The split reported on and the one whose masks rule (b) may use must differ, or "
                f"the masks would judge themselves; both are {self.split!r}. Change --split or "
                "--given."
            )


@dataclass(frozen=True)
class Case:
    """One volume or picture.

    Attributes
    ----------
    name
        One that no other case has.
    cluster
        What the bootstrap draws: the patient, or the group of a picture.
    image
        What the bundle's preprocessing takes.
    reference
        File of the human's mask; None for a picture that shows nothing.
    labels
        Of a volume: 0 or 1 of each slice. Of a picture alone: 0 or 1 where there is one class, else
        its class, from 0.
    """

    name: str
    cluster: str
    image: Any = field(hash=False)
    reference: Path | None
    labels: tuple[int, ...]

    @property
    def scans(self) -> list[Path]:
        """What the network sees."""
        scans = self.image.values() if not isinstance(self.image, str) else [self.image]
        return [*map(Path, scans)]

    @property
    def files(self) -> list[Path]:
        """The scans, then the reference if there is one."""
        return [*self.scans, *([self.reference] if self.reference else [])]

    def load_reference(self, scan: MetaTensor) -> NDArray[np.bool_]:
        """Return the mask (X, Y, Z) on the voxels of its scan (1, X, Y, Z), True inside.

        All False for a picture that shows nothing.

        Raises
        ------
        InputError
            It is no mask (see `heatmask.data.readers.reference`) or not one of this scan,
            or the slices of the scan are not those that have labels.
        """
        count = scan.shape[1 + find_slices(scan)]
        if count != len(self.labels):
            raise InputError(
                f"Each slice must have one label; the scan has {count} slices and "
                f"{len(self.labels)} labels. Correct its lines in slice_labels.csv."
            )
        if self.reference is None:
            return np.zeros(scan.shape[1:], bool)
        mask, affine = read_reference(self.reference)
        if not is_picture(self.reference):
            return match_voxels(mask, affine, scan.shape[1:], np.asarray(scan.affine))
        check_same_shape(np.asarray(scan[0]), mask)
        return mask


def find_slices(scan: MetaTensor) -> int:
    """Return the array axis of a scan's axial slices, or the only one of a single slice."""
    affine = np.asarray(scan.affine)
    return find_array_axis(affine, find_ras_slice_axis(scan.shape[1:], affine, 2))


@dataclass(frozen=True)
class Cases:
    """All cases of a split.

    Attributes
    ----------
    split
        Its name.
    cases
        Those that are scored, in the order of the tables.
    left_out
        Why the others are not, by name: counted and named in the report.
    classes
        What a picture may show; empty for volumes.
    training_labels
        Slice labels of the training volumes, for the baselines that know the position alone.
    """

    split: str
    cases: tuple[Case, ...]
    left_out: Mapping[str, str] = field(hash=False)
    classes: tuple[str, ...] = ()
    training_labels: tuple[tuple[int, ...], ...] = ()

    @property
    def n_asked(self) -> int:
        """How many the split has, with those left out."""
        return len(self.cases) + len(self.left_out)

    @property
    def pictures(self) -> bool:
        """Whether these are single 2D pictures, scored in pixels."""
        return bool(self.classes)

    @property
    def by_class(self) -> bool:
        """Whether these are pictures of several classes, each of which shows one."""
        return len(self.classes) > 1

    @cached_property
    def findings(self) -> NDArray[np.bool_]:
        """Which cases show something."""
        return np.array([not self.shows_nothing(case) for case in self.cases])

    @property
    def unit(self) -> str:
        """What a case is, in one word."""
        return "picture" if self.pictures else "volume"

    @property
    def image(self) -> str:
        """What has a label, in one word."""
        return "picture" if self.pictures else "slice"

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of each case."""
        return [case.cluster for case in self.cases]

    def shows_nothing(self, case: Case) -> bool:
        """Whether there is nothing to be found: in some pictures, where there is one class."""
        return len(self.classes) == 1 and case.labels == (0,)

    def keep_findings(self) -> "Cases":
        """Return the cases that show something; the others are not left out, but no part of it."""
        return replace(self, cases=tuple(compress(self.cases, self.findings)))

    def leave_out(self, reasons: Mapping[str, str]) -> "Cases":
        """Return the cases without those that cannot be scored.

        Raises
        ------
        InputError
            None is left.
        """
        problems = {c.name: reasons[c.name] for c in self.cases if reasons.get(c.name)}
        kept = tuple(case for case in self.cases if case.name not in problems)
        left_out = {**self.left_out, **problems}
        if not kept:
            raise InputError(
                f"Some cases of the split {self.split!r} must have a reference mask that can be "
                f"used; none of {self.n_asked} has. Check the split, --set reference_pattern or "
                f"the column mask.{list_reasons(left_out)}"
            )
        return replace(self, cases=kept, left_out=left_out)


def list_volumes(
    place: Place, sequences: Sequence[str], split: str, pattern: str | None
) -> list[LabelledVolume]:
    """Return the volumes of a split whose slices have labels, with or without a mask."""
    data = Path(place.data)
    labels, patients = data / place.slice_labels, data / place.patients
    return list_labelled_volumes(data, pattern, labels, patients, split, sequences)


def list_cases(
    place: Place, sequences: Sequence[str], words: Mapping[str, str], split: str
) -> Cases:
    """Return the cases of a split, without those that lack a reference mask.

    A picture that shows nothing needs none, if the bundle has one class. With several it is left
    out: such a bundle says which of them a picture shows.

    Parameters
    ----------
    sequences
        What the bundle takes.
    words
        What the table of pictures calls the bundle's classes, in their order: see
        `heatmask.experiments.entries.list_label_words`.

    Raises
    ------
    InputError
        A table is not what it must be, or no case is left.
    """
    if place.pictures:
        return _list_pictures(place, read_pictures(place, words), split)
    found, problems = [], {}
    for volume in list_volumes(place, sequences, split, place.pattern):
        masks = sorted(volume.path.parent.glob(place.reference_pattern))
        if len(masks) != 1:
            problems[volume.patient] = (
                f"It must have one reference mask {place.reference_pattern} beside the scan; "
                f"there are {len(masks)}."
            )
        reference = masks[0] if len(masks) == 1 else Path()
        found.append(
            Case(volume.patient, volume.patient, volume.image, reference, volume.slice_labels)
        )
    training = tuple(v.slice_labels for v in list_volumes(place, sequences, "train", None))
    cases = Cases(split, tuple(found), {}, training_labels=training)
    return cases.leave_out({**problems, **place.list_unusable(split)})


def read_pictures(place: Place, words: Mapping[str, str]) -> LabelTable:
    """Return the table of pictures; see `list_cases`."""
    path, patients = Path(place.data) / place.labels, find_patient_column(place)
    names = tuple(dict.fromkeys(words.values()))
    if len(names) > 1:
        return read_label_table(path, place.data, list(words), patient_column=patients)
    found = list_labels(place)
    used = [word for word in words if word in found] or names
    table = read_label_table(path, place.data, used, patient_column=patients)
    return table.join_classes(*names)


def list_labels(place: Place) -> set[str]:
    """Return the labels of a table of pictures, without those that say that nothing is shown."""
    lines = read_table(Path(place.data) / place.labels, ("image", "label")).lines
    return {row["label"] for _, row in lines if row["label"].lower() not in NO_FINDING}


def read_references(place: Place) -> dict[Path, Path]:
    """Return the reference mask of each picture; where the column mask is empty there is none."""
    table = read_table(Path(place.data) / place.labels, ("image", "mask"))
    find = ImageFinder(place.data)
    return {find(row["image"]): find(row["mask"]) for _, row in table.lines if row["mask"]}


def find_patient_column(place: Place) -> str:
    """Return which column of the table of pictures tells patients apart."""
    columns = read_table(Path(place.data) / place.labels, ("image",)).columns
    return GROUP if GROUP in columns else "patient"


def _list_pictures(place: Place, table: LabelTable, split: str) -> Cases:
    references = read_references(place)
    images = table.select(split)
    root = os.path.commonpath([image.path.parent for image in images]) if images else ""
    found, problems, several = [], {}, len(table.class_names) > 1
    for image in images:
        name, (label,) = image.path.relative_to(root).as_posix(), image.list_labels(1)
        if not label and several:
            problems[name] = f"It must show one of {', '.join(table.class_names)}; it shows none."
        reference = references.get(image.path)
        if label and not reference:
            problems[name] = "It has no reference mask in the table."
        if not label and not several and reference and read_reference(reference)[0].any():
            problems[name] = (
                "By its label it shows nothing, and its reference mask marks something."
            )
        labels = ((label or 0) - several,)
        found.append(Case(name, image.patient, image.image, reference, labels))
    cases = Cases(split, tuple(found), {}, table.class_names)
    return cases.leave_out({**problems, **place.list_unusable(split)})


def keep_usable(volumes: Volumes, cases: Cases) -> Volumes:
    """Return the volumes of a split that are among its cases."""
    images = [case.image for case in cases.cases]
    return tuple(volume for volume in volumes if volume.image in images)


def name_split(split: str) -> str:
    """Return what a split's cases are called in sentences."""
    return {"val": "validation patients", "test": "test patients"}.get(split, f"split {split}")
