"""The web application on a real port of this machine, with models whose slowness a test decides."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from monailabel.client.client import MONAILabelClient

from heatmask.bundle import list_bundles
from heatmask.serving.access import Access, AccessSettings, Audit
from heatmask.serving.opening import open_studies
from heatmask.serving.server import make_serving
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web import Limits, Serving, create_app
from helpers.server import MODEL, find_free_port
from helpers.serving_stub import write_bundle, write_scan
from helpers.site import run_site
from helpers.waiting import PATIENCE_S

SLOW = "stub_slow_segmentation"
HELD_IMAGES = 100_000
"""Those that a run which is held says it has."""


class SlowTask(HeatmapInferTask):
    """The planted model, held up in the middle of a run for as long as a test wants.

    Attributes
    ----------
    running : threading.Event
        Set once a run has begun.
    begun, finished : list of str
        Scans of all runs, and of those that were not stopped.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.running, self._deaf = threading.Event(), False
        self._free, self._passes = threading.Event(), threading.Semaphore(0)
        self._free.set()
        self.begun: list[str] = []
        self.finished: list[str] = []

    @contextmanager
    def hold(self, deaf: bool = False) -> Iterator[None]:
        """Hold every run until the block ends; one that is deaf does not hear that it is to stop.

        Meanwhile it goes through images of no network.
        """
        self._deaf = deaf
        self.running.clear()
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def let_one_pass(self) -> None:
        """Let one run of those that are held come to its end."""
        self._passes.release()

    def knows(self, request):
        return False  # what is slow here is not the network

    def __call__(self, request, progress=None, folder=None):
        self.begun.append(Path(request["image"]).name)
        self.running.set()
        images = itertools.count(1)
        while not self._free.is_set() and not self._passes.acquire(timeout=0.02):
            if progress is not None and not self._deaf:
                progress(next(images), HELD_IMAGES)
        answer = super().__call__(request, progress, folder)
        self.finished.append(Path(request["image"]).name)
        return answer


@dataclass
class Web:
    """A running application, and clients of it."""

    serving: Serving
    url: str
    client: MONAILabelClient
    studies: Path
    slow: SlowTask
    http: requests.Session = field(default_factory=requests.Session)

    def send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request; whatever the answer, it names no path of the server."""
        answer = self.http.request(method, self.url + path, timeout=300, **arguments)
        assert answer.status_code != 500, answer.text
        assert answer.status_code < 400 or "/tmp/" not in answer.text, answer.text
        return answer

    def list_files(self) -> dict[str, bytes]:
        """Return what lies in the work folder and beside the studies, without the audit log."""
        places = (self.serving.folder, self.studies)
        files = (path for place in places for path in place.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files if path.name != ".lock"}


@contextmanager
def run_web(
    tmp_path: Path,
    limits: Limits | None = None,
    settings: AccessSettings | None = None,
    pacs: str | None = None,
) -> Iterator[Web]:
    """Serve two studies, or those of a PACS, with the planted model and the same made slow."""
    settings = settings or AccessSettings()
    bundles, studies, work = (tmp_path / name for name in ("bundles", "studies", "work"))
    for model in (MODEL, SLOW):
        if not (bundles / model).exists():  # of an earlier server on the same folder
            write_bundle(bundles / model)
    for patient in ("p1", "p2") if pacs is None else ():
        write_scan(studies / patient / f"{patient}-flair.nii.gz", patient == "p1")
    opened = open_studies(pacs or studies, work, list_bundles([bundles]))
    access, audit = Access(settings, work / "access"), Audit(work / "access")
    port = find_free_port()
    serving = make_serving(opened, "cpu", access, audit, port)
    if limits is not None:
        serving.close()
        serving = Serving(
            serving.app, serving.store, access, audit, settings, serving.folder, port, limits
        )
    slow = SlowTask(serving.app.models[SLOW]._bundle, "cpu")
    serving.app._infers = {**serving.app.tasks, SLOW: slow}
    if serving.outbox is not None:
        serving.outbox.start()
    try:
        with run_site(create_app(serving), port):
            url = f"http://127.0.0.1:{port}"
            yield Web(serving, url, MONAILabelClient(url, tmpdir=str(tmp_path)), studies, slow)
    finally:
        serving.close()
        if serving.outbox is not None:
            serving.outbox.join(PATIENCE_S)
        serving.store.close()
