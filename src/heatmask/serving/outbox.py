"""Submitted masks on their way to the PACS, as DICOM SEG; what cannot be sent now is sent later."""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from heatmask.data.readers.nifti import read_itk_grid
from heatmask.data.readers.reference import read_label_map
from heatmask.errors import HeatmaskError
from heatmask.geometry import match_voxels
from heatmask.pacs import Pacs, PacsError
from heatmask.serving.store import Store
from heatmask.serving.store.checks import read_label_names
from heatmask.serving.store.durable import open_draft, publish, read_json, write_json
from heatmask.serving.store.labels import FINAL, Version

logger = logging.getLogger(__name__)

RETRY_S = 300.0


class Outbox:
    """Sends the submitted mask that counts of each series, once.

    Parameters
    ----------
    store
        Where the masks are.
    pacs
        Where they go: to the study of their series.
    folder
        ``outbox`` of the store: a note for each mask that was sent.
    versions
        The versions of the models by name, for the SEG.

    Attributes
    ----------
    waiting : dict of str to str
        Images whose mask could not be sent yet, and why.
    """

    def __init__(
        self, store: Store, pacs: Pacs, folder: Path, versions: Callable[[], Mapping[str, str]]
    ) -> None:
        self._store, self._pacs, self._folder = store, pacs, folder
        self._versions = versions
        self._wake, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.waiting: dict[str, str] = {}

    def describe_waiting(self) -> str:
        """Return a sentence about the masks that could not be sent yet, empty if there is none."""
        reasons = list(dict.fromkeys(self.waiting.values()))
        if not reasons:
            return ""
        count = len(self.waiting)
        masks = "1 submitted mask is" if count == 1 else f"{count} submitted masks are"
        return f"{masks} not in the PACS yet: {reasons[0]}"

    def start(self) -> None:
        """Send what waits, now and whenever there may be something new."""
        self._thread.start()

    def wake(self) -> None:
        """Look for masks to send."""
        self._wake.set()

    def stop(self) -> None:
        """Send no more."""
        self._ended = True
        self._wake.set()

    def join(self, wait_s: float = 1.0) -> None:
        """Wait after `stop` until what is being sent is noted as sent."""
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def send_waiting(self) -> None:
        """Send every mask that was not sent yet; of those that failed, keep why."""
        for image in self._store.get_labeled_images():
            version = self._store.list_current(image).get(FINAL)
            if version is None or self._is_sent(version) or self._ended:
                continue
            try:
                self._send(version)
            except PacsError as error:
                logger.warning("The mask of %s waits: %s", image, error)
                self.waiting[image] = str(error)
                return  # which the PACS would do to the others too
            except HeatmaskError as error:
                logger.error("The mask of %s cannot be sent: %s", image, error)
                self.waiting[image] = str(error)
            else:
                self.waiting.pop(image, None)

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            try:
                self.send_waiting()
            except Exception:
                logger.exception("Masks could not be sent")
            self._wake.wait(RETRY_S)

    def _send(self, version: Version) -> None:
        from heatmask.report.dicom import Making, is_dicom_scan, make_seg, read_source

        series = self._store.open_image(version.image)
        if not is_dicom_scan(series):
            return  # sent by a client as a volume, and in no PACS
        labels, affine = read_label_map(version.path)
        grid = read_itk_grid(self._store.open_volume(version.image))
        model = version.model
        making = Making(
            model, self._versions().get(model, ""), version.person, True,
            key=f"{version.image} {version.number} {version.sha256}",
        )  # fmt: skip
        names = {i: name for i, name in (read_label_names(version.info) or {}).items() if i > 0}
        mask = np.asarray(match_voxels(labels, affine, *grid))
        seg = make_seg(read_source(series), mask, names or {1: "lesion"}, making)
        self._pacs.send(seg)
        self._note(version, str(seg.SOPInstanceUID))
        logger.info("The mask of %s, version %d, is in the PACS", version.image, version.number)

    def _place(self, version: Version) -> Path:
        return self._folder / f"{version.image}-{version.number}.json"

    def _is_sent(self, version: Version) -> bool:
        return read_json(self._place(version)).get("sha256") == version.sha256

    def _note(self, version: Version, uid: str) -> None:
        with open_draft(self._folder / "drafts") as draft:
            write_json(draft / "sent.json", {"sha256": version.sha256, "sop_instance_uid": uid})
            publish(draft / "sent.json", self._place(version))
