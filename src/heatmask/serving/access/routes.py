"""Log in as MONAI Label's client does, and the role that a route needs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.responses import PlainTextResponse

from heatmask.errors import HeatmaskError
from heatmask.serving.access.access import Access
from heatmask.serving.access.audit import Audit
from heatmask.serving.access.person import AccessError, Person, Role

Answer = TypeVar("Answer")
CHECKS_AT_ONCE = 2  # of passwords: each takes 64 MiB and some 50 ms
CHECKS_WAITING = 30
LOOKUPS_AT_ONCE = 16

router = APIRouter(prefix="/auth", tags=["auth"])


@dataclass(frozen=True)
class RoleNeeded:
    """A dependency of a route: the person who asks, who must have a role.

    What changes something and is refused later is in the audit log too; what is done, the route
    itself puts there, which knows the image.
    """

    role: Role

    async def __call__(self, request: Request) -> AsyncIterator[Person]:
        """Give who asks.

        Raises
        ------
        AccessError
            401, 403, 429 or 503, as `Access.identify`.
        """
        access: Access = request.app.state.access
        identify = partial(
            access.identify, request.headers.get("authorization"), find_address(request)
        )
        # Off the event loop, as a provider may take its time to answer; and not among the
        # threads of everybody else.
        person = await anyio.to_thread.run_sync(identify, limiter=request.app.state.lookups)
        if not person.role.includes(self.role):
            _note_refusal(request, person, f"needs {self.role}")
            raise AccessError(
                403, f"This needs the role {self.role}; {person.name} is {person.role}."
            )
        request.state.person = person.name  # for the log of requests
        try:
            yield person
        except HeatmaskError as error:
            if request.method not in ("GET", "HEAD"):
                _note_refusal(request, person, type(error).__name__)
            raise


def require(role: Role) -> RoleNeeded:
    """Return a dependency: ``person: Annotated[Person, Depends(require(Role.REVIEWER))]``."""
    return RoleNeeded(role)


def _note_refusal(request: Request, person: Person, reason: str) -> None:
    audit: Audit = request.app.state.audit
    # The route alone: its query holds names that clients give to images.
    action = f"{request.method} {request.scope['route'].path}"
    audit.record(person, action, result="refused", reason=reason)


def find_address(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


@router.get("/")
async def show_kind(request: Request) -> dict[str, Any]:
    """Say whether a log-in is needed."""
    access: Access = request.app.state.access
    oidc = access.settings.oidc
    return {
        "enabled": access.enabled,
        "client_id": oidc.client_id if oidc else "",
        "realm": oidc.issuer if oidc else "",
    }


@router.post("/token")
async def log_in(
    request: Request,
    username: Annotated[str, Form()],
    password: Annotated[str, Form()],
    grant_type: Annotated[str, Form()] = "password",
) -> dict[str, Any]:
    """Return a token for a name and a password (OAuth 2.0's password grant)."""
    access: Access = request.app.state.access
    audit: Audit = request.app.state.audit
    if not access.enabled:
        return {"access_token": None, "token_type": None}
    if grant_type != "password":
        raise AccessError(401, "grant_type must be password.")
    limiter: anyio.CapacityLimiter = request.app.state.password_checks
    if limiter.statistics().tasks_waiting >= CHECKS_WAITING:
        raise AccessError(503, "Too many log-ins at once.", 5)
    address = find_address(request)
    try:
        person, token = await anyio.to_thread.run_sync(
            access.log_in, username, password, address, limiter=limiter
        )
    except AccessError as error:
        if error.status != 429:  # Nobody shall be able to push older lines out of the log
            user = username[:64] if access.knows(username) else "unknown"
            audit.record(None, "log in", user=user, address=address, result="refused")
        raise
    audit.record(person, "log in", address=address)
    return {"access_token": token, "token_type": "bearer"}


@router.get("/token/valid")
async def show_person(
    person: Annotated[Person, Depends(require(Role.ANNOTATOR))],
) -> dict[str, Any]:
    """Say whose token this is."""
    return {"username": person.name, "email": None, "name": person.name, "roles": [person.role]}


async def answer_access_error(_: Request, error: Any) -> PlainTextResponse:
    """Send a refusal's text, which viewers show."""
    return PlainTextResponse(str(error), status_code=error.status, headers=error.headers)


def install(app: FastAPI, access: Access, audit: Audit) -> None:
    """Put log-in and refusals into an application; its routes then use `require`."""
    app.state.access, app.state.audit = access, audit
    app.state.lookups = anyio.CapacityLimiter(LOOKUPS_AT_ONCE)
    app.state.password_checks = anyio.CapacityLimiter(CHECKS_AT_ONCE)
    app.add_exception_handler(AccessError, answer_access_error)
    app.include_router(router)
