"""How far an inference is, and its end before its time."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath

from heatmask.errors import NotFoundError
from heatmask.serving.access import Person, Role
from heatmask.serving.web.jobs import Job, JobError
from heatmask.serving.web.serving import Annotator, Served, Serving

router = APIRouter(prefix="/jobs")
Id = Annotated[str, InPath(max_length=64)]


@router.get("/{job_id}")
def show_job(job_id: Id, serving: Served, person: Annotator) -> dict[str, Any]:
    """Return a job's state, and how many images of the network are done."""
    return _find(serving, job_id, person).describe()


@router.delete("/{job_id}")
def stop_job(job_id: Id, serving: Served, person: Annotator) -> dict[str, Any]:
    """Stop a job at its next batch."""
    job = _find(serving, job_id, person)
    job.stop(JobError(410, "The inference was stopped."))
    serving.audit.record(person, "stop job", job=job.id)
    return job.describe()


def _find(serving: Serving, job_id: str, person: Person) -> Job:
    job = serving.jobs.get(job_id)
    if job.person != person.name and not person.role.includes(Role.ADMIN):
        raise NotFoundError("There is no such job, or it ended long ago.")
    return job
