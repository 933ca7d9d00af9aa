"""What all routes share: models, store, jobs, and who may."""

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Depends, Request

from heatmask.errors import NotFoundError
from heatmask.serving.access import Access, AccessSettings, Audit, Person, Role, require
from heatmask.serving.app import HeatmaskApp, ServedTask
from heatmask.serving.outbox import Outbox
from heatmask.serving.store import Store
from heatmask.serving.web.batch import Batch
from heatmask.serving.web.jobs import Jobs
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.metrics import Metrics
from heatmask.serving.web.nninteractive.leases import Leases
from heatmask.serving.web.scoring import Scoring
from heatmask.serving.web.sessions import Sessions
from heatmask.serving.web.training import Trainer


@dataclass
class Serving:
    """A server's parts.

    Attributes
    ----------
    app
        The models and the order of samples.
    store
        Images and labels.
    access, audit, settings
        Who may, who did, and where the server listens.
    folder
        The server's own, private one.
    port
        Where it listens.
    limits
        Of requests and their work.
    outbox
        Sends submitted masks to the PACS that the studies are from; None if there is none.
    labels
        Table of image-level labels of the studies, for training.
    sampling
        Held while a sample is chosen, so that two people do not get the same.
    """

    app: HeatmaskApp
    store: Store
    access: Access
    audit: Audit
    settings: AccessSettings
    folder: Path
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    outbox: Outbox | None = None
    labels: Path | None = None

    def __post_init__(self) -> None:
        """Make what belongs to these parts, and clear what a killed server left."""
        self.tmp = self.folder / "tmp"
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True, mode=0o700)
        self.metrics = Metrics()
        self.jobs = Jobs(max(1, torch.cuda.device_count()), self.limits, self.metrics)
        self.sessions = Sessions(self.store, self.limits.session_s)
        self.leases = Leases(self.limits)
        self.batch: Batch | None = None
        device = self.app.conf.get("device", "auto")
        self.trainer = Trainer(self.app, self.folder.parent, self.labels, device)
        self.scoring = Scoring(self.app, self.store, self.jobs, lambda: self.trainer.is_running)
        self.sampling = threading.Lock()

    @property
    def address(self) -> str:
        """What users type into 3D Slicer."""
        scheme = "https" if self.settings.tls_cert else "http"
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def waiting(self) -> str:
        """What to say of masks that wait for the PACS; empty if none does."""
        return self.outbox.describe_waiting() if self.outbox is not None else ""

    def find_model(self, name: str) -> ServedTask:
        """Return a model by its name, or what corrects its masks or shows its heatmap.

        Raises
        ------
        NotFoundError
            There is none.
        """
        task = self.app.tasks.get(name)
        if task is None:
            raise NotFoundError(
                f"There is no model {name[:80]!r}. Models: {', '.join(self.app.tasks)}."
            )
        return task

    def stop(self) -> None:
        """Tell all work to stop, at its next batch."""
        if self.batch is not None:
            self.batch.stop()
        self.scoring.stop()
        self.jobs.stop()
        if self.outbox is not None:
            self.outbox.stop()
        if self.trainer.is_running:
            self.trainer.stop()

    def close(self) -> bool:
        """Stop all work and delete what is half done; return whether the work came to its end."""
        self.stop()
        ended = self.jobs.join()
        if self.outbox is not None:
            self.outbox.join()
        shutil.rmtree(self.tmp, ignore_errors=True)
        return ended

    def expire(self) -> None:
        """Delete what clients sent and use no more."""
        self.sessions.expire()
        self.leases.expire()
        self.app.corrections.expire()
        self.store.expire(self.limits.session_s)
        self.app.explanations.expire(self.limits.session_s)


def get_serving(request: Request) -> Any:
    """Return the parts of the server that a request came to."""
    return request.app.state.serving


Served = Annotated[Serving, Depends(get_serving)]
Annotator = Annotated[Person, Depends(require(Role.ANNOTATOR))]
Reviewer = Annotated[Person, Depends(require(Role.REVIEWER))]
Admin = Annotated[Person, Depends(require(Role.ADMIN))]


def name_client(person: Person, client_id: str = "") -> str:
    """Return by what name the store knows who asks."""
    return f"{person.name}/{client_id}"
