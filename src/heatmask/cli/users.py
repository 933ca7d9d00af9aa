"""`heatmask users`: who may log in to the server."""

import getpass
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from heatmask.command_line import console
from heatmask.errors import OptionError

if TYPE_CHECKING:
    from heatmask.serving.access.person import Role
    from heatmask.serving.access.users import Users

users = typer.Typer(
    name="users",
    help="Users of the server, their roles and tokens. As soon as there is one, `heatmask serve` "
    "asks everybody to log in. Annotators correct masks; reviewers also bring back earlier "
    "versions and remove labels; admins also start batches and training.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The user's name: lower-case letters, digits, . _ @ -")]
RoleName = Annotated[str, typer.Option("--role", help="annotator, reviewer or admin.")]
Label = Annotated[str, typer.Argument(help="What the token is for, as in nightly-batch.")]
Workdir = Annotated[
    Path, typer.Option("--workdir", help="The work folder that the server is started with.")
]
WORK = Path("work/serve")


@users.command()
def add(
    name: Name,
    role: RoleName = "annotator",
    tokens_only: Annotated[
        bool, typer.Option("--tokens-only", help="No password: a user for scripts.")
    ] = False,
    workdir: Workdir = WORK,
) -> None:
    """Add a user; the password is asked for twice, or read from a pipe."""
    store, as_role = _open(workdir), _read_role(role)
    first = not store.list_users()
    store.add(name, as_role, None if tokens_only else _ask_password())
    _note(workdir, "add user", name, role=as_role)
    console.print(f"{escape(name)} may log in as {as_role}.")
    if first:
        console.print("From its next start on, the server asks everybody to log in.")


@users.command("list")
def list_users(workdir: Workdir = WORK) -> None:
    """List the users with their roles and personal tokens."""
    store = _open(workdir)
    for person in store.list_users():
        console.print(f"{escape(person.name)}: {person.role}")
        for token in store.list_tokens(person.name):
            day = datetime.fromtimestamp(token.expires).date()
            console.print(f"    token {escape(token.name)}, until {day}")


@users.command()
def remove(name: Name, workdir: Workdir = WORK) -> None:
    """Remove a user, who is logged out at once. What the user submitted stays."""
    _open(workdir).remove(name)
    _note(workdir, "remove user", name)


@users.command()
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="annotator, reviewer or admin.")],
    workdir: Workdir = WORK,
) -> None:
    """Give a user another role; it holds at once."""
    as_role = _read_role(role)
    _open(workdir).set_role(name, as_role)
    _note(workdir, "set role", name, role=as_role)


@users.command()
def password(name: Name, workdir: Workdir = WORK) -> None:
    """Set another password; whoever is logged in with the earlier one is logged out."""
    _open(workdir).set_password(name, _ask_password())
    _note(workdir, "set password", name)


@users.command()
def token(
    name: Name,
    label: Label,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="How long it is valid.")] = 90,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Make the token of this name worthless instead.")
    ] = False,
    workdir: Workdir = WORK,
) -> None:
    """Make a personal token for a script, and print it; it cannot be shown again.

    The script sends it with each request: `Authorization: Bearer TOKEN`.
    """
    store = _open(workdir)
    if revoke:
        store.revoke_token(name, label)
        _note(workdir, "revoke token", name)
    else:
        print(store.make_token(name, label, 24 * days))  # alone, and never folded
        _note(workdir, "make token", name)


def _open(workdir: Path) -> "Users":
    from heatmask.serving.access.users import open_users

    return open_users(workdir)


def _note(workdir: Path, action: str, user: str, role: str | None = None) -> None:
    """Put into the audit log what was done, and by which user of this machine."""
    from heatmask.serving.access.audit import Audit
    from heatmask.serving.access.users import find_folder

    facts = {"user": user, "client": f"command line of {getpass.getuser()}"}
    Audit(find_folder(workdir)).record(None, action, **facts, **({"role": role} if role else {}))


def _read_role(text: str) -> "Role":
    from heatmask.serving.access.person import Role

    try:
        return Role(text)
    except ValueError as error:
        raise OptionError(f"A role is one of {', '.join(Role)}, got {text!r}.") from error


def _ask_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
