"""Users, their passwords and their tokens, in one sqlite file of its own."""

import hashlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from heatmask.errors import OptionError, OutputError
from heatmask.serving.access.passwords import hash_password, verify_password
from heatmask.serving.access.person import Person, Role

USERS_FILE = "users.sqlite"
VERSION = 1
TOKEN_START = "heatmask_"  # Tells ours from a provider's, also to scanners for secrets
NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
SCHEMA = f"""
CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    password TEXT,              -- argon2id; NULL: tokens only
    created REAL NOT NULL
) STRICT;
CREATE TABLE tokens (
    digest BLOB PRIMARY KEY,    -- SHA-256; a token has 256 random bits, so it needs no salt
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    name TEXT,                  -- NULL: from a log-in
    created REAL NOT NULL,
    expires REAL NOT NULL,
    UNIQUE (user, name)
) STRICT;
PRAGMA user_version = {VERSION};
"""


def find_folder(work: Path) -> Path:
    """Return where users and audit log lie in a work folder of the server."""
    return work / "access"


def open_users(work: Path) -> "Users":
    """Open the users of a work folder."""
    return Users(find_folder(work) / USERS_FILE)


@dataclass(frozen=True)
class Token:
    """What is known of a personal token; times in seconds since 1970."""

    name: str
    created: float
    expires: float


class Users:
    """The users of a work folder.

    Each call opens the file anew, so that the command line and a running server can share it.

    Parameters
    ----------
    path
        The sqlite file. It is made if missing, for its owner alone (0600, its folder 0700).

    Raises
    ------
    OutputError
        The file cannot be made, read or written, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explain(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
            path.chmod(0o600)
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
            elif version != VERSION:
                raise OutputError(f"{path} was written by a later version of Heatmask.")

    def list_users(self) -> list[Person]:
        """Return all users by name."""
        with self._open() as connection:
            rows = connection.execute("SELECT name, role FROM users ORDER BY name").fetchall()
        return [Person(name, Role(role)) for name, role in rows]

    def add(self, name: str, role: Role, password: str | None) -> None:
        """Add a user; without a password only tokens let that user in.

        Raises
        ------
        OptionError
            The name is taken or not a name, or the password is too short.
        """
        if not NAME.fullmatch(name):
            raise OptionError(
                "A user's name has up to 64 lower-case letters, digits, '.', '_', '@' and '-', "
                f"got {name!r}."
            )
        hashed = None if password is None else hash_password(password)
        with self._open() as connection:
            try:
                connection.execute(
                    "INSERT INTO users VALUES (?, ?, ?, ?)", (name, role, hashed, time.time())
                )
            except sqlite3.IntegrityError as error:
                raise OptionError(f"There is a user {name} already.") from error

    def remove(self, name: str) -> None:
        """Remove a user and all tokens of that user."""
        self._change(name, "DELETE FROM users WHERE name = ?", name)

    def set_role(self, name: str, role: Role) -> None:
        """Give a user another role, which holds from the next request on."""
        self._change(name, "UPDATE users SET role = ? WHERE name = ?", role, name)

    def set_password(self, name: str, password: str) -> None:
        """Set a password; whoever was logged in with the old one is logged out.

        Personal tokens stay: scripts do not log in.
        """
        hashed = hash_password(password)
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            done = connection.execute(
                "UPDATE users SET password = ? WHERE name = ?", (hashed, name)
            )
            _check_found(done, name)
            connection.execute("DELETE FROM tokens WHERE user = ? AND name IS NULL", (name,))

    def log_in(self, name: str, password: str, hours: float) -> str | None:
        """Return a new token if this is the user's password, else None.

        An unknown name takes as long as a wrong password.
        """
        name = name.casefold()
        with self._open() as connection:
            row = connection.execute(
                "SELECT password FROM users WHERE name = ?", (name,)
            ).fetchone()
        known = row[0] if row else None
        if not verify_password(known, password):
            return None
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM tokens WHERE expires < ?", (time.time(),))
            # Only if the password is still the one that was checked.
            return self._issue(connection, name, hours, password=known)

    def make_token(self, name: str, label: str, hours: float) -> str:
        """Return a new personal token of a user, for scripts. It cannot be shown again.

        Raises
        ------
        OptionError
            There is no such user, or there is a token with this label.
        """
        if not label.strip() or len(label) > 64 or not label.isprintable():
            raise OptionError(f"A token's name has 1 to 64 printable characters, got {label!r}.")
        with self._open() as connection:
            try:
                token = self._issue(connection, name, hours, label)
            except sqlite3.IntegrityError as error:
                raise OptionError(
                    f"{name} has a token {label!r} already. Revoke it first, or take another name."
                ) from error
        if token is None:
            raise OptionError(f"There is no user {name}.")
        return token

    def list_tokens(self, name: str) -> list[Token]:
        """Return the personal tokens of a user, also expired ones."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT name, created, expires FROM tokens "
                "WHERE user = ? AND name IS NOT NULL ORDER BY created",
                (name,),
            ).fetchall()
        return [Token(*row) for row in rows]

    def revoke_token(self, name: str, label: str) -> None:
        """Make a personal token worthless.

        Raises
        ------
        OptionError
            There is no such token.
        """
        with self._open() as connection:
            done = connection.execute(
                "DELETE FROM tokens WHERE user = ? AND name = ?", (name, label)
            )
        if not done.rowcount:
            raise OptionError(f"{name} has no token {label!r}.")

    def find(self, token: str) -> Person | None:
        """Return whose token this is, or None if it is unknown or has expired."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT users.name, role FROM tokens JOIN users ON users.name = tokens.user "
                "WHERE digest = ? AND expires > ?",
                (_digest(token), time.time()),
            ).fetchone()
        return Person(row[0], Role(row[1])) if row else None

    def has(self, name: str) -> bool:
        """Return whether there is a user of this name."""
        with self._open() as connection:
            return bool(
                connection.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone()
            )

    def _issue(
        self,
        connection: sqlite3.Connection,
        name: str,
        hours: float,
        label: str | None = None,
        *,
        password: str | None = None,
    ) -> str | None:
        token = TOKEN_START + secrets.token_urlsafe(32)
        now = time.time()
        done = connection.execute(
            "INSERT INTO tokens SELECT ?, name, ?, ?, ? FROM users "
            "WHERE name = ? AND (? IS NULL OR password = ?)",
            (_digest(token), label, now, now + 3600 * hours, name, password, password),
        )
        return token if done.rowcount else None

    def _change(self, name: str, statement: str, *values: str) -> None:
        with self._open() as connection:
            _check_found(connection.execute(statement, values), name)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file; what the block did is kept if it ends well, else undone."""
        with _explain(self.path), closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                yield connection


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _check_found(done: sqlite3.Cursor, name: str) -> None:
    if not done.rowcount:
        raise OptionError(f"There is no user {name}.")


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"The store of users {path} cannot be used: {error}.") from error
