"""How far a training is, kept in a file that whoever wants to know reads; and one at a time."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from heatmask.errors import HeatmaskError, InputError, OutputError
from heatmask.files import write_atomically

_EVERY_S, _PATIENCE_S = 1.0, 2.0
_LOCK, _FILE = ".lock", "training.json"
RUNNING, DONE, ERROR, STOPPED = "RUNNING", "DONE", "ERROR", "STOPPED"
"""As in MONAI Label."""


@dataclass
class Status:
    """One training.

    Attributes
    ----------
    model : name of the bundle that learns
    details : what was said on the way, the newest last
    stage : what is done at present
    done, total : slices shown to networks, and to be shown
    epoch, total_epochs : likewise
    loss : of the last steps
    held_out_dice : of patients held out so far; None before there is one
    published : number of the version that is served now; None if the weights were worse
    process : id of the process
    """

    model: str
    request: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"train-{uuid4().hex[:16]}")
    status: str = RUNNING
    start_ts: str = ""
    end_ts: str = ""
    seconds: float = 0.0
    details: list[str] = field(default_factory=list)
    stage: str = ""
    done: int = 0
    total: int = 0
    epoch: int = 0
    total_epochs: int = 0
    loss: float | None = None
    held_out_dice: float | None = None
    published: int | None = None
    process: int = 0


class Training:
    """The status of a training at work in this process.

    Parameters
    ----------
    folder
        Where its file lies.
    status
        Changed by whoever trains.
    show
        Called with each sentence.
    """

    def __init__(self, folder: Path, status: Status, show: Any = None) -> None:
        self.folder, self.status = folder, status
        self._show, self._begun, self._written = show, time.monotonic(), 0.0

    def say(self, text: str) -> None:
        """Note a sentence for the user."""
        self.status.details.append(text)
        if self._show is not None:
            self._show(text)
        self.write()

    def tell(self, slices: int, loss: float | None = None) -> None:
        """Note that so many more slices were shown; the file is written once a second."""
        status = self.status
        status.done += slices
        if loss is not None:
            status.loss = loss if status.loss is None else 0.9 * status.loss + 0.1 * loss
        if status.total:
            status.epoch = status.done * status.total_epochs // status.total
        if time.monotonic() - self._written > _EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the file. On a full disk what trains goes on; it fails where it must write."""
        self._written = time.monotonic()
        self.status.seconds = round(self._written - self._begun, 1)
        with suppress(OutputError), write_atomically(self.folder / _FILE) as draft:
            draft.write_text(json.dumps(vars(self.status), indent=1), encoding="utf-8")

    def end(self, status: str) -> None:
        """Note how it ended."""
        self.status.status, self.status.end_ts = status, _now()
        self.write()


@contextmanager
def begin_training(
    folder: Path, model: str, request: dict[str, Any], show: Any = None
) -> Iterator[Training]:
    """Hold a folder for one training, and note how that goes and ends.

    SIGTERM stops it as Ctrl-C does, if this is the main thread.

    Raises
    ------
    InputError
        A training is at work there already.
    OutputError
        The folder cannot be written.
    """
    lock = _make_lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(timeout=_PATIENCE_S)  # Who asks for the status holds it for a moment
    except Timeout as error:
        raise InputError(
            "A training is running already. Wait for it, or stop it first (the stop button of the "
            "plugin, or Ctrl-C where it was started)."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}. Check its permissions and the "
            "space left."
        ) from error
    status = Status(model, request, start_ts=_now(), process=os.getpid())
    training = Training(folder, status, show)
    training.write()
    try:
        with _stop_on_sigterm():
            yield training
        training.end(DONE)
    except KeyboardInterrupt:
        status.details.append("Stopped. Start it again and it goes on.")
        training.end(STOPPED)
        raise
    except BaseException as error:
        status.details.append(str(error) if isinstance(error, HeatmaskError) else repr(error))
        training.end(ERROR)
        raise
    finally:
        lock.release()


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does; only a process's main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_status(folder: Path) -> Status | None:
    """Return the last training, None if there was none.

    One that was killed is not running: nothing holds its folder.
    """
    status = _read_file(folder)
    if status is not None and status.status == RUNNING and not is_running(folder):
        status = _read_file(folder)  # It may have ended meanwhile, and have said so
        if status is not None and status.status == RUNNING:
            status.status = ERROR
            status.details.append("It was killed. Start it again and it goes on.")
    return status


def _read_file(folder: Path) -> Status | None:
    try:
        return Status(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_running(folder: Path) -> bool:
    """Whether a training is at work in a folder, in whatever process."""
    if not (folder / _LOCK).is_file():
        return False
    lock = _make_lock(folder)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def stop_training(folder: Path) -> bool:
    """Ask the training at work in a folder to stop; return whether there was one."""
    status = read_status(folder)
    if status is None or status.status != RUNNING:
        return False
    # Its lock is held, so that the process is the one that wrote the file.
    with suppress(ProcessLookupError):
        os.kill(status.process, signal.SIGTERM)
    return True


def _make_lock(folder: Path) -> FileLock:
    return FileLock(folder / _LOCK, timeout=0, mode=0o600, thread_local=False)


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
