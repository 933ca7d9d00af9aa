"""The store of users and the command that fills it."""

import json
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import HeatmaskError, OptionError, OutputError
from heatmask.serving.access import users as users_module
from heatmask.serving.access.passwords import verify_password
from heatmask.serving.access.person import Person, Role
from heatmask.serving.access.users import TOKEN_START, Users, open_users
from helpers.oidc import PASSWORD


def run(*arguments: str, stdin: str = "") -> str:
    result = CliRunner().invoke(app, ["users", *arguments], input=stdin)
    if isinstance(result.exception, HeatmaskError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_store_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "work" / "access" / "users.sqlite"
    Users(path).add("anna", Role.ADMIN, PASSWORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    Users(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_neither_passwords_nor_tokens_are_in_it(users):
    token = users.log_in("the.admin", PASSWORD, 1)
    personal = users.make_token("the.admin", "script", 1)
    content = users.path.read_bytes()
    assert b"$argon2id$v=19$m=65536,t=3" in content
    for secret in (PASSWORD, token, personal, token.removeprefix(TOKEN_START)):
        assert secret.encode() not in content
    assert token != personal
    assert len(token) >= len(TOKEN_START) + 43  # 256 bits


@pytest.mark.parametrize(
    ("name", "password", "text"),
    [*((name, PASSWORD, "lower-case") for name in ("Anna", "a/b", "", "a" * 65, "a\n", "-a")),
     ("anna", "short", "12 to 1024"), ("anna", "p" * 1025, "12 to 1024"),
     ("the.admin", PASSWORD, "already")],
)  # fmt: skip
def test_what_is_no_name_or_password_is_refused(users, name, password, text):
    before = users.list_users()
    with pytest.raises(OptionError, match=text):
        users.add(name, Role.ANNOTATOR, password)
    assert users.list_users() == before


def test_what_is_not_there_cannot_be_changed(users):
    for change in (
        lambda: users.remove("nobody"),
        lambda: users.set_role("nobody", Role.ADMIN),
        lambda: users.set_password("nobody", PASSWORD),
        lambda: users.make_token("nobody", "script", 1),
    ):
        with pytest.raises(OptionError, match="There is no user nobody"):
            change()
    with pytest.raises(OptionError, match="has no token 'script'"):
        users.revoke_token("the.admin", "script")
    users.make_token("the.admin", "script", 1)
    with pytest.raises(OptionError, match="already"):
        users.make_token("the.admin", "script", 1)


def test_a_user_without_password_cannot_log_in_with_any(users):
    users.add("nightly", Role.ANNOTATOR, None)
    for password in ("", "None", PASSWORD):
        assert users.log_in("nightly", password, 1) is None
    assert users.find(users.make_token("nightly", "cron", 1)) == Person("nightly", Role.ANNOTATOR)


def test_a_password_that_is_changed_meanwhile_lets_nobody_in(users, monkeypatch):
    def verify_slowly(hashed, password):
        right = verify_password(hashed, password)
        Users(users.path).set_password("the.admin", "another horse battery")
        return right

    monkeypatch.setattr(users_module, "verify_password", verify_slowly)
    assert users.log_in("the.admin", PASSWORD, 1) is None


def test_somebody_of_the_same_name_later_is_somebody_else(users):
    token = users.make_token("the.admin", "script", 1)
    users.remove("the.admin")
    users.add("the.admin", Role.ADMIN, None)
    assert users.find(token) is None


def test_many_at_once(users):
    """The command line and the server's threads share the file."""
    with ThreadPoolExecutor(8) as pool:
        tokens = list(
            pool.map(lambda n: Users(users.path).make_token("the.admin", f"t{n}", 1), range(40))
        )
    assert {users.find(token) for token in tokens} == {Person("the.admin", Role.ADMIN)}


def test_a_store_that_is_none_or_newer_is_refused(tmp_path):
    path = tmp_path / "users.sqlite"
    path.write_bytes(b"not a data base" * 100)
    with pytest.raises(OutputError, match="cannot be used"):
        Users(path)
    path.unlink()
    Users(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(OutputError, match="later version"):
        Users(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cannot be used"):
        Users(path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_command(tmp_path):
    work = ("--workdir", str(tmp_path))
    text = run("add", "anna", "--role", "admin", *work, stdin=f"{PASSWORD}\n")
    assert text.splitlines() == [
        "anna may log in as admin.",
        "From its next start on, the server asks everybody to log in.",
    ]
    run("add", "nightly", "--tokens-only", *work)
    token = run("token", "nightly", "cron", "--days", "7", *work).strip()
    store = open_users(tmp_path)
    assert store.find(token) == Person("nightly", Role.ANNOTATOR)
    assert store.log_in("anna", PASSWORD, 1)
    listed = run("list", *work).splitlines()
    assert listed[:2] == ["anna: admin", "nightly: annotator"]
    assert listed[2].startswith("    token cron, until 20")
    run("role", "nightly", "reviewer", *work)
    run("password", "anna", *work, stdin="another horse battery\n")
    assert store.log_in("anna", "another horse battery", 1)
    run("token", "nightly", "cron", "--revoke", *work)
    assert store.find(token) is None
    run("remove", "anna", *work)
    assert store.list_users() == [Person("nightly", Role.REVIEWER)]
    lines = (tmp_path / "access/audit.jsonl").read_text("ascii").splitlines()
    noted = [(line["action"], line["user"]) for line in map(json.loads, lines)]
    assert noted == [
        ("add user", "anna"), ("add user", "nightly"), ("make token", "nightly"),
        ("set role", "nightly"), ("set password", "anna"), ("revoke token", "nightly"),
        ("remove user", "anna"),
    ]  # fmt: skip
    assert json.loads(lines[0])["role"] == "admin"
    assert json.loads(lines[0])["client"].startswith("command line of ")
    with pytest.raises(OptionError, match="annotator, reviewer, admin, got 'boss'"):
        run("role", "nightly", "boss", *work)
    with pytest.raises(OptionError, match="12 to 1024"):
        run("add", "otto", *work)


def test_the_command_takes_no_password_as_an_argument_and_imports_no_torch(tmp_path):
    """An argument could be read by everybody on the machine, and from the shell's history."""
    code = (
        "import sys; from heatmask.cli import app\n"
        "app(['users', 'list', '--workdir', sys.argv[1]], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert 'monailabel' not in sys.modules, 'monailabel'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    for command in ("add", "password"):
        assert "--password" not in run(command, "--help").replace("--password-", "")
