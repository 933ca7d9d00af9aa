"""Versions of labels: each a folder that is never changed once it is there."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from heatmask.errors import InputError
from heatmask.serving.store.durable import measure_sha256, publish, read_json, write_json
from heatmask.serving.store.identity import is_same

logger = logging.getLogger(__name__)

FINAL, ORIGINAL = "final", "original"
"""What a person submitted, and what a model made of a scan before anybody looked at it."""
ABOUT = "about.json"


@dataclass(frozen=True)
class Version:
    """One label of an image.

    Attributes
    ----------
    image, tag, number : id of the image, `FINAL` or `ORIGINAL`, 1 for the first
    path : the file; of a removal the folder, in which there is none
    time : UTC, ISO 8601
    person : who submitted it; empty for a model's
    model : name of the model that it was made by, or corrected from
    sha256 : of the file
    conflict : whose version the person had not seen when submitting, None if there is none
    restored_from : number of the version that this one brought back
    removed : True where the label was taken away; an earlier version can be restored
    client : who submitted, "<user>/<client_id>"
    image_name : what the client called an image that it sent
    info : what the client or the model said of it, as ``label_info``
    scan : which scan it is of, see `heatmask.serving.store.identity`; empty where that is not known
    """

    image: str
    tag: str
    number: int
    path: Path
    time: str
    person: str = ""
    model: str = ""
    sha256: str = ""
    conflict: str | None = None
    restored_from: int | None = None
    removed: bool = False
    client: str = ""
    image_name: str = ""
    info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    scan: Mapping[str, Any] = field(default_factory=dict, hash=False)


_SAID = {
    "time": str, "person": str, "model": str, "sha256": str, "conflict": str,
    "restored_from": int, "removed": bool, "client": str, "image_name": str, "info": dict,
    "scan": dict,
}  # fmt: skip
"""What stands in about.json; the rest of a `Version` is its place."""


class LabelVersions:
    """All labels of a store, as its folders hold them.

    Parameters
    ----------
    folder
        ``labels`` of a store; it need not exist.

    Notes
    -----
    Any thread may read at any time; whoever adds holds the store's lock for writing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # By image and tag; what readers may be looking at is replaced, never changed.
        self._versions: dict[str, dict[str, tuple[Version, ...]]] = {}
        for (image, tag), versions in groupby(_read_versions(folder), lambda v: (v.image, v.tag)):
            self._versions.setdefault(image, {})[tag] = tuple(versions)

    def list_images(self) -> list[str]:
        """Return the ids of all images that ever had a label."""
        return sorted(self._versions)

    def list_versions(self, image: str, tag: str | None = None) -> list[Version]:
        """Return the versions of an image, by tag and number."""
        tags = self._versions.get(image, {})
        return [version for t in sorted(tags) if tag in (t, None) for version in tags[t]]

    def list_current(self, image: str, scan: Path | None = None) -> dict[str, Version]:
        """Return the newest version under each tag, without those that were removed.

        Parameters
        ----------
        image
            Its id.
        scan
            The scan that is there now: versions of another one do not count. If it cannot be
            read, all of them do.
        """
        tags = self._versions.get(image, {}).values()
        newest = (next((v for v in versions[::-1] if is_of(v, scan)), None) for versions in tags)
        return {version.tag: version for version in newest if version and not version.removed}

    def add(self, draft: Path, version: Version) -> Version:
        """Give a draft folder, in which the file lies, its place; return the version as it is then.

        Of `version` the number and the path count for nothing.
        """
        place = self._folder / version.image / version.tag
        number = 1 + max(_list_numbers(place), default=0)
        write_json(draft / ABOUT, {name: getattr(version, name) for name in _SAID})
        publish(draft, place / str(number))
        path = (
            place / str(number) / version.path.name if not version.removed else place / str(number)
        )
        placed = replace(version, number=number, path=path)
        tags = self._versions.get(version.image, {})
        earlier = tags.get(version.tag, ())
        self._versions[version.image] = {**tags, version.tag: (*earlier, placed)}
        return placed


def is_of(version: Version, scan: Path | None) -> bool:
    """Whether a label is of this scan, as far as is known."""
    if not version.scan or scan is None:
        return True
    try:
        return is_same(scan, version.scan)
    except (
        OSError,
        InputError,
    ):  # gone, not fetched yet or damaged: nothing says that it is another
        return True


def _read_versions(folder: Path) -> Iterator[Version]:
    """Read every version below a folder, by image, tag and number."""
    for tag in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        for number in sorted(_list_numbers(tag)):
            version = _read_version(tag / str(number))
            if version is not None:
                yield version


def _list_numbers(folder: Path) -> list[int]:
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def _read_version(folder: Path) -> Version | None:
    """Read one version; where what was said of it is lost, the label still counts."""
    about, file = read_json(folder / ABOUT, _SAID), next(folder.glob("mask.*"), None)
    if file is None and not about.get("removed"):
        logger.error("Not a version, it holds no label: %s", folder)
        return None
    if file is not None and not about.keys() >= {"time", "sha256"}:
        logger.error("Who made this version, and when, is not known any more: %s", folder)
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        about["time"] = made.isoformat(timespec="milliseconds")
        about["sha256"] = measure_sha256(file)
    return Version(
        image=folder.parent.parent.name,
        tag=folder.parent.name,
        number=int(folder.name),
        path=file or folder,
        **{"time": "", **about},
    )
