"""Refuse what a web page sends that the user only visits, and what does not come by the proxy.

Scripts and 3D Slicer send no ``Origin``; browsers send it with whatever can change something.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from heatmask.serving.access.settings import is_loopback

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class HostGuard:
    """Answer only requests that name this server, and that no foreign page has sent.

    A page of a foreign site can bring its own host name to point to this machine (DNS rebinding),
    and then reads answers as its own; the ``Host`` header still holds that name. An address in
    place of a name cannot be brought to point elsewhere, so addresses are let through.

    Parameters
    ----------
    app
        The application behind it.
    names
        Names, beside ``localhost``, under which the server may be called.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app = app
        self.names = {"localhost", *(name.casefold().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        problem = None if scope["type"] == "lifespan" else self._find_problem(scope)
        await (_refuse(problem) if problem else self.app)(scope, receive, send)

    def _find_problem(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0].casefold() if len(hosts) == 1 else ""
        if not self._is_ours(host):
            return (
                f"This server is not called {host!r}. "
                "Start it with --allow-host NAME to answer under another name."
            )
        if any(not _is_same(origin.casefold(), host) for origin in headers.getlist("origin")):
            return "Requests of other web sites are not answered."
        site = headers.get("sec-fetch-site", "none")
        # A link to our page, which the user follows, is the only way in from elsewhere.
        follows_link = (
            scope.get("method") in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )  # fmt: skip
        if site not in ("none", "same-origin") and not follows_link:
            return "Requests of other web sites are not answered."
        return None

    def _is_ours(self, host: str) -> bool:
        match = HOST.fullmatch(host)
        if not match:
            return False
        name = match["name"]
        return name.rstrip(".") in self.names or _is_address(name.strip("[]"))


class ProxyGuard:
    """Let only the proxies in front connect, and this machine itself.

    Whoever else reached the port would send passwords unencrypted.

    Parameters
    ----------
    app
        The application behind it.
    proxies
        Addresses or networks.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        self.app = app
        self.networks = [ipaddress.ip_network(proxy) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        problem = None if scope["type"] == "lifespan" else self._find_problem(scope)
        await (_refuse(problem) if problem else self.app)(scope, receive, send)

    def _find_problem(self, scope: Scope) -> str | None:
        peer = scope["client"][0] if scope.get("client") else ""
        if not (is_loopback(peer) or self._is_proxy(peer)):
            return "Connect through the proxy in front of this server."
        if any(kind != "https" for kind in Headers(scope=scope).getlist("x-forwarded-proto")):
            return "Use https: the proxy got this request unencrypted."
        return None

    def _is_proxy(self, peer: str) -> bool:
        return _is_address(peer) and any(
            ipaddress.ip_address(peer) in network for network in self.networks
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    kind, mark, rest = origin.partition("://")
    port = DEFAULT_PORTS.get(kind)
    return bool(mark and port) and rest.removesuffix(str(port)) == host.removesuffix(str(port))


def _refuse(problem: str) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse(problem, status_code=403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer
