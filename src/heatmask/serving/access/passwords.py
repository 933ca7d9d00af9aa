"""Passwords as argon2id hashes (RFC 9106, its second choice: 64 MiB, 3 passes)."""

import base64
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from heatmask.errors import OptionError

SHORTEST = 12
LONGEST = 1024
_HASHER = PasswordHasher()


def hash_password(password: str) -> str:
    """Return what is stored of a password.

    Raises
    ------
    OptionError
        The password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise OptionError(
            f"A password has {SHORTEST} to {LONGEST} characters, got {len(password)}. "
            "Several words in a row are easy to remember."
        )
    return _HASHER.hash(password)


def verify_password(hashed: str | None, password: str) -> bool:
    """Return whether this is the password; without a hash it takes as long, and is not."""
    try:
        _HASHER.verify(hashed or _NOBODYS, password[:LONGEST])
    except VerificationError:
        return False
    return hashed is not None and len(password) <= LONGEST


def _make_nobodys() -> str:
    """Return a hash that no password has and that costs as much to check as any."""
    cost = f"m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (_HASHER.salt_len, _HASHER.hash_len)
    )
    return f"$argon2id$v=19${cost}${salt}${digest}"


_NOBODYS = _make_nobodys()
