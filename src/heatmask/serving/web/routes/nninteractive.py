"""Images, clicks, boxes, scribbles and lassos of nnInteractive's clients in, changes of a mask out.

The address chooses the model: ``/nninteractive`` the first one, ``/nninteractive/MODEL`` another,
``/nninteractive/none`` none.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Response
from monai.data import MetaTensor
from numpy.typing import NDArray
from starlette.requests import Request

from heatmask import __version__
from heatmask.errors import InputError, MethodError, NotFoundError, OptionError
from heatmask.serving.access import Person
from heatmask.serving.corrections import limit_edit
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.errors import hide_paths
from heatmask.serving.web.inference import await_job
from heatmask.serving.web.jobs import Job
from heatmask.serving.web.messages import read_message
from heatmask.serving.web.nninteractive.arrays import pack_array, unpack_array
from heatmask.serving.web.nninteractive.editor import Change, Editor, Prior
from heatmask.serving.web.nninteractive.grid import place_image
from heatmask.serving.web.nninteractive.leases import Lease
from heatmask.serving.web.nninteractive.messages import (
    LEASE_HEADER,
    META_HEADER,
    Box,
    Buffer,
    ImageMeta,
    Painted,
    Point,
    Segmentation,
    describe_change,
)
from heatmask.serving.web.serving import Annotator, Served, Serving
from heatmask.serving.web.uploads import open_folder, read_body, receive_file, run_check

logger = logging.getLogger(__name__)
router = APIRouter()
Token = Annotated[str, Header(alias=LEASE_HEADER, max_length=100)]

NO_MODEL = "none"
_KINDS = ("points", "bbox2d", "bbox3d", "scribble", "lasso")


def hold_lease(serving: Served, person: Annotator, token: Token = "") -> Lease:
    """Return the lease of whoever asks, who is at work."""
    return serving.leases.get(token, person.name)


Holder = Annotated[Lease, Depends(hold_lease)]


@router.get("/healthz")
def show_life(person: Annotator) -> dict[str, bool]:
    """Answer whoever may edit, which is all."""
    return {"ok": True}


@router.post("/claim")
def claim(request: Request, serving: Served, person: Annotator) -> dict[str, Any]:
    """Begin to edit."""
    models = serving.app.models
    model = request.path_params.get("model") or next(iter(models), NO_MODEL)
    if model not in (*models, NO_MODEL):
        raise NotFoundError(f"There is no model {model[:80]!r}. Models: {', '.join(models)}.")
    lease = serving.leases.claim(person.name, "" if model == NO_MODEL else model)
    return {
        "lease_token": lease.token,
        "idle_timeout_seconds": serving.limits.idle_s,
        "liveness_timeout_seconds": serving.limits.liveness_s,
        "max_sessions": serving.limits.editors,
    }


@router.post("/release")
def release(serving: Served, person: Annotator, token: Token = "") -> dict[str, bool]:
    """End; also twice."""
    serving.leases.release(token, person.name)
    return {"released": True}


@router.post("/heartbeat")
def keep(serving: Served, person: Annotator, token: Token = "") -> dict[str, float]:
    """Take note that the client lives, and say how long it may do nothing."""
    lease = serving.leases.get(token, person.name, active=False)
    return {"remaining_seconds": serving.leases.measure_remaining_s(lease)}


@router.get("/lease_status")
def show_lease(serving: Served, person: Annotator, token: Token = "") -> dict[str, float]:
    """Say how long the client may do nothing."""
    lease = serving.leases.get(token, person.name, active=False, seen=False)
    return {
        "remaining_seconds": serving.leases.measure_remaining_s(lease),
        "idle_timeout_seconds": serving.limits.idle_s,
    }


@router.get("/capabilities")
def show_capabilities(serving: Served, person: Annotator, token: Token = "") -> dict[str, Any]:
    """Say what a client may do, and what the model's weights may be used for."""
    lease = serving.leases.get(token, person.name, active=False)
    task = serving.app.models.get(lease.model)
    return {
        "supported_interactions": dict.fromkeys(_KINDS, True),
        "supports_initial_label": True,
        "supports_zero_shot_label_refinement": False,
        "supports_undo": True,
        "preferred_scribble_thickness": [2, 2, 2],
        "do_autozoom": False,
        "license": task.license_text if task else "Apache-2.0, no model",
        "inference_session_version": f"heatmask {__version__}",
        # What a network of nnInteractive has; clients keep it and use it for nothing
        "channel_mapping": {"prev_seg": 0, **{kind: [1, 2] for kind in _KINDS}},
        "num_interaction_channels": 3,
        "interaction_decay": 1.0,
        "patch_size": None,
    }


@router.post("/set_do_autozoom")
async def set_autozoom(request: Request, serving: Served, lease: Holder) -> dict[str, Any]:
    """Take it in: an edit reaches 40 mm, zoomed or not."""
    await read_body(request, serving.limits)
    return {}


@router.post("/set_image")
async def set_image(
    request: Request, serving: Served, person: Annotator, lease: Holder
) -> dict[str, Any]:
    """Take an image, and ask the lease's model what it says of it."""
    meta = read_message(request.headers.get(META_HEADER, ""), ImageMeta)
    where = meta.image_properties
    async with lease.busy:
        with open_folder(serving.tmp) as folder:
            array = await _receive_array(request, serving, folder)
            serving.leases.check_room(lease, array.size)
            scan = await run_check(request, place_image, array, where.spacing, where.affine)
            prior, warnings = await _ask_model(request, serving, person, lease, scan, folder)
        lease.editor = await run_check(request, Editor, scan, prior)
    serving.audit.record(person, "send image to edit", model=lease.model)
    model = lease.model if prior else ""
    return {"original_image_shape": list(array.shape), "model": model, "warnings": warnings}


