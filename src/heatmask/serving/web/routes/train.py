"""Training, as MONAI Label's clients start and watch it."""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request

from heatmask.errors import NotFoundError
from heatmask.serving.web.messages import TrainMessage, read_message
from heatmask.serving.web.serving import Admin, Annotator, Served
from heatmask.serving.web.uploads import read_body

router = APIRouter(prefix="/train")
Model = Annotated[str, InPath(max_length=200)]


@router.get("/", response_model=None)
@router.get("", include_in_schema=False, response_model=None)
def show_training(
    serving: Served, person: Annotator, all: bool = False, check_if_running: bool = False
) -> dict[str, Any] | list[dict[str, Any]]:
    """Return how far the training is, or how the last one ended."""
    if check_if_running and not serving.trainer.is_running:
        raise NotFoundError("No training is running.")
    shown = serving.trainer.show()
    return [shown] if all else shown


@router.post("/{model}")
async def start_training(
    model: Model, request: Request, serving: Served, person: Admin
) -> dict[str, Any]:
    """Let a model learn from the corrected masks."""
    message = read_message(await read_body(request, serving.limits), TrainMessage)
    started = await run_sync(serving.trainer.start, model, message.options)
    serving.audit.record(person, "start training", model=model, result="begun")
    return started


@router.post("/", include_in_schema=False)
def start_all(serving: Served, person: Admin) -> None:
    """Refuse to train everything at once."""
    raise NotFoundError("Name the model that shall learn.")


@router.delete("/")
@router.delete("", include_in_schema=False)
def stop_training(serving: Served, person: Admin) -> dict[str, Any] | None:
    """Stop the training; it goes on from there when it is started again."""
    if not serving.trainer.is_running:
        return None
    serving.trainer.stop()
    serving.audit.record(person, "stop training")
    return serving.trainer.show()
