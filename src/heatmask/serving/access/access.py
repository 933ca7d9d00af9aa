"""Who sends a request: by one of our tokens, or by one of a provider of OpenID Connect."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from heatmask.errors import OutputError
from heatmask.serving.access.attempts import Attempts, find_network
from heatmask.serving.access.oidc import Provider
from heatmask.serving.access.person import ANONYMOUS, AccessError, Person
from heatmask.serving.access.settings import AccessSettings
from heatmask.serving.access.users import TOKEN_START, USERS_FILE, Users

logger = logging.getLogger(__name__)

WINDOW_S = 300


class Access:
    """Who may use a server.

    Log-in is needed if there are users, or if a provider of OpenID Connect is set. That is decided
    once, at the start: removing the last user does not open a running server.

    Parameters
    ----------
    settings
        The server's settings.
    folder
        Where the store of users lies.

    Attributes
    ----------
    enabled : bool
        Whether log-in is needed.
    """

    def __init__(self, settings: AccessSettings, folder: Path) -> None:
        self.settings = settings
        self.users = Users(folder / USERS_FILE)
        self.provider = Provider(settings.oidc) if settings.oidc else None
        self.enabled = self.provider is not None or bool(self.users.list_users())
        self._by_user = Attempts(10, WINDOW_S)
        self._by_address = Attempts(30, WINDOW_S)
        self._tokens_by_address = Attempts(100, WINDOW_S)

    def identify(self, authorization: str | None, address: str) -> Person:
        """Return who sends a request.

        Parameters
        ----------
        authorization
            The header of this name, as in ``Bearer heatmask_...``.
        address
            Where it comes from.

        Raises
        ------
        AccessError
            401 without a valid token, 403 without a role, 429 after too many wrong tokens from an
            address, 503 if the store or the provider does not answer.
        """
        if not self.enabled:
            return ANONYMOUS
        kind, _, token = (authorization or "").partition(" ")
        if kind.casefold() != "bearer" or not token.strip():
            raise AccessError(401, "Log in first: this server needs a token.")
        try:
            return self._read_token(token.strip())
        except AccessError as error:
            # A valid token is looked up first, so that nobody can be shut out by others' failures.
            if error.status == 401:
                self._tokens_by_address.count(find_network(address))
            raise

    def log_in(self, name: str, password: str, address: str) -> tuple[Person, str]:
        """Check a password; return who it is and a new token.

        Raises
        ------
        AccessError
            401 if name and password do not belong together, 429 after too many failures of the
            user or from the address, otherwise as `identify`.
        """
        user, network = name.casefold()[:128], find_network(address)
        with self._by_address.attempt(network), self._by_user.attempt(user):
            token = self._check_password(name, password)
            return self._read_token(token), token

    def _read_token(self, token: str) -> Person:
        if token.startswith(TOKEN_START):
            with _as_unavailable():
                person = self.users.find(token)
        elif self.provider:
            person = self.provider.read_token(token)
            with _as_unavailable():
                if self.users.has(person.name.casefold()):
                    raise AccessError(403, f"{person.name} is the name of a user of this server.")
        else:
            person = None
        if person is None:
            raise AccessError(401, "Log in again: the token is unknown, or has expired.")
        return person

    def knows(self, name: str) -> bool:
        """Return whether a name may be written down: a password typed in its place may not."""
        with suppress(OutputError):
            return self.provider is not None or self.users.has(name.casefold())
        return False

    def _check_password(self, name: str, password: str) -> str:
        if self.provider:
            return self.provider.log_in(name, password)
        with _as_unavailable():
            token = self.users.log_in(name, password, self.settings.token_hours)
        if token is None:
            raise AccessError(401, "Name and password do not belong together.")
        return token


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        logger.error("%s", error)  # with its path, which is nobody else's business
        raise AccessError(503, "The store of users cannot be used now.", 5) from error
