"""What a work folder holds, read from its files alone, also beside a server at work on it."""

import csv
from dataclasses import dataclass
from pathlib import Path

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store.durable import copy_synced, open_draft, publish
from heatmask.serving.store.labels import FINAL, LabelVersions, Version
from heatmask.serving.store.links import list_studies
from heatmask.serving.store.lock import STORE

COLUMNS = "image name file version versions time person model conflict sha256".split()


@dataclass(frozen=True)
class StoredLabels:
    """The labels of one folder of studies.

    Attributes
    ----------
    flat : the flat folder of links to the studies
    labels : all versions
    """

    flat: Path
    labels: LabelVersions

    def find_scan(self, image: str) -> Path | None:
        """Return the place of an image's scan, None if it is no study or not here."""
        return list_studies(self.flat).get(image)

    def list_current(self, image: str) -> dict[str, Version]:
        """Return the current label under each tag of the scan that is there now."""
        return self.labels.list_current(image, self.find_scan(image))


def find_stores(workdir: Path) -> list[StoredLabels]:
    """Return the labels of every folder of studies that was served from a work folder.

    Parameters
    ----------
    workdir
        The ``--workdir`` of a server, or one of the folders in it.

    Raises
    ------
    InputError
        No server has worked there.
    """
    flats = [
        path.parent for path in (workdir / STORE, *workdir.glob(f"*/{STORE}")) if path.is_dir()
    ]
    if not flats:
        raise InputError(
            f"WORKDIR must be the work folder of a server, and none has worked in '{workdir}'. "
            "Without --workdir it is work/serve, below the folder where the server was started. "
            "Labels of earlier versions are taken over when the server starts."
        )
    return [StoredLabels(flat, LabelVersions(flat / STORE / "labels")) for flat in sorted(flats)]


def find_store(stores: list[StoredLabels], image: str) -> StoredLabels:
    """Return the one store that has labels of an image.

    Raises
    ------
    NotFoundError
        None has.
    InputError
        Several have.
    """
    having = [store for store in stores if image in store.labels.list_images()]
    if not having:
        raise NotFoundError(f"No label of '{image}' was ever stored here. See `heatmask labels`.")
    if len(having) > 1:
        raise InputError(
            f"Several folders have labels of '{image}'. Give one of them as WORKDIR: "
            f"{', '.join(str(store.flat) for store in having)}"
        )
    return having[0]


def export_labels(stores: list[StoredLabels], folder: Path) -> int:
    """Copy the current final labels into a new folder, with the table ``labels.csv``.

    Returns
    -------
    int
        How many there were.

    Raises
    ------
    InputError
        The folder exists, or a label is not what was stored: damaged, or changed by hand.
    OutputError
        The folder cannot be written.
    """
    if folder.exists():
        raise InputError(f"The folder to export to must be new, '{folder}' exists. Give another.")
    rows = []
    with open_draft(folder.absolute().parent) as draft:
        for store in stores:
            for image in store.labels.list_images():
                current = store.list_current(image).get(FINAL)
                if current is not None:
                    rows.append(_export(store, current, draft))
        with (draft / "labels.csv").open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        publish(draft, folder.absolute())
    return len(rows)


def _export(store: StoredLabels, version: Version, folder: Path) -> dict[str, str | int]:
    """Copy one label; return its line of the table."""
    name = f"{version.image}{''.join(version.path.suffixes)}"
    if (folder / name).exists():  # of other studies
        name = f"{store.flat.name}-{name}"
    if copy_synced(version.path, folder / name) != version.sha256:
        raise InputError(
            f"'{version.path}' is not what was stored: damaged, or changed by hand. Restore "
            "another version, or take it from a backup."
        )
    row: dict[str, str | int] = {
        "image": version.image,
        "name": version.image_name,
        "file": name,
        "version": version.number,
        "versions": len(store.labels.list_versions(version.image, FINAL)),
        "time": version.time,
        "person": version.person,
        "model": version.model,
        "conflict": version.conflict or "",
        "sha256": version.sha256,
    }
    return {column: _defuse(value) for column, value in row.items()}


def _defuse(value: str | int) -> str | int:
    """A client's text that a spreadsheet would run as a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
