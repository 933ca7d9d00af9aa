"""Who asks, what that person may do, and the refusal."""

import math
from dataclasses import dataclass
from enum import StrEnum

from heatmask.errors import HeatmaskError


class Role(StrEnum):
    """What a person may do; each role includes those before it."""

    ANNOTATOR = "annotator"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Return whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Person:
    """Somebody who is known to the server."""

    name: str
    role: Role


ANONYMOUS = Person("anonymous", Role.ADMIN)
"""Whoever asks a server without log-in, which listens to its own machine alone."""


class AccessError(HeatmaskError):
    """A request is refused for who sends it, or for how often it failed.

    Attributes
    ----------
    status
        401 (not logged in), 403 (not allowed), 429 (too many failures) or 503 (the provider of
        OpenID Connect, or the store of users, does not answer).
    headers
        What belongs to the answer: ``WWW-Authenticate`` or ``Retry-After``.
    """

    def __init__(self, status: int, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers: dict[str, str] = {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
