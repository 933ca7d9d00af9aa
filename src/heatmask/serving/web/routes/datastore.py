"""Images and labels: listed, fetched, sent and submitted."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request

from heatmask.data.paths import split_scan_name
from heatmask.errors import NotFoundError
from heatmask.serving.access import AccessError, Person, Role
from heatmask.serving.store.durable import measure_sha256
from heatmask.serving.store.host import describe_version
from heatmask.serving.web.limits import TooLargeError
from heatmask.serving.web.messages import (
    ClientId,
    ImageMessage,
    ImageName,
    LabelMessage,
    Listing,
    RequestError,
    Tag,
    read_facts,
    read_message,
)
from heatmask.serving.web.serving import (
    Annotator,
    Reviewer,
    Served,
    Serving,
    name_client,
)
from heatmask.serving.web.uploads import receive_form, run_check

router = APIRouter(prefix="/datastore")
MEDIA_TYPES = {".nii.gz": "application/gzip", ".nii": "application/octet-stream"}
_PIECE_BYTES = 1 << 20
Named = Annotated[ImageName, Query()]
From = Annotated[ClientId, Query()]


@router.get("/")
@router.get("", include_in_schema=False)
def show_store(
    serving: Served, person: Annotator, output: Listing = Listing.STATS
) -> dict[str, Any]:
    """Return all images and their labels, or how many there are."""
    return serving.store.json() if output is Listing.ALL else serving.store.status()


@router.put("/")
@router.put("", include_in_schema=False)
@router.put("/image")
async def send_image(
    request: Request,
    serving: Served,
    person: Annotator,
    image: Annotated[str, Query(max_length=300)] = "",
) -> dict[str, Any]:
    """Take an image under any name; return our id, or the name if that means the same."""
    async with receive_form(request, serving.tmp, serving.limits, ("file",)) as form:
        message = read_message(form.fields.get("params", ""), ImageMessage)
        file = form.get_file("file")
        client = name_client(person, message.client_id)
        name = image or file.name
        sent = await run_check(
            request, serving.store.send_image, file.path, name, client, message.shared
        )
    serving.audit.record(person, "send image", sent)
    return {"image": sent, "name": name}


@router.delete("/image")
@router.delete("/", include_in_schema=False)
def remove_image(
    id: Named, serving: Served, person: Annotator, client_id: From = ""
) -> dict[str, Any]:
    """Remove an image that a client sent: one's own, or an admin any. Studies stay."""
    try:
        image = serving.store.resolve(id, name_client(person, client_id))
        shared = image in serving.store.list_images()
    except NotFoundError:
        image, shared = id, True
    if shared and not person.role.includes(Role.ADMIN):
        raise AccessError(403, "Only an admin removes what others use.")
    serving.store.remove_image(image)
    serving.audit.record(person, "remove image", image)
    return {}


@router.head("/image")
def check_image(
    image: Named, serving: Served, person: Annotator,
    check_sum: Annotated[str, Query(max_length=200)] = "", client_id: From = "",
) -> Response:  # fmt: skip
    """Say whether there is such an image, with this SHA-256."""
    path = _find_image(serving, image, person, client_id)
    wanted = check_sum.rpartition(":")[2].lower()
    if wanted and wanted != measure_sha256(path):
        raise NotFoundError("The image has another SHA-256.")
    return Response()


@router.get("/image")
def fetch_image(image: Named, serving: Served, person: Annotator, client_id: From = "") -> Response:
    """Return an image's file."""
    path = _find_image(serving, image, person, client_id)
    serving.audit.record(person, "fetch image", _resolve(serving, image, person, client_id))
    return answer_file(path, split_scan_name(image)[0])


@router.get("/image/info")
def show_image_info(
    image: Named, serving: Served, person: Annotator, client_id: From = ""
) -> dict[str, Any]:
    """Return what is known of an image."""
    info = serving.store.get_image_info(_resolve(serving, image, person, client_id))
    info.pop("path", None)
    return info


@router.put("/image/info")
async def note_image_info(
    image: Named, request: Request, serving: Served, person: Annotator, client_id: From = ""
) -> dict[str, Any]:
    """Note what a client says of an image; its id, name and path stay."""
    async with receive_form(request, serving.tmp, serving.limits) as form:
        info = read_facts(form.fields.get("info", ""))
    image_id = await run_sync(_resolve, serving, image, person, client_id)
    most = serving.limits.text_bytes
    if len(json.dumps({**serving.store.get_notes(image_id), **info})) > most:
        raise TooLargeError(f"The notes on an image must hold at most {most:,} bytes together.")
    await run_sync(serving.store.update_image_info, image_id, info)
    serving.audit.record(person, "note", image_id)
    return {}


