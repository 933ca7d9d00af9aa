"""Images that clients sent: each a folder under an id of ours."""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from heatmask.errors import OutputError
from heatmask.serving.store.durable import open_draft, publish, read_json, write_json
from heatmask.serving.store.labels import ABOUT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SentImage:
    """An image that a client sent.

    Attributes
    ----------
    id, path : ours
    name : the client's, any text
    client : "<user>/<client_id>"
    shared : whether everybody sees it, and it outlasts the client's session
    named : whether `name`, said by this client, still means this image
    sent : time of its arrival, in s since 1970
    """

    id: str
    path: Path
    name: str
    client: str
    shared: bool
    sent: float
    named: bool = True


_LONGEST = 100
_SAID = {"name": str, "client": str, "shared": bool, "named": bool, "sent": float}
"""What stands in about.json."""


class SentImages:
    """All images that clients sent, as their folders hold them.

    Parameters
    ----------
    folder, drafts
        ``sent`` and ``drafts`` of a store; they need not exist.

    Notes
    -----
    Any thread may read at any time; whoever changes anything holds the store's lock for writing.
    """

    def __init__(self, folder: Path, drafts: Path) -> None:
        self._folder, self._drafts = folder, drafts
        for half in folder.glob(".*"):  # A server was killed while it deleted
            shutil.rmtree(half, ignore_errors=True)
        found = sorted(_read_images(folder), key=lambda image: image.sent)
        self._images = {image.id: image for image in found}
        self._used = {image.id: image.sent for image in found}

    def list_all(self) -> list[SentImage]:
        """Return all of them, in the order of their arrival."""
        return [*self._images.values()]

    def get(self, image_id: str) -> SentImage | None:
        """Return the image with this id, if there is one."""
        return self._images.get(image_id)

    def find(self, name: str, client: str) -> SentImage | None:
        """Return what this client means by a name: the newest that it sent under it."""
        theirs = [i for i in self.list_all() if i.client == client and i.name == name and i.named]
        return theirs[-1] if theirs else None

    def add(self, draft: Path, file: Path, image: SentImage) -> SentImage:
        """Give a draft folder, in which `file` lies, its place under a new id."""
        image_id = f"sent-{uuid4().hex[:16]}"
        path = self._folder / image_id / file.name
        # The newest is the newest, whatever the clock does.
        earliest = max((other.sent for other in self.list_all()), default=0.0) + 1e-3
        image = replace(image, id=image_id, path=path, sent=max(image.sent, earliest))
        _write(draft, image)
        publish(draft, image.path.parent)
        self._images[image_id] = image
        self._used[image_id] = image.sent
        return image

    def use(self, image_id: str, now: float) -> None:
        """Note that an image is in use at this time, in s since 1970."""
        self._used[image_id] = now

    def list_unused(self, since: float) -> list[SentImage]:
        """Return those that were neither sent nor used after this time, in s since 1970."""
        return [i for i in self.list_all() if self._used.get(i.id, since) < since]

    def release_name(self, name: str, client: str) -> None:
        """Let a name that this client gave to images mean none of them any more."""
        while image := self.find(name, client):
            image = replace(image, named=False)
            with open_draft(self._drafts) as draft:
                _write(draft, image)
                publish(draft / ABOUT, image.path.with_name(ABOUT))
            self._images[image.id] = image

    def remove(self, image_id: str) -> None:
        """Delete an image, also where the disk is full; half of it is never seen.

        Raises
        ------
        OutputError
            It cannot be deleted.
        """
        half = self._folder / f".{image_id}"
        try:
            self._images[image_id].path.parent.rename(half)
        except OSError as error:
            raise OutputError(f"'{image_id}' cannot be deleted: {error.strerror}.") from error
        del self._images[image_id]
        self._used.pop(image_id, None)
        shutil.rmtree(half, ignore_errors=True)


def name_file(name: str, suffix: str) -> str:
    """Return what an image's file is called here: its name says which sequence it is of."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return f"{words[-_LONGEST:] or 'scan'}{suffix}"


def _write(draft: Path, image: SentImage) -> None:
    write_json(draft / ABOUT, {name: getattr(image, name) for name in _SAID})


def _read_images(folder: Path) -> Iterator[SentImage]:
    for path in (path for path in folder.glob("*/*") if path.name != ABOUT):
        about = read_json(path.with_name(ABOUT), _SAID)
        known = {"name": "", "client": "", "shared": False, "sent": path.stat().st_mtime, **about}
        yield SentImage(path.parent.name, path, **known)
