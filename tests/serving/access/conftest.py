"""An application with nothing but log-in and three routes, one for each role."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

pytest.importorskip("argon2", reason="needs the extra 'serve'")

from fastapi import Depends, FastAPI
from monailabel.client.client import MONAILabelClient

from heatmask.serving.access import (
    Access,
    AccessSettings,
    Audit,
    Person,
    Role,
    check_exposure,
    install,
    list_middleware,
    make_uvicorn_options,
    require,
)
from heatmask.serving.access.users import Users
from helpers.oidc import PASSWORD
from helpers.site import run_site


@dataclass
class Site:
    """A running application."""

    url: str
    access: Access
    audit: Audit
    client: MONAILabelClient


def make_app(settings: AccessSettings, access: Access, audit: Audit) -> FastAPI:
    app = FastAPI(middleware=list_middleware(settings))
    install(app, access, audit)

    @app.get("/info/")
    def show_info(person: Annotated[Person, Depends(require(Role.ANNOTATOR))]) -> dict[str, Any]:
        return {"person": person.name, "role": person.role}

    @app.post("/versions")
    def restore(person: Annotated[Person, Depends(require(Role.REVIEWER))]) -> str:
        return person.name

    @app.post("/train")
    def train(person: Annotated[Person, Depends(require(Role.ADMIN))]) -> str:
        return person.name

    return app


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return a function that starts the application with settings."""
    with ExitStack() as stack:

        def run(**changes: Any) -> Site:
            settings = AccessSettings(**changes)
            access, audit = Access(settings, tmp_path / "access"), Audit(tmp_path / "access")
            check_exposure(settings, access.enabled)
            app = make_app(settings, access, audit)
            port = stack.enter_context(run_site(app, **make_uvicorn_options(settings)))
            url = f"{'https' if settings.tls_cert else 'http'}://127.0.0.1:{port}"
            return Site(url, access, audit, MONAILabelClient(url, tmpdir=str(tmp_path)))

        yield run


@pytest.fixture(scope="session")
def store_of_users(tmp_path_factory) -> Path:
    """A user of each role: made once, as a hash takes its time."""
    users = Users(tmp_path_factory.mktemp("users") / "users.sqlite")
    for role in Role:
        users.add(f"the.{role}", role, PASSWORD)
    return users.path


@pytest.fixture
def users(store_of_users: Path, tmp_path: Path) -> Users:
    """A copy of them where `start` looks for users."""
    (tmp_path / "access").mkdir()
    return Users(Path(shutil.copy(store_of_users, tmp_path / "access")))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
         "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"tls_cert": cert, "tls_key": key}
