"""Where the server may listen, and what stands in front of the application there."""

import socket
from typing import Any

from starlette.middleware import Middleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from heatmask.errors import OptionError
from heatmask.serving.access.guard import HostGuard, ProxyGuard
from heatmask.serving.access.settings import AccessSettings

TLS = """\
  - encryption: --tls-cert FILE --tls-key FILE with the certificate of this machine, or a proxy that
    has one: --behind-proxy ADDRESS, where the proxy connects from"""
LOG_IN = """\
  - log-in: heatmask users add NAME --role admin (with the same --workdir), or a provider of OpenID
    Connect: --oidc FILE"""


def check_exposure(settings: AccessSettings, enabled: bool) -> None:
    """Refuse to serve other machines without encryption or without log-in.

    Parameters
    ----------
    settings
        The server's settings.
    enabled
        Whether log-in is needed (`Access.enabled`).

    Raises
    ------
    OptionError
        Something is missing; the text says how to set it up.
    """
    if not settings.is_public:
        return
    missing = [] if settings.tls_cert or settings.proxies else [TLS]
    missing += [] if enabled else [LOG_IN]
    if missing:
        where = "Behind a proxy" if settings.proxies else f"With --host {settings.host}"
        raise OptionError(
            f"{where}, other machines reach the scans and masks. That needs also:\n"
            + "\n".join(missing)
            + "\nBoth step by step: docs/how-to/hospital.md. For you alone leave --host and "
            "--behind-proxy out; from another machine use a tunnel: ssh -L 8000:127.0.0.1:8000 NAME"
        )


def make_uvicorn_options(settings: AccessSettings) -> dict[str, Any]:
    """Return the arguments of `uvicorn.run` that decide who can connect, and how.

    Headers of proxies are never left to uvicorn, which believes those of this machine unless it is
    forbidden: `list_middleware` reads them.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "proxy_headers": False,
        "forwarded_allow_ips": "",
        "server_header": False,
    }
    if settings.tls_cert:
        options |= {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    return options


def list_middleware(settings: AccessSettings) -> list[Middleware]:
    """Return what every request has to pass before the application, the outermost first."""
    names = {settings.host, *settings.allowed_hosts, socket.gethostname()}
    layers = [Middleware(HostGuard, names=names)]
    if settings.proxies:
        proxies = list(settings.proxies)
        layers = [
            Middleware(ProxyGuard, proxies=proxies),
            Middleware(ProxyHeadersMiddleware, trusted_hosts=proxies),
            *layers,
        ]
    return layers
