"""What masks are scored on: volumes or pictures with a reference mask, labels and a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from heatmask.data.flat import is_picture, read_picture
from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError
from heatmask.evaluation.segmentation import check_same_grid
from heatmask.picture_scoring import PictureScorer
from heatmask.scoring import Scorer

Volumes = Sequence[LabelledVolume | LabelledImage]


class GridError(InputError):
    """A mask or the labels of the slices do not fit the scan."""


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

    def load_reference(self) -> NDArray[np.bool_]:
        """Return the mask (X, Y, Z), True inside."""
        if is_picture(self.reference):
            return read_picture(self.reference)[0] > 0
        return np.asarray(nib.load(self.reference).dataobj) > 0


@dataclass(frozen=True)
class Subjects:
    """All subjects of a split.

    Attributes
    ----------
    split
        Its name.
    subjects
        Those with a reference mask, in the order of the data list.
    missing
        Names of those without one: listed and counted in the report, and not scored.
    classes
        What a picture may show; empty for volumes.
    training_labels
        Slice labels of the training volumes, for the position-only baselines.
    """

    split: str
    subjects: tuple[Subject, ...]
    missing: tuple[str, ...]
    classes: tuple[str, ...] = ()
    training_labels: tuple[tuple[int, ...], ...] = ()

    @property
    def pictures(self) -> bool:
        """Whether these are single 2D pictures: scored in pixels, by class."""
        return bool(self.classes)

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of each subject."""
        return [subject.cluster for subject in self.subjects]


def list_subjects(scorer: Scorer | PictureScorer, split: str) -> Subjects:
    """Return what a bundle's evaluation is about.

    Raises
    ------
    GridError
        A mask lies on another grid than its scan, or there are not as many labels as slices: said
        before anything is computed.
    InputError
        No subject has a reference mask.
    """
    found = _list_pictures(scorer) if isinstance(scorer, PictureScorer) else _list_volumes(scorer)
    subjects = tuple(subject for subject in found if subject.reference != Path())
    missing = tuple(subject.name for subject in found if subject.reference == Path())
    if not subjects:
        raise InputError(
            f"Some of the split {split!r} must have a reference mask; none of {len(found)} has. "
            "Check the split, and reference_pattern or the column mask."
        )
    if isinstance(scorer, PictureScorer):
        return Subjects(split, subjects, missing, tuple(scorer.table.class_names))
    for subject in subjects:
        _check_grids(subject)
    training = tuple(volume.slice_labels for volume in scorer.training_volumes)
    return Subjects(split, subjects, missing, training_labels=training)


def list_volumes(scorer: Scorer | PictureScorer) -> Volumes:
    """Return what has labels, whether or not there is a mask."""
    if isinstance(scorer, PictureScorer):
        return tuple(scorer.table.select(scorer.split))
    return tuple(scorer.volumes)


def _list_volumes(scorer: Scorer) -> list[Subject]:
    subjects = []
    for volume in scorer.volumes:
        masks = sorted(volume.path.parent.glob(scorer.reference_pattern))
        if len(masks) > 1:
            raise InputError(
                f"A patient must have one reference mask {scorer.reference_pattern!r}; "
                f"{volume.patient} has {len(masks)} in {volume.path.parent}."
            )
        reference = masks[0] if masks else Path()
        subjects.append(
            Subject(volume.patient, volume.patient, volume.image, reference, volume.slice_labels)
        )
    return subjects


def _list_pictures(scorer: PictureScorer) -> list[Subject]:
    subjects = []
    for image in scorer.table.select(scorer.split):
        (label,) = image.list_labels(1)
        if not label:
            raise InputError(
                f"Each picture must show one of {', '.join(scorer.table.class_names)}; "
                f"'{image.path}' shows none. Take it out of the split {scorer.split!r}."
            )
        reference = scorer.references.get(image.path, Path())
        if not reference.is_file():
            reference = Path()
        name = f"{image.path.parent.name}/{image.path.name}"
        subjects.append(Subject(name, image.patient, image.image, reference, (label - 1,)))
    return subjects


def _check_grids(subject: Subject) -> None:
    """Refuse masks and labels that do not fit the scan; only the headers are read."""
    first, *_, mask = subject.files
    if not first.name.endswith((".nii", ".nii.gz")):
        return  # The affine of a series takes reading it; its mask is checked when it is scored
    scan, reference = nib.load(first), nib.load(mask)
    try:
        check_same_grid(reference.shape, reference.affine, scan.shape[:3], scan.affine)
    except InputError as error:
        raise GridError(f"{subject.name}: {error}") from error
    if len(subject.labels) != scan.shape[2]:
        raise GridError(
            f"{subject.name}: each slice along the file's third axis must have one label; "
            f"{first} has {scan.shape[2]} slices and {len(subject.labels)} labels. Mend its lines "
            "in slice_labels.csv."
        )


def name_split(split: str) -> str:
    """Return what a split's subjects are called in sentences."""
    return {"val": "validation patients", "test": "test patients"}.get(split, f"split {split}")
