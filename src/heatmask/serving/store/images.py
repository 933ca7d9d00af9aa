"""Images: studies, what clients sent, and who is at work on them."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store.checks import check_image, read_suffix
from heatmask.serving.store.durable import copy_synced, open_draft
from heatmask.serving.store.host import HostDatastore
from heatmask.serving.store.leases import Leases
from heatmask.serving.store.links import find_scan, list_studies, read_siblings
from heatmask.serving.store.lock import lock_folder
from heatmask.serving.store.notes import Notes
from heatmask.serving.store.sent import SentImage, SentImages, name_file
from heatmask.serving.store.volumes import Volumes


class Source(Protocol):
    """Where scans are that the links lead to, if not on this machine's disk."""

    def fetch(self, scan: Path) -> None:
        """Bring what a link leads to."""

    def describe(self, image_id: str) -> dict[str, str]:
        """Return what is known of a scan there."""


class ImageStore(HostDatastore):
    """The images of a `Store`, and their leases.

    Parameters
    ----------
    studies, folder, clock, source
        See `Store`.
    """

    def __init__(
        self,
        studies: Path,
        folder: Path,
        clock: Callable[[], float] = time.time,
        source: Source | None = None,
    ) -> None:
        self._studies_folder, self._folder, self._clock = studies, folder, clock
        self._source = source
        self._drafts = folder / "drafts"
        self._process_lock = lock_folder(folder)
        # Who writes may wait for the disk; who asks what is known never does.
        self._writing, self._lock = threading.RLock(), threading.RLock()
        self._leases = Leases(clock)
        shutil.rmtree(self._drafts, ignore_errors=True)
        self.refresh()

    def close(self) -> None:
        """Let another server work on the folder; the end of the process does so too."""
        self._process_lock.release()

    def refresh(self) -> None:
        """Read everything from the files again."""
        with self._writing:
            self._studies = list_studies(self._studies_folder)
            self._sent = SentImages(self._folder / "sent", self._drafts)
            self._notes = Notes(self._folder / "about", self._drafts)
            self._scores = Notes(self._folder / "scores", self._drafts)
            self._volumes = Volumes(self._folder / "volumes", self._drafts)

    def list_images(self) -> list[str]:
        """Return the ids of all studies and of what was sent for everybody."""
        return sorted([*self._studies, *(i.id for i in self._sent.list_all() if i.shared)])

    def find_image(self, image_id: str) -> Path:
        """Return the place of an image, also of one that was sent for one client only.

        What it leads to need not be there: see `open_image`.

        Raises
        ------
        NotFoundError
            There is no such image.
        """
        sent = self._sent.get(image_id)
        path = sent.path if sent else self._studies.get(image_id)
        if path is None:
            raise NotFoundError(describe_unknown(image_id, len(self.list_images())))
        return path

    def open_image(self, image_id: str) -> Path:
        """Return the place of an image, with all scans of its study brought here.

        Raises
        ------
        NotFoundError
            There is no such image, or no file any more: a pipe in its place would never end.
        HeatmaskError
            What the source of the scans says.
        """
        path = self.find_image(image_id)
        if self._source is not None and path.is_symlink():
            for scan in (find_scan(path), *map(Path, read_siblings(path).values())):
                self._source.fetch(scan)
        if not (path.is_file() or path.is_dir()):
            raise NotFoundError(f"The file of '{image_id}' is gone. Start the server again.")
        return path

    def open_volume(self, image_id: str) -> Path:
        """Return the file in which viewers get an image; of a DICOM series it is a copy.

        Raises
        ------
        InputError
            The series is not whole, or cannot be read.
        HeatmaskError
            As `open_image`.
        """
        path = self.open_image(image_id)
        return self._volumes.get(image_id, path) if path.is_dir() else path

    def resolve(self, name: str, client: str) -> str:
        """Return the id of the image that a client means.

        A name under which this client sent an image means the newest of these, until the next
        sample hands out a study of this name to it; otherwise it is the id of a study, or ours
        of an image that this client may see.

        Raises
        ------
        NotFoundError
            There is no such image for this client.
        """
        with self._lock:
            sent = self._sent.find(name, client) or self._sent.get(name)
            if sent is not None and (sent.shared or sent.client == client):
                self._sent.use(sent.id, self._clock())
                image_id = sent.id
            elif name in self._studies:
                image_id = name
            else:
                raise NotFoundError(describe_unknown(name, len(self.list_images())))
            if self._leases.find_holder(image_id) == client:
                self._leases.take(image_id, client)
            return image_id

    def send_image(self, file: Path, name: str, client: str, shared: bool = False) -> str:
        """Take an image from a client, under any name, also one that is taken.

        Parameters
        ----------
        file
            Moved into the store.
        name
            What the client calls it; see `resolve`.
        shared
            Whether everybody sees it. It then outlasts the client's session.

        Returns
        -------
        str
            Our id.

        Raises
        ------
        InputError
            It cannot be read.
        OutputError
            The disk is full.
        """
        suffix = read_suffix(file.name)
        with open_draft(self._drafts) as draft:
            scan = draft / name_file(name, suffix)
            copy_synced(file, scan)
            check_image(scan)
            with self._writing:
                image = SentImage("", scan, name, client, shared, self._clock())
                image = self._sent.add(draft, scan, image)
        file.unlink(missing_ok=True)
        return image.id

    def remove_image(self, image_id: str) -> None:
        """Delete an image that a client sent; its labels stay.

        Raises
        ------
        InputError
            It is a study.
        NotFoundError
            There is no such image.
        """
        with self._writing:
            sent = self._sent.get(image_id)
            if sent is not None:
                self._remove([sent])
                return
        self.find_image(image_id)
        raise InputError(
            f"'{image_id}' is a scan in the folder of studies and is not deleted from here. "
            "Remove it there and start the server again."
        )

    def end_session(self, client: str) -> list[str]:
        """Delete what a client sent, but for what it shared; return the ids."""
        with self._lock:
            self._leases.end(client)
        with self._writing:
            return self._remove(
                [i for i in self._sent.list_all() if i.client == client and not i.shared]
            )

    def expire(self, older_than_s: float) -> list[str]:
        """Delete what was sent, is not shared, and was not used for a while; return the ids."""
        with self._writing:
            unused = self._sent.list_unused(self._clock() - older_than_s)
            return self._remove([image for image in unused if not image.shared])

    def _remove(self, images: list[SentImage]) -> list[str]:
        for image in images:
            self._sent.remove(image.id)
            self._notes.remove(image.id)
            self._scores.remove(image.id)
        return [image.id for image in images]

    def get_notes(self, image_id: str) -> dict[str, Any]:
        """Return what clients, strategies and the source say of an image, and its name if sent."""
        sent = self._sent.get(image_id)
        known = self._source.describe(image_id) if self._source is not None else {}
        name = {"display_name": sent.name} if sent else {}
        return {**self._notes.get(image_id), **known, **name}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note what a client or a strategy says of an image; its id, name and path stay."""
        self.find_image(image_id)
        with self._writing:
            self._notes.update(image_id, info)

    def get_score(self, image_id: str) -> dict[str, Any]:
        """Return what `heatmask.report.score.score_scan` said of an image; empty if it has none."""
        return self._scores.get(image_id)

    def keep_score(self, image_id: str, score: Mapping[str, Any]) -> None:
        """Keep the score of an image in place of an earlier one."""
        with self._writing:
            self._scores.update(image_id, score)

    def lease(self, image_id: str, client: str) -> bool:
        """Take or renew the lease of an image, as the next sample does; False if it is another's.

        The image's id, said by this client, means this image from now on: see `resolve`.
        """
        with self._lock:
            if not self._leases.take(image_id, client):
                return False
        with self._writing:
            self._sent.release_name(image_id, client)
        return True

    def leased(self, image_id: str, client: str) -> bool:
        """Whether somebody else is at work on an image."""
        with self._lock:
            return self._leases.find_holder(image_id) not in (None, client)

    def list_leases(self) -> dict[str, str]:
        """Return the clients at work, by image."""
        with self._lock:
            return self._leases.list_holders()


def describe_unknown(name: str, count: int) -> str:
    """Return what to say of an image that there is not."""
    return (
        f"The image must be one of the {count} that the server lists, got {name[:80]!r}. "
        "Ask for the next sample, send the image again, or start the server again if the scan "
        "is new."
    )
