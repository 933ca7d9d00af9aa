"""A small provider of OpenID Connect: discovery, keys, log-in by password, on a real port."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Form
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from helpers.server import find_free_port
from helpers.site import run_site

PASSWORD = "correct horse battery"


class OidcProvider:
    """A realm of Keycloak's shape.

    Attributes
    ----------
    keys
        Of signatures; the last one signs.
    requests
        The paths that were asked for.
    """

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}/realms/research"
        self.keys = [self._new_key("k1")]
        self.roles = {"anna": ["heatmask-reviewer", "admin"], "nina": ["offline_access"]}
        self.audience: Any = ["account", "heatmask"]
        self.requests: list[str] = []
        self.answers = True
        self.app = self._make_app()

    def rotate(self, kid: str) -> None:
        """Sign with another key from now on; the earlier ones are withdrawn."""
        self.keys = [self._new_key(kid)]

    def claims(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return what a token says; a change to None leaves the claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": self.audience, "sub": f"id-of-{name}", "typ": "Bearer",
            "iat": now, "exp": now + 300, "preferred_username": name,
            "realm_access": {"roles": self.roles.get(name, [])},
        } | changes  # fmt: skip
        return {key: value for key, value in claims.items() if value is not None}

    def token(self, name: str, **changes: Any) -> str:
        """Return a signed access token."""
        key = self.keys[-1]
        return jwt.encode({"alg": "RS256", "kid": key.kid}, self.claims(name, **changes), key)

    @staticmethod
    def _new_key(kid: str) -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})

    def _make_app(self) -> FastAPI:
        app = FastAPI()
        realm = "/realms/research"

        @app.middleware("http")
        async def note(request, call_next):
            self.requests.append(request.url.path)
            if not self.answers:
                return JSONResponse({"error": "down"}, 502)
            return await call_next(request)

        @app.get(f"{realm}/.well-known/openid-configuration")
        def discover() -> dict[str, str]:
            return {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/certs",
                "token_endpoint": f"{self.issuer}/token",
            }

        @app.get(f"{realm}/certs")
        def show_keys() -> dict[str, Any]:
            encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
            return dict(KeySet([*self.keys, encryption]).as_dict(private=False))

        @app.post(f"{realm}/token")
        def log_in(
            grant_type: str = Form(), client_id: str = Form(), username: str = Form(),
            password: str = Form(),
        ) -> Any:  # fmt: skip
            if (grant_type, client_id) != ("password", "heatmask"):
                return JSONResponse({"error": "unauthorized_client"}, 400)
            if username not in self.roles or password != PASSWORD:
                return JSONResponse({"error": "invalid_grant"}, 401)
            return {"access_token": self.token(username), "token_type": "Bearer"}

        return app


@contextmanager
def run_provider() -> Iterator[OidcProvider]:
    """Start a provider; stop it at the end."""
    port = find_free_port()
    provider = OidcProvider(port)
    with run_site(provider.app, port):
        yield provider
