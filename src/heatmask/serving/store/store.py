"""The store: the images of a server and the versions of their labels."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store.checks import check_label, read_suffix
from heatmask.serving.store.durable import copy_synced, open_draft
from heatmask.serving.store.identity import identify
from heatmask.serving.store.images import ImageStore, Source
from heatmask.serving.store.labels import FINAL, ORIGINAL, LabelVersions, Version, is_of
from heatmask.serving.store.migrate import Migration

_MOST_SEEN = 100_000


class Store(ImageStore):
    """The images and labels of a server; safe from several threads.

    Parameters
    ----------
    studies
        The flat folder of links to the studies (`heatmask.serving.studies.index_studies`); it
        is only read, and so is what the links lead to.
    folder
        Where everything else is kept, see `heatmask.serving.store`.
    clock
        Returns the time in s since 1970.
    source
        Where the scans are that the links lead to, if they have to be fetched first.

    Notes
    -----
    A `client` is "<user>/<client_id>". Of a label that a client submits over a version which it
    was not shown, both are kept, and `Version.conflict` says whose the other is. What was shown
    is kept in memory: after a restart such a conflict may be noted that was none.

    Raises
    ------
    InputError
        Another server is at work on the folder.
    OutputError
        The folder cannot be written.
    """

    def __init__(
        self,
        studies: Path,
        folder: Path,
        clock: Callable[[], float] = time.time,
        source: Source | None = None,
    ) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        super().__init__(studies, folder, clock, source)
        try:
            Migration(studies, self._drafts, self._labels, self._sent, self._notes).run()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Read everything from the files again."""
        with self._writing:
            super().refresh()
            self._labels = LabelVersions(self._folder / "labels")

    def submit(
        self,
        image_id: str,
        file: Path,
        info: Mapping[str, Any],
        person: str,
        client: str,
        model: str = "",
    ) -> Version:
        """Store a label that a person corrected as the new final version; end the lease.

        Parameters
        ----------
        file
            NIfTI or NRRD; it stays where it is.
        info
            What the client said of it, as ``label_info``.
        model
            Where the correction began.

        Raises
        ------
        InputError
            It is no label of this image; see `check_label`. The earlier one stays.
        NotFoundError
            There is no such image.
        OutputError
            The disk is full. The earlier one stays.
        """
        given = {"person": person, "client": client, "model": model, "info": info}
        return self._add(image_id, FINAL, file, given)

    def prelabel(
        self, image_id: str, file: Path, info: Mapping[str, Any], model: str, params: Any
    ) -> Version:
        """Store what a model made of an image; it never becomes the final label.

        Raises
        ------
        InputError, NotFoundError, OutputError
            As `submit`.
        """
        given = {"model": model, "info": {**info, "model": model, "params": params}}
        return self._add(image_id, ORIGINAL, file, given)

    def restore(self, image_id: str, number: int, person: str) -> Version:
        """Store an earlier final version again, as a new one: of the scan that is there now.

        Raises
        ------
        InputError
            Its file is damaged, or it lies on other voxels than the scan that is there now.
        NotFoundError
            There is no such version, or it was a removal.
        """
        with self._writing:
            versions = self._labels.list_versions(image_id, FINAL)
            old = next((v for v in versions if v.number == number and not v.removed), None)
            if old is None:
                kept = ", ".join(str(v.number) for v in versions if not v.removed)
                raise NotFoundError(
                    f"The version must be one of those of '{image_id:.80}' ({kept or 'none'}), "
                    f"got {number}."
                )
            with open_draft(self._drafts) as draft:
                file = draft / old.path.name
                if copy_synced(old.path, file) != old.sha256:
                    raise InputError(
                        f"Version {number} of '{image_id}' is damaged on the disk and was not "
                        "restored. Take it from a backup."
                    )
                place, scan = self._find_place(image_id), old.scan
                if place is not None and not is_of(old, place):
                    check_label(file, self.open_volume(image_id), old.info)
                    scan = identify(place)
                again = replace(
                    old, time=self._tell_time(), person=person, client="", conflict=None,
                    restored_from=number, scan=scan,
                )  # fmt: skip
                return self._labels.add(draft, again)

    def remove_label(self, label_id: str, label_tag: str, person: str = "") -> None:
        """Let an image have no label; the versions stay and can be restored.

        Raises
        ------
        NotFoundError
            There is no such label.
        """
        with self._writing, open_draft(self._drafts) as draft:
            current = self._get_current(label_id, label_tag)
            removal = Version(
                label_id, label_tag, 0, draft, self._tell_time(), person, removed=True,
                image_name=current.image_name, scan=current.scan,
            )  # fmt: skip
            self._labels.add(draft, removal)

    def update_label_info(
        self,
        label_id: str,
        label_tag: str,
        info: dict[str, Any],
        person: str = "",
        client: str = "",
    ) -> None:
        """Store the current label again, with more said of it.

        Raises
        ------
        InputError
            ``label_info`` no longer names all its values.
        NotFoundError
            There is no such label.
        """
        with self._writing:
            current = self._get_current(label_id, label_tag)
            given: dict[str, Any] = {"person": person, "client": client, "model": current.model}
            given["info"] = {**current.info, **info}
            self._add(label_id, label_tag, current.path, given)

    def _get_current(self, image_id: str, tag: str) -> Version:
        current = self.list_current(image_id).get(tag)
        if current is None:
            raise NotFoundError(f"'{image_id:.80}' has no label under the tag '{tag:.40}'.")
        return current

    def _add(self, image_id: str, tag: str, file: Path, given: dict[str, Any]) -> Version:
        volume, client = self.open_volume(image_id), given.get("client", "")
        suffix, submitted = read_suffix(file.name), tag == FINAL and client != ""
        with open_draft(self._drafts) as draft:
            path = draft / f"mask{suffix}"
            digest = copy_synced(file, path)
            check_label(path, volume, given["info"])  # The copy: nobody can change it
            scan = identify(self.find_image(image_id))
            with self._writing:
                sent = self._sent.get(image_id)
                version = Version(
                    image_id, tag, 0, path, self._tell_time(), sha256=digest,
                    conflict=self._find_conflict(image_id, client) if submitted else None,
                    image_name=sent.name if sent else "", scan=scan, **given,
                )  # fmt: skip
                version = self._labels.add(draft, version)
                if submitted:
                    with self._lock:
                        self._leases.end(client, image_id)
                        self.note_seen(image_id, client)
                return version

    def _find_conflict(self, image_id: str, client: str) -> str | None:
        """Return whose versions a client has not seen, None if it has seen all."""
        seen = self._seen.get((image_id, client), 0)
        unseen = self._labels.list_versions(image_id, FINAL)[seen:]
        # Its own it has seen, also those before a restart.
        last = max((n for n, v in enumerate(unseen, 1) if v.client == client), default=0)
        others = dict.fromkeys(v.person or "somebody else" for v in unseen[last:])
        return ", ".join(others) or None

    def _tell_time(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")

    def list_versions(self, image_id: str, tag: str | None = None) -> list[Version]:
        """Return all versions of an image, also of one that is gone, by tag and number."""
        return self._labels.list_versions(image_id, tag)

    def list_current(self, image_id: str) -> dict[str, Version]:
        """Return the current label under each tag of the scan that is there now."""
        return self._labels.list_current(image_id, self._find_place(image_id))

    def _find_place(self, image_id: str) -> Path | None:
        try:
            return self.find_image(image_id)
        except NotFoundError:
            return None

    def note_seen(self, image_id: str, client: str) -> None:
        """Note that a client was shown the current final version of an image."""
        with self._lock:
            versions = self._labels.list_versions(image_id, FINAL)
            self._seen.pop((image_id, client), None)
            self._seen[image_id, client] = len(versions)
            if len(self._seen) > _MOST_SEEN:  # Who comes back after so many gets a conflict noted
                del self._seen[next(iter(self._seen))]
