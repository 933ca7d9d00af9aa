"""What masks are scored on: volumes or pictures with a reference mask, labels and a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError, list_reasons
from heatmask.picture_scoring import PictureScorer
from heatmask.scoring import Scorer, find_references, load_reference

Volumes = Sequence[LabelledVolume | LabelledImage]


@dataclass(frozen=True)
class Subject:
    """One volume or picture.

    Attributes
    ----------
    name
        One that no other subject has.
    cluster
        What the bootstrap draws: the patient, or the group of a picture.
    image
        What the bundle's preprocessing takes.
    reference
        File of the human's mask.
    labels
        Of a volume: 0 or 1 of each slice along the file's third axis. Of a picture: its class,
        from 0, alone.
    """

    name: str
    cluster: str
    image: Any = field(hash=False)
    reference: Path
    labels: tuple[int, ...]

    @property
    def files(self) -> list[Path]:
        """The scans, then the reference."""
        scans = self.image.values() if not isinstance(self.image, str) else [self.image]
        return [*map(Path, scans), self.reference]

    def load_reference(self, scan: MetaTensor) -> NDArray[np.bool_]:
        """Return the mask (X, Y, Z) on the voxels of its scan, True inside."""
        return load_reference(self.reference, scan)


@dataclass(frozen=True)
class Subjects:
    """All subjects of a split.

    Attributes
    ----------
    split
        Its name.
    subjects
        Those with a reference mask, in the order of the data list.
    left_out
        Why the others are not scored, by name: counted and named in the report.
    classes
        What a picture may show; empty for volumes.
    training_labels
        Slice labels of the training volumes, for the position-only baselines.
    """

    split: str
    subjects: tuple[Subject, ...]
    left_out: Mapping[str, str] = field(hash=False)
    classes: tuple[str, ...] = ()
    training_labels: tuple[tuple[int, ...], ...] = ()

    @property
    def n_asked(self) -> int:
        """How many the split has, with those left out."""
        return len(self.subjects) + len(self.left_out)

    @property
    def pictures(self) -> bool:
        """Whether these are single 2D pictures: scored in pixels, by class."""
        return bool(self.classes)

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of each subject."""
        return [subject.cluster for subject in self.subjects]


def list_subjects(
    scorer: Scorer | PictureScorer, split: str, unusable: Mapping[str, str]
) -> Subjects:
    """Return what a bundle's evaluation is about.

    Parameters
    ----------
    unusable
        Why a subject is to be left out, by name; so are those without a reference mask.

    Raises
    ------
    InputError
        None is left.
    """
    found = _list_pictures(scorer) if isinstance(scorer, PictureScorer) else _list_volumes(scorer)
    problems = {one.name: _find_problem(one) for one in found} | dict(unusable)
    subjects = tuple(one for one in found if not problems[one.name])
    left_out = {one.name: problems[one.name] for one in found if problems[one.name]}
    if not subjects:
        raise InputError(
            f"Some of the split {split!r} must have a reference mask that can be used; none of "
            f"{len(found)} has. Check the split, and reference_pattern or the column mask."
            f"{list_reasons(left_out)}"
        )
    if isinstance(scorer, PictureScorer):
        return Subjects(split, subjects, left_out, tuple(scorer.table.class_names))
    training = tuple(volume.slice_labels for volume in scorer.training_volumes)
    return Subjects(split, subjects, left_out, training_labels=training)


def list_volumes(scorer: Scorer | PictureScorer) -> Volumes:
    """Return what has labels, whether or not there is a mask."""
    if isinstance(scorer, PictureScorer):
        return tuple(scorer.table.select(scorer.split))
    return tuple(scorer.volumes)


def _list_volumes(scorer: Scorer) -> list[Subject]:
    subjects = []
    for volume in scorer.volumes:
        masks = find_references(volume, scorer.reference_pattern)
        reference = masks[0] if len(masks) == 1 else Path()
        subjects.append(
            Subject(volume.patient, volume.patient, volume.image, reference, volume.slice_labels)
        )
    return subjects


def _list_pictures(scorer: PictureScorer) -> list[Subject]:
    subjects = []
    for image in scorer.table.select(scorer.split):
        (label,) = image.list_labels(1)
        reference = scorer.references.get(image.path, Path())
        name = f"{image.path.parent.name}/{image.path.name}"
        classes = (label - 1,) if label else ()
        subjects.append(Subject(name, image.patient, image.image, reference, classes))
    return subjects


def _find_problem(subject: Subject) -> str:
    """Say why a subject cannot be scored, as far as its place tells; empty if it can."""
    if subject.reference == Path():
        return "It has no reference mask, or several."
    if not subject.labels:
        return "It shows none of the classes."
    return ""


def keep_usable(volumes: Volumes, subjects: Subjects) -> Volumes:
    """Return the volumes of a split that are among its subjects."""
    images = [subject.image for subject in subjects.subjects]
    return tuple(volume for volume in volumes if volume.image in images)


def name_split(split: str) -> str:
    """Return what a split's subjects are called in sentences."""
    return {"val": "validation patients", "test": "test patients"}.get(split, f"split {split}")
