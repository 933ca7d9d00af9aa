"""Scores of scans, made while nobody waits for a model: what Next Sample orders them by."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from heatmask.errors import HeatmaskError
from heatmask.report.score import score_scan
from heatmask.result import Result
from heatmask.serving.app import HeatmaskApp
from heatmask.serving.explained import digest
from heatmask.serving.store import Store
from heatmask.serving.store.identity import identify
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.jobs import Job, JobError, Jobs

logger = logging.getLogger(__name__)

IDLE_S = 20.0
"""How long nobody must have asked for anything."""
LOOK_EVERY_S = 5.0
MOST = 1000
"""Scans that have a score, those without a submitted label first."""
LATER = 503
"""Status of a job that somebody's request kept from its end."""
JUDGES = 3
"""Models whose masks are compared."""
UNKNOWN = {"quality": None, "mask_ml": None, "disagreement": None, "features": None}


class Scoring:
    """Scores one scan after the other in a thread of its own, and keeps the scores in the store.

    It begins when nobody has asked for anything for a while, and gives way at the next batch of
    the network once somebody does. Of a PACS only series that were fetched are scored.

    Parameters
    ----------
    app, store, jobs
        The server's.
    is_busy
        Whether other work, such as a training, needs the machine.
    idle_s
        See `IDLE_S`.
    """

    def __init__(
        self,
        app: HeatmaskApp,
        store: Store,
        jobs: Jobs,
        is_busy: Callable[[], bool] = lambda: False,
        idle_s: float = IDLE_S,
    ) -> None:
        self._app, self._store, self._jobs = app, store, jobs
        self._is_busy, self._idle_s = is_busy, idle_s
        self._ended = threading.Event()

    def start(self) -> None:
        """Score what has no score yet, and whatever comes."""
        threading.Thread(target=self._run, name="scoring", daemon=True).start()

    def stop(self) -> None:
        """Score no more; what runs stops with the jobs."""
        self._ended.set()

    def score_next(self) -> bool:
        """Score one scan; return whether there was one. A scan that fails is not tried again."""
        judges = self._list_judges()
        for image, key in self._list_open(judges):
            try:
                path = self._store.open_image(image)
                score = score_scan([self._ask(name, path) for name in judges])
            except Exception as error:
                if isinstance(error, JobError) and error.status == LATER:
                    return True
                expected = isinstance(error, HeatmaskError)
                logger.warning("%s has no score: %s", image, error, exc_info=not expected)
                score = UNKNOWN
            self._store.keep_score(image, {**score, "of": key})
            return True
        return False

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                while self._is_idle() and self.score_next():
                    pass
            except Exception:
                logger.exception("Scans could not be scored")

    def _is_idle(self) -> bool:
        quiet = time.monotonic() - self._jobs.asked_s >= self._idle_s
        free = quiet and not self._jobs.list_open() and not self._ended.is_set()
        return free and self._app.loading.is_over and not self._is_busy()

    def _list_judges(self) -> dict[str, HeatmapInferTask]:
        """Return the first model, and the next ones that look for the same."""
        models = self._app.models
        first = next(iter(models.values()))
        same = [name for name, task in models.items() if task.labels == first.labels]
        return {name: models[name] for name in same[:JUDGES]}

    def _list_open(self, judges: dict[str, HeatmapInferTask]) -> Iterator[tuple[str, str]]:
        """Return the images that have no score by these models, each with its key."""
        made_by = [task.digest() for task in judges.values()]
        images = self._store.get_unlabeled_images() + self._store.get_labeled_images()
        for image in images[:MOST]:
            try:
                key = digest([identify(self._store.find_image(image))["sha256"], made_by])
            except (OSError, HeatmaskError):
                continue  # not here, or not to be read
            if self._store.get_score(image).get("of") != key:
                yield image, key

    def _ask(self, name: str, scan: Path) -> Result:
        """Return what a model says of a scan, once it is its turn."""
        task = self._app.models[name]

        def work(job: Job) -> Result:
            def give_way(done: int, total: int) -> None:
                if self._jobs.is_awaited:
                    raise JobError(LATER, "Somebody waits.")
                job.tell(done, total)

            request: dict[str, Any] = {"image": str(scan)}
            return task.answer(request, give_way)[0]

        return self._jobs.submit(work, "", name, urgent=False).future.result()
