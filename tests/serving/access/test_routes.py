"""Every route of the server has a role, and asks for it before it does anything else."""

import http.client
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.routing import iter_route_contexts

from heatmask.serving.access import Role, find_folder
from heatmask.serving.access.users import open_users
from heatmask.serving.web import create_app
from helpers.web import Web, run_web

OPEN = {
    ("GET", "/"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/auth/"),
    ("POST", "/auth/token"),
}  # fmt: skip
REVIEWER = {
    ("DELETE", "/datastore/label"), ("GET", "/datastore/label/versions"),
    ("POST", "/datastore/label/restore"),
}  # fmt: skip
ADMIN = {
    (method, path)
    for method in ("POST", "DELETE")
    for path in ("/batch/infer/", "/batch/infer", "/batch/infer/x", "/train/", "/train", "/train/x")
}


@pytest.fixture(scope="module")
def web(tmp_path_factory, store_of_users) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("routes")
    access = find_folder(folder / "work")
    access.mkdir(parents=True)
    shutil.copy(store_of_users, access)
    with run_web(folder) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(web) -> dict[Role, str]:
    users = web.serving.access.users
    return {role: users.make_token(f"the.{role}", "test", 1) for role in Role}


@pytest.fixture(scope="module")
def routes(web) -> list[tuple[str, str]]:
    """Every method and path of the application, with ``x`` for what is a part of a path."""
    found = {
        (method, re.sub(r"\{[^}]*\}", "x", route.path or ""))
        for route in iter_route_contexts(create_app(web.serving).routes)
        for method in route.methods or ["GET"]
        if method != "HEAD"
    }
    assert len(found) > 30
    return sorted(found)


def find_role(route: tuple[str, str]) -> Role:
    if route in ADMIN:
        return Role.ADMIN
    return Role.REVIEWER if route in REVIEWER else Role.ANNOTATOR


def test_there_are_the_routes_that_roles_are_given_to(routes):
    assert set(routes) >= OPEN | REVIEWER
    assert ADMIN & set(routes)


def test_without_a_token_only_five_routes_answer(web, routes):
    before = web.list_files()
    for method, path in routes:
        answer = web.send(method, path, data=b"{")
        if (method, path) in OPEN:
            assert answer.status_code not in (401, 403), path
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert web.list_files() == before


@pytest.mark.parametrize("role", list(Role))
def test_a_route_lets_in_who_has_its_role(web, routes, tokens, role):
    headers = {"Authorization": f"Bearer {tokens[role]}"}
    for route in set(routes) - OPEN:
        answer = web.send(*route, headers=headers)
        allowed = role.includes(find_role(route))
        assert (answer.status_code not in (401, 403)) == allowed, (*route, answer.text)
        if not allowed:
            assert f"This needs the role {find_role(route)}" in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/datastore/image?image=x"), ("PUT", "/datastore/label?image=p1-flair"),
     ("POST", "/infer/stub_segmentation"), ("PUT", "/session/")],
)  # fmt: skip
def test_nothing_is_read_of_who_is_not_let_in(web, method, path):
    """A stranger could otherwise fill the disk: the answer comes before a byte of the file."""
    place = urlsplit(web.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.putrequest(method, path)
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", str(500_000_000))
    connection.endheaders()
    assert connection.getresponse().status == 401


def test_what_people_do_is_in_the_audit_log(web, tokens):
    headers = {"Authorization": f"Bearer {tokens[Role.ANNOTATOR]}"}
    answer = web.send("POST", "/activelearning/first", headers=headers)
    image = answer.json()["id"]
    web.send("GET", f"/datastore/image?image={image}", headers=headers)
    web.send("POST", f"/infer/stub_segmentation?image={image}", headers=headers)
    lines = [
        json.loads(line) for line in web.serving.audit.path.read_text(encoding="ascii").splitlines()
    ]
    own = [line for line in lines if line["person"] == "the.annotator" and line["image"] == image]
    assert [line["action"] for line in own] == ["next sample", "fetch image", "infer"]
    web.send("PUT", "/datastore/label?image=Doe^John", headers=headers, data=b"none")
    last = json.loads(web.serving.audit.path.read_text(encoding="ascii").splitlines()[-1])
    assert (last["person"], last["result"]) == ("the.annotator", "refused")
    assert last["action"] == "PUT /datastore/label"
    assert "Doe" not in str(last)


def test_the_page_shows_no_names_to_strangers(web):
    page = web.send("GET", "/").text
    for name in ("p1-flair", "the.annotator", str(Path(web.studies).parent)):
        assert name not in page


def test_a_foreign_page_starts_nothing(web, routes):
    for method, path in routes:
        answer = web.send(method, path, headers={"Origin": "https://evil.com"}, data=b"")
        assert answer.status_code == 403, path
        assert web.send(method, path, headers={"Host": "evil.com"}).status_code == 403, path


def test_users_of_the_command_line_are_those_of_the_server(web):
    work = web.serving.access.users.path.parent.parent
    assert open_users(work).list_users() == web.serving.access.users.list_users()
