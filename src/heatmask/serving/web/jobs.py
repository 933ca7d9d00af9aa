"""Work in the background: few workers, a queue with an end, progress, and stopping.

Workers are threads of this process, so that all share the networks and see each other's labels.
They are daemons: one that hangs in a library does not keep the server from ending.
"""

import itertools
import queue
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

from heatmask.errors import HeatmaskError, NotFoundError
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.metrics import Metrics

_REMEMBERED = 500
_QUICK_WORKERS = 2

Queue = queue.PriorityQueue[tuple[int, int, "Job | None"]]


class JobError(HeatmaskError):
    """Work was refused, or stopped before its end.

    Attributes
    ----------
    status
        409 (its id is taken), 410 (stopped), 499 (the client has gone), 503 (the queue is full,
        or the server ends) or 504 (it took too long).
    """

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Job:
    """One piece of work.

    Attributes
    ----------
    id, person, model : str
    urgent, quick : bool
        See `Jobs.submit`.
    state : State
    done, total : int
        Images of the network that are done, and those known to come.
    reason : JobError or None
        Why it is to stop, which may take the work until its next batch.
    future : Future
        What the work returned or raised.
    """

    def __init__(
        self,
        work: Callable[["Job"], Any],
        job_id: str,
        person: str,
        model: str,
        *,
        urgent: bool = True,
        quick: bool = False,
    ) -> None:
        self.id, self.person, self.model = job_id, person, model
        self.urgent, self.quick = urgent, quick
        self.state, self.done, self.total = State.QUEUED, 0, 0
        self.future: Future[Any] = Future()
        self._work, self._lock = work, threading.Lock()
        self.reason: JobError | None = None
        self._deadline_s = float("inf")

    def describe(self) -> dict[str, Any]:
        """Return what a client may know of it."""
        return {
            "id": self.id,
            "model": self.model,
            "state": self.state,
            "done": self.done,
            "total": self.total,
        }

    def tell(self, done: int, total: int) -> None:
        """Take note of the progress; raise `JobError` if the work is to stop (for `Pipeline`)."""
        self.done, self.total = done, total
        if self.reason is None and time.monotonic() > self._deadline_s:
            self.reason = JobError(504, "The inference took too long and was stopped.")
        if self.reason is not None:
            raise self.reason

    def stop(self, reason: JobError) -> None:
        """Drop it if it waits; let it stop at its next batch if it runs."""
        with self._lock:
            self.reason = self.reason or reason
            if self.state is not State.QUEUED:
                return
            self.state = State.STOPPED
        self.future.set_exception(reason)

    def run(self, seconds: float) -> None:
        """Do the work, unless it was stopped before its turn."""
        with self._lock:
            if self.state is not State.QUEUED:
                return
            self.state = State.RUNNING
            self.future.set_running_or_notify_cancel()
        self._deadline_s = time.monotonic() + seconds
        try:
            result = self._work(self)
        except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
            self.state = State.FAILED if self.reason is None else State.STOPPED
            self.future.set_exception(self.reason or error)
        else:
            self.state = State.DONE
            self.future.set_result(result)
        finally:
            del self._work  # and the scans that it holds


class Jobs:
    """The workers and their queue.

    Parameters
    ----------
    workers
        How many jobs run at once; one for each device, whose memory they would share.
    limits
        ``queue`` and ``seconds``.
    metrics
        Where they are counted.

    Attributes
    ----------
    asked_s : float
        When somebody asked for urgent work last, by the monotonic clock.
    """

    def __init__(self, workers: int, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._workers, self._queue, self._quick = workers, Queue(), Queue()
        self._order = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.asked_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run_jobs, args=(line,), name=f"worker-{n}", daemon=True)
            for n, line in enumerate(self._list_lines())
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        work: Callable[[Job], Any],
        person: str,
        model: str,
        job_id: str | None = None,
        *,
        urgent: bool = True,
        quick: bool = False,
    ) -> Job:
        """Put work into the queue.

        Parameters
        ----------
        work
            Called with its job, to whose `Job.tell` it reports.
        person, model
            Whose it is, and of which model.
        job_id
            The client's own, to ask for the progress with.
        urgent
            Somebody waits for it. What nobody waits for comes after all that is urgent, and does
            not count for the queue's end.
        quick
            It takes about a second and no device: such jobs have two workers of their own, and
            wait for none of the others.

        Raises
        ------
        JobError
            The queue is full, or the id is taken.
        """
        with self._lock:
            if self._closed:
                raise JobError(503, "The server is about to end.", 30)
            waiting = self._count_waiting(quick)
            if urgent and waiting >= self._limits.queue:
                raise JobError(503, f"{waiting} inferences wait already. Try again later.", 10)
            if job_id in self._jobs:
                raise JobError(409, "The job's id is taken. Give another one, or none.")
            if urgent:
                self.asked_s = time.monotonic()
            job_id = job_id or secrets.token_hex(8)
            job = Job(work, job_id, person, model, urgent=urgent, quick=quick)
            self._jobs[job.id] = job
            self._forget()
        job.future.add_done_callback(lambda _: self._metrics.count_job(job.state))
        line = self._quick if quick else self._queue
        line.put((0 if urgent else 1, next(self._order), job))
        if self._closed:  # meanwhile: no worker may be left to run it
            job.stop(JobError(503, "The server ends."))
        return job

    def get(self, job_id: str) -> Job:
        """Return a job, also one that ended not long ago.

        Raises
        ------
        NotFoundError
            There is no such job.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError("There is no such job, or it ended long ago.")
        return job

    def list_open(self) -> list[Job]:
        """Return the jobs that wait or run."""
        return [
            job for job in list(self._jobs.values()) if job.state in (State.QUEUED, State.RUNNING)
        ]

    def count(self, state: State) -> int:
        """Return how many jobs are in a state."""
        return sum(job.state is state for job in list(self._jobs.values()))

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a device."""
        return self._count_waiting(quick=False) > 0

    def stop(self) -> None:
        """Take no more work, and stop all there is; at once, also from a signal's handler."""
        self._closed = True
        for job in self.list_open():
            job.stop(JobError(503, "The server ends."))
        for line in self._list_lines():
            line.put((-1, next(self._order), None))

    def join(self, wait_s: float = 1.0) -> bool:
        """Wait for the workers after `stop`; return whether all came to their end in time."""
        deadline = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _list_lines(self) -> list[Queue]:
        """Return the queue of each worker."""
        return [self._queue] * self._workers + [self._quick] * _QUICK_WORKERS

    def _count_waiting(self, quick: bool) -> int:
        waiting = (job for job in self.list_open() if job.state is State.QUEUED and job.urgent)
        return sum(job.quick is quick for job in waiting)

    def _run_jobs(self, line: Queue) -> None:
        while (job := line.get()[2]) is not None:
            job.run(self._limits.seconds)

    def _forget(self) -> None:
        ended = [i for i, job in self._jobs.items() if job.future.done()]
        for job_id in ended[: max(0, len(self._jobs) - _REMEMBERED)]:
            del self._jobs[job_id]
