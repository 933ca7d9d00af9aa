"""The routes put together, and what stands before them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.middleware import Middleware

from heatmask.serving.access import install, list_middleware
from heatmask.serving.web.bodies import BodyGuard
from heatmask.serving.web.errors import install_errors
from heatmask.serving.web.requestlog import RequestLog
from heatmask.serving.web.routes import (
    batch,
    datastore,
    health,
    infer,
    info,
    jobs,
    nninteractive,
    sessions,
    train,
)
from heatmask.serving.web.serving import Serving

_EXPIRE_EVERY_S = 60
_CHECKS_AT_ONCE = 2
"""Of files that came: reading them may take seconds and, however small they came, some GB of memory
each. It must leave both to everybody else."""
_EDITS_AT_ONCE = 2
"""Of masks, which may take a second each."""


def create_app(serving: Serving) -> FastAPI:
    """Return the web application of a server: MONAI Label's protocol and nnInteractive's.

    Parameters
    ----------
    serving
        The server's parts; its jobs are closed at the end.
    """
    app = FastAPI(
        title="Heatmask",
        version=serving.app.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_live,
        middleware=[
            Middleware(RequestLog, metrics=serving.metrics),
            *list_middleware(serving.settings),
            Middleware(BodyGuard, limits=serving.limits),
        ],
    )
    app.state.serving = serving
    app.state.checks = CapacityLimiter(_CHECKS_AT_ONCE)
    app.state.edits = CapacityLimiter(_EDITS_AT_ONCE)
    install(app, serving.access, serving.audit)
    install_errors(app)
    for module in (info, datastore, infer, sessions, batch, train, jobs, health):
        app.include_router(module.router)
    for prefix in ("/nninteractive", "/nninteractive/{model}"):
        app.include_router(nninteractive.router, prefix=prefix)
    return app


@asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[None]:
    serving: Serving = app.state.serving
    expiry = asyncio.create_task(_expire(serving))
    try:
        yield
    finally:
        expiry.cancel()
        with suppress(asyncio.CancelledError):
            await expiry
        serving.stop()


async def _expire(serving: Serving) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_EVERY_S)
        await run_sync(serving.expire)
