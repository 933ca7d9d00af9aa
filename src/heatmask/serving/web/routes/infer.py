"""One inference: a scan that the server has or gets, the mask and the facts back."""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from heatmask.serving.access import Person
from heatmask.serving.web.inference import Inference, await_job
from heatmask.serving.web.messages import Answer, InferMessage, RequestError, read_message
from heatmask.serving.web.serving import Annotator, Served, Serving, name_client
from heatmask.serving.web.uploads import Form, receive_form

router = APIRouter(prefix="/infer")


@router.post("/{model}")
async def infer(
    model: Annotated[str, InPath(max_length=200)],
    request: Request,
    serving: Served,
    person: Annotator,
    image: Annotated[str, Query(max_length=300)] = "",
    session_id: Annotated[str, Query(max_length=100)] = "",
    output: Answer = Answer.ALL,
) -> Response:
    """Run a model on an image of the store, a session's, or a file that comes with the request."""
    task = serving.find_model(model)
    async with receive_form(request, serving.tmp, serving.limits, ("file", "label")) as form:
        message = read_message(form.fields.get("params", ""), InferMessage)
        if message.save_label and model not in serving.app.models:
            raise RequestError(f"save_label must be false: {model[:80]} makes no whole mask.")
        client = name_client(person, message.client_id)
        image_id, scan, name = await run_sync(
            _find_scan, serving, form, person, client, image, session_id
        )
        options = {**message.options, "client": client}
        if "label" in form.files:
            options["label"] = str(form.files["label"].path)
        work = Inference(task, scan, name, options, form.folder)
        job = serving.jobs.submit(work, person.name, model, message.job, quick=work.is_quick)
        serving.audit.record(person, "infer", image_id, model=model, job=job.id, result="begun")
        file, facts = await await_job(job, request)
        facts["job"] = job.id
        if serving.waiting:
            facts["warnings"] = [*facts.get("warnings", ()), serving.waiting]
        if message.save_label and image_id:
            await run_sync(serving.store.prelabel, image_id, file, {}, model, facts)
        return _answer(output, file.read_bytes(), file.name, facts)


def _find_scan(
    serving: Serving, form: Form, person: Person, client: str, image: str, session_id: str
) -> tuple[str, Path, str]:
    """Return the image's id in the store, if it has one, its file, and what the client calls it."""
    if session_id:
        session = serving.sessions.get(session_id, person.name)
        return session.image, serving.store.open_image(session.image), image or "The session's scan"
    if "file" in form.files:
        upload = form.files["file"]
        return "", upload.path, upload.name
    if image:
        image_id = serving.store.resolve(image, client)
        return image_id, serving.store.open_image(image_id), image
    raise RequestError("Name an image, send one as 'file', or give a session_id.")


def _answer(output: Answer, mask: bytes, name: str, facts: dict[str, Any]) -> Response:
    """Return what MONAI Label's client takes apart: a form of the parts params and image."""
    if output is Answer.JSON:
        return JSONResponse(facts)
    if output is Answer.IMAGE:
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(mask, media_type="application/octet-stream", headers=headers)
    boundary = secrets.token_hex(16)
    part = f"--{boundary}\r\nContent-Disposition: form-data; name="
    body = b"".join(
        [
            f'{part}"params"\r\nContent-Type: application/json\r\n\r\n'.encode(),
            json.dumps(facts).encode(),
            f'\r\n{part}"image"; filename="{name}"\r\n'.encode(),
            b"Content-Type: application/octet-stream\r\n\r\n",
            mask,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
