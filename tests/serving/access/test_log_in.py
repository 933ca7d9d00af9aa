"""Log-in as MONAI Label's client and the plugin of 3D Slicer do it, over real HTTP."""

import json
import stat

import pytest
import requests
from monailabel.client.client import MONAILabelClientException

from heatmask.serving.access.access import Access
from heatmask.serving.access.person import Role
from heatmask.serving.access.settings import AccessSettings
from helpers.oidc import PASSWORD


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_users_everybody_on_this_machine_may_do_all(start):
    site = start()
    assert not site.client.auth_enabled()
    assert site.client.auth_valid_token()
    assert site.client.auth_token("any", "thing") == {"access_token": None, "token_type": None}
    assert site.client.info() == {"person": "anonymous", "role": "admin"}
    assert requests.post(f"{site.url}/train", timeout=60).status_code == 200


def test_the_plugin_logs_in(start, users):
    site = start()
    assert site.client.auth_enabled()
    assert not site.client.auth_valid_token()
    with pytest.raises(MONAILabelClientException, match="401"):
        site.client.info()
    with pytest.raises(MONAILabelClientException, match="do not belong together"):
        site.client.auth_token("the.annotator", "wrong horse battery")
    token = site.client.auth_token("the.annotator", PASSWORD)
    site.client.update_auth(token)
    assert site.client.auth_valid_token()
    assert site.client.info() == {"person": "the.annotator", "role": "annotator"}


def test_a_name_is_found_however_it_is_spelled(start, users):
    token = start().client.auth_token("The.Annotator", PASSWORD)
    assert users.find(token["access_token"]).name == "the.annotator"


@pytest.mark.parametrize(
    ("role", "statuses"),
    [("annotator", (200, 403, 403)), ("reviewer", (200, 200, 403)), ("admin", (200, 200, 200))],
)
def test_a_role_includes_those_before_it(start, users, role, statuses):
    site = start()
    headers = bearer(site.client.auth_token(f"the.{role}", PASSWORD)["access_token"])
    answers = [
        requests.request(method, f"{site.url}{path}", headers=headers, timeout=60)
        for method, path in (("GET", "/info/"), ("POST", "/versions"), ("POST", "/train"))
    ]
    assert tuple(answer.status_code for answer in answers) == statuses
    if role == "annotator":
        assert answers[1].text == "This needs the role reviewer; the.annotator is annotator."


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "Basic dGhlLmFkbWluOng=", "Bearer heatmask_", "Bearer x.y.z",
        "Bearer heatmask_' OR 1=1 --", "Bearer \xff", "bearer " + "a" * 10_000,
    ],
)  # fmt: skip
def test_no_token_no_entry(start, users, header):
    headers = {"Authorization": header.encode("latin1")} if header else {}
    answer = requests.get(f"{start().url}/info/", headers=headers, timeout=60)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("name", "password"),
    [("nobody", PASSWORD), ("the.admin", ""), ("", ""), ("the.admin", PASSWORD + "\0"),
     ("the.admin' --", "x"), ("the.admin", PASSWORD * 1000), ("\U0001f512", "\ud83d\ude00")],
)  # fmt: skip
def test_wrong_names_and_passwords_are_refused_alike(start, users, name, password):
    data = {"username": name, "password": password.encode("utf-8", "replace")}
    answer = requests.post(f"{start().url}/auth/token", data=data, timeout=60)
    assert answer.status_code in (401, 422)  # 422: an empty field
    assert PASSWORD not in answer.text


def test_a_change_holds_at_once(start, users):
    site = start()
    headers = bearer(site.client.auth_token("the.annotator", PASSWORD)["access_token"])

    def status(path="/info/", method="GET") -> int:
        return requests.request(
            method, f"{site.url}{path}", headers=headers, timeout=60
        ).status_code

    users.set_role("the.annotator", Role.ADMIN)
    assert status("/train", "POST") == 200
    users.set_password("the.annotator", "another horse battery")
    assert status() == 401
    headers = bearer(users.make_token("the.annotator", "script", 1))
    assert status() == 200
    users.set_password("the.annotator", "yet another battery")
    assert status() == 200  # a script does not log in
    users.revoke_token("the.annotator", "script")
    assert status() == 401
    headers = bearer(users.make_token("the.annotator", "script", 1))
    users.remove("the.annotator")
    assert status() == 401
    for person in users.list_users():
        users.remove(person.name)
    assert status() == 401  # the last user's leaving opens nothing
    assert not Access(AccessSettings(), users.path.parent).enabled


def test_a_token_expires(start, users):
    site = start(token_hours=1e-7)
    token = site.access.users.log_in("the.admin", PASSWORD, 1e-7)
    assert requests.get(f"{site.url}/info/", headers=bearer(token), timeout=60).status_code == 401
    # ... and is cleared away by the next log-in
    users.log_in("the.admin", PASSWORD, 1)
    with users._open() as connection:
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (1,)


def test_log_ins_are_in_the_audit_log_without_secrets(start, users):
    site = start()
    with pytest.raises(MONAILabelClientException):
        site.client.auth_token("the.annotator", "wrong horse battery")
    token = site.client.auth_token("the.annotator", PASSWORD)["access_token"]
    requests.post(f"{site.url}/train", headers=bearer(token), timeout=60)
    text = site.audit.path.read_text(encoding="ascii")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["person"], line["action"], line["result"]) for line in lines] == [
        (None, "log in", "refused"), ("the.annotator", "log in", "done"),
        ("the.annotator", "POST /train", "refused"),
    ]  # fmt: skip
    assert lines[0]["user"] == "the.annotator"
    with pytest.raises(MONAILabelClientException):  # a password in the field of the name
        site.client.auth_token("Another.Horse.Battery", "the.annotator")
    text = site.audit.path.read_text(encoding="ascii")
    assert json.loads(text.splitlines()[-1])["user"] == "unknown"
    assert "horse" not in text.casefold()
    assert token not in text
    assert stat.S_IMODE(site.audit.path.stat().st_mode) == 0o600


def test_a_store_that_breaks_lets_nobody_in_and_names_no_path(start, users):
    site = start()
    token = site.client.auth_token("the.admin", PASSWORD)["access_token"]
    users.path.write_bytes(b"torn" * 1000)
    answer = requests.get(f"{site.url}/info/", headers=bearer(token), timeout=60)
    assert answer.status_code == 503
    assert str(users.path.parent) not in answer.text
    data = {"username": "the.admin", "password": PASSWORD}
    assert requests.post(f"{site.url}/auth/token", data=data, timeout=60).status_code == 503
