"""Training from corrected masks, in a process of its own that the server starts and watches.

A process, because a training takes memory and processors for long, may end badly, and leaves the
server's own threads alone. It is `heatmask learn`; how far it is stands in its file, so that a
server that was started again knows of it too.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatmask.errors import NotFoundError
from heatmask.learning.bundle import check_source
from heatmask.learning.folds import assign_folds
from heatmask.learning.settings import LearnSettings
from heatmask.learning.status import (
    ERROR,
    RUNNING,
    STOPPED,
    Status,
    is_running,
    read_status,
    stop_training,
)
from heatmask.options import Option, list_options
from heatmask.serving.app import HeatmaskApp
from heatmask.serving.learning import find_learned, list_learn_scans
from heatmask.serving.options import build_panel, read_options, show_option
from heatmask.serving.store.export import find_stores
from heatmask.serving.web.errors import hide_paths
from heatmask.serving.web.jobs import JobError

logger = logging.getLogger(__name__)

_LATER = 10
"""Of `os.nice`: who waits for a mask comes first."""
_DETAILS = 20


class Trainer:
    """Starts, watches and stops the training of one server.

    Parameters
    ----------
    app
        Whose models learn.
    flat
        The flat folder of the studies.
    labels
        Table of image-level labels, if there is one.
    device
        Where it trains.
    """

    def __init__(
        self, app: HeatmaskApp, flat: Path, labels: Path | None = None, device: str = "auto"
    ) -> None:
        self.app, self.flat, self.labels, self.device = app, flat, labels, device
        self.folder = find_learned(flat)
        offered = {n: o for n, o in list_options(LearnSettings).items() if o.in_panel}
        self.panel: dict[str, Option] = build_panel(offered)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._begun: Status | None = None

    def describe(self) -> dict[str, Any]:
        """Return the trainers as clients see them: the models that can learn, and the options."""
        config = {name: show_option(option) for name, option in self.panel.items()}
        about = "Learns corrected masks; its result is served if it is not worse."
        return {name: {"description": about, "config": config} for name in self.app.list_learners()}

    def describe_stats(self) -> dict[str, Any]:
        """Return how far the last training is, or how good it was, as the panel shows it."""
        status = self.find_status()
        if status is None:
            return {}
        stats: dict[str, Any] = {
            "epoch": status.epoch,
            "total_epochs": max(1, status.total_epochs),
            "start_ts": status.start_ts,
            "stage": status.stage,
            "train": {"loss": status.loss},
            "best_metric": round(status.held_out_dice or 0.0, 4),
        }
        if status.status != RUNNING:
            stats["total_time"] = status.seconds
        return {status.model: stats}

    def start(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training.

        Raises
        ------
        NotFoundError
            The model cannot learn, or there is none.
        JobError
            A training is running.
        HeatmaskError
            An option, the labels or the corrected masks are not what they must be.
        """
        learners = self.app.list_learners()
        if model not in learners:
            raise NotFoundError(
                f"There is no trainer {model[:80]!r}. Trainers: {', '.join(learners) or 'none'}."
            )
        values, _ = read_options(self.panel, request)
        with self._lock:
            status = self._find_status()
            if (status is not None and status.status == RUNNING) or is_running(self.folder):
                raise JobError(429, "A training is running already. Stop it first, or wait.", 30)
            self._check(learners[model], values)
            self._begun = Status(model, dict(values), stage="Starting")
            self._process = self._launch(learners[model], values)
        logger.info("Training of %s began", model)
        return self.show()

    def show(self) -> dict[str, Any]:
        """Return the last training as clients of MONAI Label know a task.

        Raises
        ------
        NotFoundError
            There was none.
        """
        status = self.find_status()
        if status is None:
            raise NotFoundError("No training has run.")
        said = status.details[-_DETAILS:] or [status.stage or "Starting"]
        details = [hide_paths(text) for text in said]
        return {**vars(status), "details": details, "result": details[-1]}

    @property
    def is_running(self) -> bool:
        """Whether a training has not come to its end."""
        status = self.find_status()
        return status is not None and status.status == RUNNING

    def find_status(self) -> Status | None:
        """Return the last training of whatever process, None if there was none."""
        with self._lock:
            return self._find_status()

    def stop(self) -> None:
        """Ask the training to stop; what it has learnt so far it goes on with another time."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                self._process.wait()
            else:
                stop_training(self.folder)

    def _find_status(self) -> Status | None:
        found, process = read_status(self.folder), self._process
        if process is None or (found is not None and found.process == process.pid):
            return found
        # It has not come so far as to say anything.
        begun, code = self._begun, process.poll()
        if begun is not None and code is not None and begun.status == RUNNING:
            begun.status = STOPPED if code < 0 else ERROR
            begun.details = [self._read_last_line() or "Stopped."]
        return begun

    def _check(self, bundle: Path, values: Mapping[str, Any]) -> None:
        """Refuse now what the process would refuse."""
        settings = LearnSettings(**values)
        config = json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))
        check_source(config, bundle.name, settings.way)
        scans = list_learn_scans(find_stores(self.flat)[0], self.labels)
        assign_folds((s.patient for s in scans if s.correction is not None), settings.folds)

    def _launch(self, bundle: Path, values: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "heatmask.cli", "learn", str(self.flat)]
        command += ["--bundle", str(bundle), "--device", self.device]
        command += ["--labels", str(self.labels)] if self.labels is not None else []
        for name, value in values.items():
            command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "training.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        os.setpriority(os.PRIO_PROCESS, process.pid, _LATER)
        return process

    def _read_last_line(self) -> str:
        log = self.folder / "training.log"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
