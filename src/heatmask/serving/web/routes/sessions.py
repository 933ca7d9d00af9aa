"""Sessions: a scan sent for a while."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import Response
from starlette.requests import Request

from heatmask.serving.web.messages import RequestError
from heatmask.serving.web.routes.datastore import answer_file
from heatmask.serving.web.serving import Annotator, Served
from heatmask.serving.web.uploads import receive_form, run_check

router = APIRouter(prefix="/session")
SessionId = Annotated[str, InPath(max_length=100)]


@router.put("/")
@router.put("", include_in_schema=False)
async def create_session(
    request: Request,
    serving: Served,
    person: Annotator,
    uncompress: bool = False,
    expiry: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> dict[str, Any]:
    """Keep a scan for a while; archives are not unpacked."""
    if uncompress:
        raise RequestError("uncompress must be false: send one NIfTI or NRRD.")
    async with receive_form(request, serving.tmp, serving.limits, ("files",)) as form:
        file = form.get_file("files")
        session = await run_check(
            request, serving.sessions.create, file.path, file.name, person.name, expiry
        )
    serving.audit.record(person, "open session", session.image)
    return {"session_id": session.id, "session_info": session.describe()}


@router.get("/{session_id}", response_model=None)
def show_session(
    session_id: SessionId,
    serving: Served,
    person: Annotator,
    image: bool = False,
    update_ts: bool = True,
) -> dict[str, Any] | Response:
    """Return what is known of a session, or its scan."""
    session = serving.sessions.get(session_id, person.name)
    if image:
        return answer_file(serving.store.find_image(session.image), "scan")
    return session.describe()


@router.delete("/{session_id}")
def remove_session(session_id: SessionId, serving: Served, person: Annotator) -> dict[str, Any]:
    """End a session; its scan is deleted."""
    session = serving.sessions.remove(session_id, person.name)
    serving.audit.record(person, "end session", session.image)
    return session.describe()