@router.put("/label")
async def submit_label(
    image: Named, request: Request, serving: Served, person: Annotator,
    tag: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:  # fmt: skip
    """Store a corrected label as a new version; say whose version it was submitted over."""
    async with receive_form(request, serving.tmp, serving.limits, ("label",)) as form:
        if tag not in ("", Tag.FINAL):
            raise_wrong_tag(tag)
        message = read_message(form.fields.get("params", ""), LabelMessage)
        file = form.get_file("label")
        client = name_client(person, message.client_id)
        image_id = await run_sync(serving.store.resolve, image, client)
        info = {k: v for k, v in message.model_dump().items() if k not in ("client_id", "model")}
        version = await run_check(
            request, serving.store.submit, image_id, file.path, info, person.name, client,
            message.model or "",
        )  # fmt: skip
    if serving.outbox is not None:
        serving.outbox.wake()
    serving.audit.record(
        person, "submit", image_id, version=version.number, model=version.model,
        conflict=version.conflict,
    )  # fmt: skip
    return {"image": image, "label": image_id, **describe_version(version)}


@router.delete("/label")
def remove_label(
    id: Named, tag: Tag, serving: Served, person: Reviewer, client_id: From = ""
) -> dict[str, Any]:
    """Let an image have no label; the versions stay."""
    image_id = _resolve(serving, id, person, client_id)
    serving.store.remove_label(image_id, tag, person.name)
    serving.audit.record(person, "remove label", image_id, tag=tag)
    return {}


@router.head("/label")
def check_label(image: Named, tag: Tag, serving: Served, person: Annotator) -> Response:
    """Say whether an image has such a label."""
    _find_label(serving, image, tag, person)
    return Response()


@router.get("/label")
def fetch_label(
    label: Named, tag: Tag, serving: Served, person: Annotator, client_id: From = ""
) -> Response:
    """Return the current label's file; what the client was shown is noted."""
    path = _find_label(serving, label, tag, person, client_id)
    image_id = _resolve(serving, label, person, client_id)
    if tag is Tag.FINAL:
        serving.store.note_seen(image_id, name_client(person, client_id))
    serving.audit.record(person, "fetch label", image_id, tag=tag)
    return answer_file(path, label)


@router.get("/label/info")
def show_label_info(
    label: Named, tag: Tag, serving: Served, person: Annotator, client_id: From = ""
) -> dict[str, Any]:
    """Return who made the current label, when, and from which model."""
    _find_label(serving, label, tag, person, client_id)
    return serving.store.get_label_info(_resolve(serving, label, person, client_id), tag)


@router.get("/label/versions")
def list_versions(
    image: Named, serving: Served, person: Reviewer, tag: Tag = Tag.FINAL, client_id: From = ""
) -> list[dict[str, Any]]:
    """Return all versions of an image's label, the oldest first."""
    image_id = _resolve(serving, image, person, client_id)
    versions = serving.store.list_versions(image_id, tag)
    return [{**describe_version(v), "removed": v.removed} for v in versions]


@router.post("/label/restore")
def restore_label(
    image: Named, number: Annotated[int, Query(ge=1)], serving: Served, person: Reviewer,
    client_id: From = "",
) -> dict[str, Any]:  # fmt: skip
    """Bring an earlier submitted version back, as a new one."""
    image_id = _resolve(serving, image, person, client_id)
    version = serving.store.restore(image_id, number, person.name)
    serving.audit.record(person, "restore", image_id, version=version.number)
    return describe_version(version)


def answer_file(path: Path, stem: str) -> Response:
    """Send a file under a name of the client's, whole, also if it is removed meanwhile.

    Raises
    ------
    NotFoundError
        It is gone already.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError("The file is gone. Send it again.") from error
    suffix = split_scan_name(path.name)[1].lower()
    kind = MEDIA_TYPES.get(suffix, "application/octet-stream")
    name = stem.replace("/", "_").replace("\\", "_") + suffix
    quoted = quote(name)
    shown = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
    headers = {
        "Content-Length": str(os.fstat(file.fileno()).st_size),
        "Content-Disposition": f"attachment; {shown}",
    }
    return StreamingResponse(_read_pieces(file), headers=headers, media_type=kind)


def _read_pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def raise_wrong_tag(tag: str) -> None:
    """Say under which tag a label is submitted."""
    raise RequestError(f"tag must be {Tag.FINAL} for a label that is submitted, got {tag[:40]!r}.")


def _resolve(serving: Serving, image: str, person: Person, client_id: str = "") -> str:
    return serving.store.resolve(image, name_client(person, client_id))


def _find_image(serving: Serving, image: str, person: Person, client_id: str = "") -> Path:
    return serving.store.open_volume(_resolve(serving, image, person, client_id))


def _find_label(
    serving: Serving, image: str, tag: Tag, person: Person, client_id: str = ""
) -> Path:
    image_id = _resolve(serving, image, person, client_id)
    path = serving.store.get_label_uri(image_id, tag)
    if not path:
        raise NotFoundError(f"'{image}' has no label under the tag '{tag}'.")
    return Path(path)
