"""The page at /: what is served, how far the studies are, and how to connect."""

from heatmask.bundle import BundleInfo
from heatmask.files import render
from heatmask.serving.web.jobs import State
from heatmask.serving.web.serving import Serving


def render_page(serving: Serving) -> str:
    """Return the page; with log-in it says nothing of studies and people."""
    app, anonymous = serving.app, not serving.access.enabled
    leases = serving.store.list_leases() if anonymous else {}
    return render(
        __package__,
        "page.html.j2",
        address=serving.address,
        version=app.version,
        description=app.description,
        models=[
            {
                "name": name,
                "description": task.description,
                "licence": task.license_text,
                "dice": _describe_dice(app.evidence.get(name)),
                "state": "ready" if name in app.loading.ready else "loading",
            }
            for name, task in app.models.items()
        ],
        failures=dict(app.loading.failures),
        status=serving.store.status() if anonymous else None,
        people=sorted(f"{client.rstrip('/')}: {image}" for image, client in leases.items()),
        waiting=serving.waiting if anonymous else "",
        log_in=serving.access.enabled,
        queued=serving.jobs.count(State.QUEUED),
        running=serving.jobs.count(State.RUNNING),
    )


def _describe_dice(bundle: BundleInfo | None) -> str:
    return str(bundle.best) if bundle and bundle.best else "not measured"
