"""One inference as a job, awaited while its client is there."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from heatmask.errors import DeviceError, InputError, MethodError, OptionError
from heatmask.serving.app import ServedTask
from heatmask.serving.web.errors import hide_paths
from heatmask.serving.web.jobs import Job, JobError

_PAUSE_S = 0.25


@dataclass(frozen=True)
class Inference:
    """A model to run on one scan.

    Attributes
    ----------
    task
        The model.
    scan
        The scan's file.
    name
        What the client calls the scan, for messages.
    options
        Of the request.
    folder
        Where the mask is written.
    """

    task: ServedTask
    scan: Path
    name: str
    options: dict[str, Any]
    folder: Path

    @property
    def is_quick(self) -> bool:
        """Whether it is likely to need no network, and so not to wait for those that do."""
        return self.task.knows(self._request)

    @property
    def _request(self) -> dict[str, Any]:
        return {**self.options, "image": str(self.scan)}

    def __call__(self, job: Job) -> tuple[Path, dict[str, Any]]:
        """Return the mask's file and what is to be said of it.

        Raises
        ------
        HeatmaskError
            The scan or an option is not what it must be; the text names the scan.
        """
        try:
            file, facts = self.task(self._request, job.tell, self.folder)
        except (InputError, OptionError, MethodError, DeviceError) as error:
            raise type(error)(f"{self.name}: {error}") from error
        return Path(file), hide_all_paths(facts)


def hide_all_paths(value: Any) -> Any:
    """Return a JSON value whose texts name no path of the server."""
    if isinstance(value, str):
        return hide_paths(value)
    if isinstance(value, list | tuple):
        return [hide_all_paths(item) for item in value]
    if isinstance(value, dict):
        return {name: hide_all_paths(item) for name, item in value.items()}
    return value


async def await_job(job: Job, request: Request) -> Any:
    """Return a job's result; stop the job if the client goes first.

    A job that is to stop is not waited for: it comes to its end at its next batch.

    Raises
    ------
    ClientDisconnect
        The client has gone.
    Exception
        What the job raised.
    """
    future = asyncio.wrap_future(job.future)
    try:
        while not future.done():
            await asyncio.wait([future], timeout=_PAUSE_S)
            if not future.done() and job.reason is not None:
                raise job.reason
            if not future.done() and await request.is_disconnected():
                raise ClientDisconnect
        return future.result()
    finally:
        if not future.done():
            future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            job.stop(JobError(499, "The client has gone."))
