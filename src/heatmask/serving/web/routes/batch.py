"""Batch inference, as MONAI Label's clients start and watch it."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request

from heatmask.errors import NotFoundError
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.batch import Batch
from heatmask.serving.web.jobs import JobError
from heatmask.serving.web.messages import BatchMessage, Chosen, RequestError, read_message
from heatmask.serving.web.serving import Admin, Annotator, Served
from heatmask.serving.web.uploads import read_body

router = APIRouter()
Model = Annotated[str, InPath(max_length=200)]


@router.post("/batch/infer/{model}")
async def start_batch(
    model: Model, request: Request, serving: Served, person: Admin, images: Chosen = Chosen.ALL
) -> dict[str, Any]:
    """Run a model on many images."""
    task = serving.find_model(model)
    if not isinstance(task, HeatmapInferTask):
        raise RequestError(f"{model[:80]} makes no whole mask. Choose another model.")
    message = read_message(await read_body(request, serving.limits), BatchMessage)
    if serving.batch is not None and serving.batch.is_running:
        raise JobError(429, "Batch inference is running already. Stop it first, or wait.", 30)
    batch = Batch(task, model, message, serving.store, serving.jobs, serving.tmp, person.name)
    serving.batch = batch
    batch.start(images)
    serving.audit.record(person, "start batch", model=model, count=batch.total, result="begun")
    return batch.describe()


@router.get("/batch/infer/", response_model=None)
@router.get("/batch/infer", include_in_schema=False, response_model=None)
def show_batch(
    serving: Served, person: Annotator, all: bool = False, check_if_running: bool = False
) -> dict[str, Any] | list[dict[str, Any]]:
    """Return how far batch inference is."""
    batch = serving.batch
    if batch is None or (check_if_running and not batch.is_running):
        raise NotFoundError("No batch inference is running.")
    return [batch.describe()] if all else batch.describe()


@router.delete("/batch/infer/")
@router.delete("/batch/infer", include_in_schema=False)
def stop_batch(serving: Served, person: Admin) -> dict[str, Any] | None:
    """Stop batch inference; labels that are made stay."""
    batch = serving.batch
    if batch is None or not batch.is_running:
        return None
    batch.stop()
    serving.audit.record(person, "stop batch", model=batch.model)
    return batch.describe()
