"""Batch inference: a model on many images, one after the other, behind everything urgent."""

import logging
import secrets
import shutil
import tempfile
import threading
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from heatmask.errors import Failures
from heatmask.serving.store import Store
from heatmask.serving.store.labels import ORIGINAL
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.errors import hide_paths
from heatmask.serving.web.inference import Inference
from heatmask.serving.web.jobs import Job, JobError, Jobs
from heatmask.serving.web.messages import BatchMessage, Chosen

logger = logging.getLogger(__name__)
_DETAILS = 20


class Batch:
    """A run over many images, in a thread that waits for each of them in the queue.

    A damaged scan does not stop it; every label is in the store as soon as it is made. Resumed, it
    leaves out images that have a label of this version of the model, by the same weights.

    Attributes
    ----------
    done, total, kept
        Images that it has been through, all of them, and those left out before it began.
    failures
        Why, by image.
    status
        ``SUBMITTED``, ``RUNNING``, ``DONE``, ``ERROR`` (all failed) or ``STOPPED``, as in MONAI
        Label.
    """

    def __init__(
        self,
        task: HeatmapInferTask,
        model: str,
        message: BatchMessage,
        store: Store,
        jobs: Jobs,
        tmp: Path,
        person: str,
    ) -> None:
        self.model, self.person, self.status = model, person, "SUBMITTED"
        self.done, self.total, self.kept = 0, 0, 0
        self.failures: dict[str, str] = {}
        self._task, self._message, self._store = task, message, store
        self._jobs, self._tmp = jobs, tmp
        self._details: deque[str] = deque(maxlen=_DETAILS)
        self._start, self._end = _now(), ""
        self._stop = threading.Event()
        self._job: Job | None = None
        self.id = f"batch-{secrets.token_hex(8)}"

    def start(self, chosen: Chosen) -> None:
        """Begin, in a thread of its own."""
        images = {
            Chosen.ALL: self._store.list_images,
            Chosen.LABELED: self._store.get_labeled_images,
            Chosen.UNLABELED: self._store.get_unlabeled_images,
        }[chosen]()
        images = sorted(images)
        if self._message.resume:
            left = [image for image in images if not self._has_label(image)]
            self.kept, images = len(images) - len(left), left
        images = images[: self._message.max_batch_size or None]
        self.total, self.status = len(images), "RUNNING"
        threading.Thread(target=self._run, args=(images,), name="batch", daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether it has not come to its end."""
        return self.status in ("SUBMITTED", "RUNNING")

    def stop(self) -> None:
        """Stop at the next batch of the present image; labels that are made stay."""
        self._stop.set()
        if self._job is not None:
            self._job.stop(JobError(410, "Batch inference was stopped."))

    def describe(self) -> dict[str, Any]:
        """Return a task as MONAI Label's clients know it, with the images done and to do."""
        return {
            "id": self.id,
            "status": self.status,
            "request": {"model": self.model, **self._message.options},
            "start_ts": self._start,
            "end_ts": self._end,
            "kept": self.kept,
            "done": self.done,
            "total": self.total,
            "details": list(self._details),
        }

    def _has_label(self, image: str) -> bool:
        label = self._store.list_current(image).get(ORIGINAL)
        if label is None or label.model != self.model:
            return False
        return self._task.has_made(label.info.get("params"))

    def _run(self, images: list[str]) -> None:
        failures = Failures()
        self.failures = failures.reasons
        for image in images:
            if self._stop.is_set():
                break
            with failures.catch(image):
                self._run_image(image)
            self.done += 1
            reason = failures.reasons.get(image)
            self._say(f"{self.done} / {self.total} {image}: {reason or 'done'}")
        self._end = _now()
        reasons = failures.reasons
        if self._stop.is_set():
            self.status = "STOPPED"
        elif reasons:
            self._sum_up(reasons)
            self.status = "ERROR" if len(reasons) == self.total else "DONE"
        else:
            self.status = "DONE"
        logger.info("Batch inference of %s: %s", self.model, self.status)

    def _run_image(self, image: str) -> None:
        folder = Path(tempfile.mkdtemp(dir=self._tmp))
        try:
            scan = self._store.open_image(image)
            work = Inference(self._task, scan, image, self._message.options, folder)
            self._job = self._jobs.submit(work, self.person, self.model, urgent=False)
            if self._stop.is_set():  # which came before it could reach this job
                self.stop()
            file, facts = self._job.future.result()
            self._store.prelabel(image, file, {}, self.model, facts)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sum_up(self, reasons: dict[str, str]) -> None:
        named = "; ".join(f"{image}: {reason}" for image, reason in reasons.items())
        count = len(reasons)
        others = "" if count == self.total else ", the labels of the others are stored"
        self._say(f"{count} of {self.total} images failed{others}. {named}")

    def _say(self, text: str) -> None:
        self._details.append(hide_paths(text))


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