async def _ask_model(
    request: Request,
    serving: Serving,
    person: Person,
    lease: Lease,
    scan: MetaTensor,
    folder: Path,
) -> tuple[Prior | None, list[str]]:
    """Return what a model says of an image and its warnings, or None and the reason why not."""
    task, file = serving.app.models.get(lease.model), folder / "image.nii"
    if task is None:
        return None, []
    volume = nib.Nifti1Image(np.asarray(scan[0]), np.asarray(scan.affine))
    await run_check(request, nib.save, volume, file)
    job = serving.jobs.submit(lambda job: _explain(task, file, job), person.name, lease.model)
    try:
        return await await_job(job, request)
    except (InputError, OptionError, MethodError) as error:
        reason = hide_paths(str(error))
        logger.info("An image is edited without %s: %s", lease.model, reason)
        return None, [reason]


def _explain(task: HeatmapInferTask, file: Path, job: Job) -> tuple[Prior, list[str]]:
    explained = task.explain({"image": str(file)}, job.tell)
    mask = explained.make_mask()[0].numpy(force=True)
    prior = Prior(explained.heatmap.numpy(force=True), mask)
    return prior, [hide_paths(text) for text in explained.scan.meta.get("warnings") or ()]


@router.post("/set_target_buffer")
async def set_target_buffer(request: Request, serving: Served, lease: Holder) -> dict[str, Any]:
    """Take note of the client's mask, which is empty."""
    message = read_message(await read_body(request, serving.limits), Buffer)
    async with lease.busy:
        _find_editor(lease).clear_buffer(message.shape)
    return {}


@router.post("/reset_interactions")
async def reset(lease: Holder) -> dict[str, Any]:
    """Begin another object."""
    async with lease.busy:
        _find_editor(lease).reset()
    return {}


@router.post("/undo")
async def undo(request: Request, lease: Holder) -> Response:
    """Take back the last edit."""
    return await _edit(request, lease, lambda editor: editor.undo())


@router.post("/predict")
async def predict(request: Request, lease: Holder) -> Response:
    """Send what edits changed whose answer the client did not want at once."""
    return await _edit(request, lease, lambda editor: True)


@router.post("/add_point_interaction")
async def add_point(request: Request, serving: Served, lease: Holder) -> Response:
    """Take a click."""
    message = read_message(await read_body(request, serving.limits), Point)

    def work(editor: Editor) -> bool:
        editor.apply(message.make_edit())
        return message.run_prediction

    return await _edit(request, lease, work)


@router.post("/add_bbox_interaction")
async def add_box(request: Request, serving: Served, lease: Holder) -> Response:
    """Take a box."""
    message = read_message(await read_body(request, serving.limits), Box)

    def work(editor: Editor) -> bool:
        editor.apply(message.make_edit(editor.shape))
        return message.run_prediction

    return await _edit(request, lease, work)


@router.post("/add_scribble_interaction")
async def add_scribble(request: Request, serving: Served, lease: Holder) -> Response:
    """Take a scribble."""
    return await _take_painted(request, serving, lease, exact=True)


@router.post("/add_lasso_interaction")
async def add_lasso(request: Request, serving: Served, lease: Holder) -> Response:
    """Take the inside of a lasso."""
    return await _take_painted(request, serving, lease, exact=False)


@router.post("/add_initial_seg_interaction")
async def begin_with(request: Request, serving: Served, lease: Holder) -> Response:
    """Take the mask that the client begins with."""
    read_message(request.headers.get(META_HEADER, ""), Segmentation)
    with open_folder(serving.tmp) as folder:
        mask = await _receive_array(request, serving, folder)

    def work(editor: Editor) -> bool:
        editor.reset(mask)
        return True

    return await _edit(request, lease, work)


async def _take_painted(
    request: Request, serving: Serving, lease: Lease, *, exact: bool
) -> Response:
    message = read_message(request.headers.get(META_HEADER, ""), Painted)
    with open_folder(serving.tmp) as folder:
        voxels = await _receive_array(request, serving, folder)

    def work(editor: Editor) -> bool:
        editor.apply(message.make_edit(voxels, editor.shape, exact=exact))
        return message.run_prediction

    return await _edit(request, lease, work)


async def _receive_array(request: Request, serving: Serving, folder: Path) -> NDArray[Any]:
    file = await receive_file(request, folder / "array", serving.limits)
    return await run_check(request, _unpack, file, serving)


def _unpack(file: Path, serving: Serving) -> NDArray[Any]:
    return unpack_array(file.read_bytes(), serving.limits)


async def _edit(request: Request, lease: Lease, work: Callable[[Editor], bool]) -> Response:
    """Call an edit, and send what it changed if it says so."""

    def find_change(editor: Editor) -> tuple[bool, Change | None, bytes]:
        with limit_edit():
            ran = work(editor)
        change = editor.find_change() if ran else None
        return ran, change, pack_array(change.voxels) if change else b""

    async with lease.busy:
        editor = _find_editor(lease)
        ran, change, body = await run_sync(find_change, editor, limiter=request.app.state.edits)
        if change and not await request.is_disconnected():
            editor.note_shown(change)  # Who went without the answer gets it with the next one
    headers = {META_HEADER: describe_change(change, ran=ran)}
    return Response(body, media_type="application/octet-stream", headers=headers)


def _find_editor(lease: Lease) -> Editor:
    if lease.editor is None:
        raise InputError("Send an image first.")
    return lease.editor
