"""What a work folder holds to learn from: scans, image-level labels, corrected masks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from heatmask.data.labels import read_slice_labels
from heatmask.errors import InputError
from heatmask.learning.scans import CorrectedMask, LearnScan
from heatmask.learning.versions import FOLDER
from heatmask.serving.store.checks import read_label_names
from heatmask.serving.store.export import StoredLabels, find_stores
from heatmask.serving.store.labels import FINAL, Version
from heatmask.serving.store.links import list_studies
from heatmask.serving.store.lock import STORE
from heatmask.serving.task import list_scans

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")


def find_learned(flat: Path) -> Path:
    """Return the folder of what is learnt from the labels of a flat folder of studies."""
    return flat / STORE / FOLDER


def find_corrected_store(workdir: Path) -> StoredLabels:
    """Return the one folder of studies in a work folder that has submitted labels.

    Raises
    ------
    InputError
        None has, or several have.
    """
    stores = find_stores(workdir)
    having = [store for store in stores if list_current(store)]
    if len(having) == 1:
        return having[0]
    if having:
        folders = ", ".join(str(store.flat) for store in having)
        raise InputError(f"Several folders have submitted labels. Give one as WORKDIR: {folders}")
    raise InputError(
        "Nobody has submitted a label yet. Correct a mask in the viewer and press Submit Label."
    )


def list_current(store: StoredLabels) -> dict[str, Version]:
    """Return the newest submitted label of each image that has one, of the scan there is now."""
    studies, images = list_studies(store.flat), store.labels.list_images()
    current = {image: store.labels.list_current(image, studies.get(image)) for image in images}
    return {image: tags[FINAL] for image, tags in current.items() if FINAL in tags}


def list_learn_scans(store: StoredLabels, labels: Path | None = None) -> list[LearnScan]:
    """Return the studies of a flat folder with their labels, those with a corrected mask first.

    A patient's images are those whose names begin with the name that the table has for the
    patient, or with the same BIDS subject; else each image is a patient of its own.

    Parameters
    ----------
    labels
        A table of image-level labels: patient, slice (from 0, along the file's third axis), tumour
        (0 or 1). None where there is none.

    Raises
    ------
    InputError
        The table is not what it must be, or a study with a corrected mask is gone.
    """
    table = read_slice_labels(labels) if labels is not None else {}
    studies, current = list_studies(store.flat), list_current(store)
    gone = [name for name in current if name in studies and not studies[name].exists()]
    if gone:
        raise InputError(
            f"The scans of corrected masks must be there, and these are gone: {', '.join(gone)}."
        )
    there = [name for name, path in studies.items() if path.exists()]
    names = sorted(there, key=lambda name: (name not in current, name))
    return [_describe(name, studies[name], current.get(name), table) for name in names]


def _describe(
    name: str, path: Path, version: Version | None, table: Mapping[str, Sequence[int]]
) -> LearnScan:
    image, _, sequence = list_scans(path)
    patient = find_patient(name, table)
    correction = None
    if version is not None:
        names = read_label_names(version.info)
        correction = CorrectedMask(version.path, names, version.sha256, version.number)
    return LearnScan(name, patient, image, sequence, table.get(patient), correction)


def find_patient(name: str, patients: Iterable[str]) -> str:
    """Return whose image it is by its name."""
    longest = sorted(patients, key=len, reverse=True)
    for patient in longest:
        if name == patient or name.startswith(tuple(patient + sign for sign in "-_.")):
            return patient
    subject = _SUBJECT.match(name)
    return subject[0] if subject else name
