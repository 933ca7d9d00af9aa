"""Take over what earlier versions kept in the flat folder of links, when a store is opened.

They used MONAI Label's own store: an index, ``datastore_v2.json``, which may be torn or missing;
``labels/<tag>/<id><ext>``; and the files of clients beside the links to studies. Every label
becomes a version, the clients' files become images for everybody. Labels and index are then moved
to ``taken_over``, from where an earlier version could go on. Stopped halfway, this goes on at the
next start.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heatmask.data.paths import split_scan_name
from heatmask.errors import InputError
from heatmask.serving.store.checks import check_label
from heatmask.serving.store.durable import (
    copy_synced,
    make_folders,
    measure_sha256,
    open_draft,
    read_json,
    sync_folder,
)
from heatmask.serving.store.labels import LabelVersions, Version
from heatmask.serving.store.links import SUFFIXES
from heatmask.serving.store.notes import Notes
from heatmask.serving.store.sent import SentImage, SentImages, name_file

logger = logging.getLogger(__name__)

INDEX, SESSIONS = "datastore_v2.json", "heatmask_sessions"
TAKEN_OVER = "taken_over"


@dataclass(frozen=True)
class Migration:
    """From the flat folder `flat` into the parts of a store.

    A label that cannot be read, or lies on other voxels than its image, stays where it is, and the
    log names it at every start.
    """

    flat: Path
    drafts: Path
    labels: LabelVersions
    sent: SentImages
    notes: Notes

    def run(self) -> None:
        """Take over whatever is left."""
        index = read_json(self.flat / INDEX).get("objects", {})
        for path in _list_scans(self.flat):
            self._take_image(path)
        # A label under another extension than the index says is an older one.
        labels = [path for path in _list_scans(self.flat, "labels/*/*") if not path.is_symlink()]
        labels.sort(key=lambda path: (_find_about(index, path) is not None, path.stat().st_mtime))
        for path in labels:
            try:
                self._take_label(path, _find_about(index, path) or {})
            except InputError as error:
                logger.warning("Not taken over, it stays where it is: %s: %s", path, error)
        for image in index if isinstance(index, dict) else ():
            self._take_notes(image, _dig(index, image, "image", "info"))
        if (self.flat / INDEX).is_file():
            self._put_aside(self.flat / INDEX)
        # Scans of sessions that ended with their server, which deleted them when it started.
        shutil.rmtree(self.flat.parent / SESSIONS, ignore_errors=True)

    def _take_image(self, path: Path) -> None:
        name, suffix = split_scan_name(path.name)
        before = self.sent.find(name, "")
        if before is None or measure_sha256(before.path) != measure_sha256(path):
            with open_draft(self.drafts) as draft:
                scan = draft / name_file(name, suffix.lower())
                copy_synced(path, scan)
                sent = path.stat().st_mtime
                image = SentImage("", scan, name, "", shared=True, sent=sent)
                self.sent.add(draft, scan, image)
        path.unlink()

    def _take_label(self, path: Path, about: dict[str, Any]) -> None:
        (name, suffix), tag = split_scan_name(path.name), path.parent.name
        scan = self._find_study(name)
        image = None if scan else self.sent.find(name, "")
        image_id, scan = (image.id, image.path) if image else (name, scan)
        with open_draft(self.drafts) as draft:
            mask = draft / f"mask{suffix.lower()}"
            digest = copy_synced(path, mask)
            if digest not in {v.sha256 for v in self.labels.list_versions(image_id, tag)}:
                check_label(mask, scan, {})
                made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                version = Version(
                    image_id, tag, 0, mask, made.isoformat(timespec="milliseconds"), sha256=digest,
                    person=str(about.get("user", "")), model=str(about.get("model", "")),
                    image_name=name if image else "", info=about,
                )  # fmt: skip
                self.labels.add(draft, version)
        logger.info("Taken over as a version of '%s': %s", image_id, path)
        self._put_aside(path)

    def _take_notes(self, name: str, said: dict[str, Any]) -> None:
        image = self.sent.find(name, "")
        image_id = name if self._find_study(name) else image.id if image else None
        if image_id and said and not self.notes.get(image_id):
            self.notes.update(image_id, said)

    def _find_study(self, name: str) -> Path | None:
        paths = (self.flat / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.is_symlink()), None)

    def _put_aside(self, path: Path) -> None:
        target = self.flat / TAKEN_OVER / path.relative_to(self.flat)
        make_folders(target.parent)
        os.replace(path, target)
        sync_folder(target.parent)


def _list_scans(folder: Path, pattern: str = "*") -> list[Path]:
    """Files that are no links and no drafts."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.name.lower().endswith(SUFFIXES)
        and path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
    ]


def _find_about(index: Any, label: Path) -> dict[str, Any] | None:
    """What an index says of a label, None where it does not know this file."""
    name, suffix = split_scan_name(label.name)
    entry = _dig(index, name, "labels", label.parent.name)
    return _dig(entry, "info") if entry.get("ext") == suffix else None


def _dig(content: Any, *keys: str) -> dict[str, Any]:
    """Return an object within objects of JSON, an empty one where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
