"""Tokens of a provider of OpenID Connect, such as Keycloak."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from joserfc.jwt import JWTClaimsRegistry

from heatmask.errors import OptionError
from heatmask.serving.access.person import AccessError, Person, Role
from heatmask.serving.access.settings import OidcSettings, check_provider_url

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
MAX_BYTES = 1_000_000
LEEWAY_S = 30
LONGEST_NAME = 128


class Provider:
    """A provider: its keys, its tokens, its log-in by password.

    Keys are fetched when a token names one that is not known, at most once a `pause_s`, and anew
    after `max_age_s`, so that a key which the provider withdrew is soon worthless.

    References
    ----------
    OpenID Connect Discovery 1.0; RFC 7517 (JWK), RFC 7519 (JWT), RFC 8725 (their safe use).
    """

    def __init__(
        self,
        settings: OidcSettings,
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = 30,
        max_age_s: float = 600,
    ) -> None:
        self.settings = settings
        self._clock, self._pause_s, self._max_age_s = clock, pause_s, max_age_s
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._token_endpoint = ""
        self._tried = self._fetched = -float("inf")
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False)

    def read_token(self, token: str) -> Person:
        """Return whose token this is.

        Raises
        ------
        AccessError
            401: not a valid token of this provider for this server; 403: the person has none of
            our roles; 503: the provider does not answer and its keys are not known.
        """
        try:
            claims = self._decode(token)
            self._check(claims)
        except (JoseError, ValueError) as error:
            logger.warning("A token was refused: %s: %s", type(error).__name__, error)
            raise AccessError(401, "Log in again: the token is wrong or has expired.") from None
        return self._find_person(claims)

    def log_in(self, name: str, password: str) -> str:
        """Hand name and password on to the provider, and return its access token, checked.

        Raises
        ------
        AccessError
            As `read_token`; 401 also if the provider refuses.
        """
        self.update_keys()
        form = {
            "grant_type": "password",
            "client_id": self.settings.client_id,
            "username": name,
            "password": password,
            "scope": "openid",
        }
        if self.settings.client_secret:
            form["client_secret"] = self.settings.client_secret
        status, answer = self._request("POST", self._token_endpoint, form)
        token = answer.get("access_token")
        if status != 200 or not isinstance(token, str):
            reason = answer.get("error")
            logger.warning("The provider refused a log-in: %s, %s", status, reason)
            if status < 500 and reason in (None, "invalid_grant"):
                raise AccessError(401, "The provider does not take this name and password.")
            raise AccessError(503, f"The provider of OpenID Connect refuses log-ins: {reason}.")
        try:
            self.read_token(token)
        except AccessError as error:
            if error.status == 401:
                raise AccessError(
                    503,
                    "The provider's token is not made out for this server; the server's log says "
                    "why. Often its audience is missing.",
                ) from error
            raise
        return token

    def update_keys(self, kid: str | None = None) -> None:
        """Fetch the provider's keys if they are old, or if the key `kid` is not among them.

        Raises
        ------
        AccessError
            503: the provider does not answer, and no keys are known.
        """
        known = self._keys is not None and (kid is None or any(k.kid == kid for k in self._keys))
        if known and self._clock() - self._fetched <= self._max_age_s:
            return
        # Whoever has a key need not wait for somebody else's fetching.
        if not self._lock.acquire(blocking=not known):
            return
        try:
            if self._clock() - self._tried >= self._pause_s:
                self._tried = self._clock()
                self._fetch_keys()
                self._fetched = self._tried
        except (JoseError, OptionError, AccessError, KeyError, TypeError, ValueError) as error:
            logger.warning("No keys from %s: %s", self.settings.issuer, error)
        finally:
            self._lock.release()
        if self._keys is None:
            raise AccessError(503, "The provider of OpenID Connect does not answer.", self._pause_s)

    def _decode(self, token: str) -> Mapping[str, Any]:
        header = extract_compact(token.encode("ascii")).headers()
        kid = header.get("kid")
        self.update_keys(kid if isinstance(kid, str) else None)
        if self._keys is None or (kid is None and len(self._keys.keys) != 1):
            raise InvalidKeyIdError
        return jwt.decode(token, self._keys, algorithms=list(self.settings.algorithms)).claims

    def _check(self, claims: Mapping[str, Any]) -> None:
        settings = self.settings
        JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience or settings.client_id},
            exp={"essential": True},
        ).validate(dict(claims))
        # Keycloak says of each token what it is for: an ID token or a refresh token is no access.
        if claims.get("typ", "Bearer") != "Bearer":
            raise ValueError("not an access token")

    def _find_person(self, claims: Mapping[str, Any]) -> Person:
        name = claims.get(self.settings.name_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            raise AccessError(403, f"The token's {self.settings.name_claim!r} is not a name.")
        if "/" in name:  # It divides the person from the program in the names of clients.
            raise AccessError(403, "A user's name cannot contain '/'.")
        given = _find_claim(claims, self.settings.role_claim)
        given = given if isinstance(given, list) else [given]
        roles = [role for role in Role if self.settings.role_prefix + role in given]
        if not roles:
            wanted = ", ".join(self.settings.role_prefix + role for role in Role)
            raise AccessError(403, f"{name} has none of the roles {wanted}.")
        return Person(name, roles[-1])

    def _fetch_keys(self) -> None:
        issuer = self.settings.issuer
        found = self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found["issuer"] != issuer:
            raise OptionError(f"the provider calls itself {found['issuer']!r}")
        for name in ("jwks_uri", "token_endpoint"):
            check_provider_url(name, found[name])
        keys = [
            key
            for key in self._get(found["jwks_uri"])["keys"]
            if isinstance(key, dict)
            and key.get("kty") in ("RSA", "EC", "OKP")
            and key.get("use", "sig") == "sig"
        ]
        self._keys = KeySet.import_key_set({"keys": keys})
        self._token_endpoint = found["token_endpoint"]

    def _get(self, url: str) -> dict[str, Any]:
        status, answer = self._request("GET", url)
        if status != 200:
            raise ValueError(f"{url} answers {status}")
        return answer

    def _request(
        self, method: str, url: str, form: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            with self._client.stream(method, url, data=form) as response:
                body = b""
                for part in response.iter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise AccessError(503, "The provider's answer is too long.")
            answer = json.loads(body)
        except httpx.HTTPError as error:
            logger.warning("The provider does not answer: %s", error)
            raise AccessError(
                503, "The provider of OpenID Connect does not answer.", self._pause_s
            ) from None
        except ValueError:
            answer = {}
        return response.status_code, answer if isinstance(answer, dict) else {}


def _find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by the way to it: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
