"""Who may use the server, and how it may be reached.

::

    person      roles, persons, the refusal
    settings    what `heatmask serve` is given: host, certificate, proxies, OpenID Connect
    users       users and tokens in a sqlite file
    passwords   as argon2id hashes
    oidc        tokens of a provider such as Keycloak
    attempts    how often somebody may fail
    access      who sends a request
    routes      /auth, and the role that a route needs
    guard       Host, Origin and proxies, before anything else
    exposure    where the server may listen
    audit       who did what to which image

A server is made of them so::

    folder = find_folder(work)
    access, audit = Access(settings, folder), Audit(folder)
    check_exposure(settings, access.enabled)
    app = FastAPI(middleware=list_middleware(settings))
    install(app, access, audit)

    @app.get("/info/")
    def show_info(person: Annotated[Person, Depends(require(Role.ANNOTATOR))]): ...

    uvicorn.run(app, port=port, **make_uvicorn_options(settings))
"""

from heatmask.serving.access.access import Access
from heatmask.serving.access.audit import Audit
from heatmask.serving.access.exposure import check_exposure, list_middleware, make_uvicorn_options
from heatmask.serving.access.guard import HostGuard
from heatmask.serving.access.person import ANONYMOUS, AccessError, Person, Role
from heatmask.serving.access.routes import install, require, router
from heatmask.serving.access.settings import AccessSettings, OidcSettings, read_oidc
from heatmask.serving.access.users import find_folder

__all__ = [
    "ANONYMOUS", "Access", "AccessError", "AccessSettings", "Audit", "HostGuard", "OidcSettings",
    "Person", "Role", "check_exposure", "find_folder", "install", "list_middleware",
    "make_uvicorn_options", "read_oidc", "require", "router",
]  # fmt: skip
