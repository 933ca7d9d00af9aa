"""For those who watch the server: whether it lives, whether it is ready, its numbers, its page."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse, Response

from heatmask.serving.web.jobs import State
from heatmask.serving.web.page import render_page
from heatmask.serving.web.serving import Annotator, Served

router = APIRouter()
NO_RESOURCES = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/healthz")
def show_life() -> dict[str, str]:
    """Answer, which is all."""
    return {"status": "ok"}


@router.get("/readyz")
def show_readiness(serving: Served) -> Response:
    """Say whether the networks are loaded: 503 while they are not."""
    state = serving.app.loading
    ready = state.is_over and bool(serving.app.models)
    content: dict[str, Any] = {
        "ready": ready, "models": len(state.ready), "failed": sorted(state.failures),
    }  # fmt: skip
    return JSONResponse(content, 200 if ready else 503)


@router.get("/metrics")
def show_metrics(serving: Served, person: Annotator) -> Response:
    """Return numbers for Prometheus; no names."""
    status = serving.store.status()
    content = serving.metrics.render(
        jobs_queued=serving.jobs.count(State.QUEUED),
        jobs_running=serving.jobs.count(State.RUNNING),
        images=status["total"],
        labels_final=status["completed"],
        models_ready=len(serving.app.loading.ready),
    )
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/")
def show_page(serving: Served) -> HTMLResponse:
    """Return the page for people: what is served, and how to connect."""
    headers = {"Content-Security-Policy": NO_RESOURCES, "Cache-Control": "no-store"}
    return HTMLResponse(render_page(serving), headers=headers)
