"""One line a request; and whatever nobody foresaw becomes a number, its traceback in the log."""

import logging
import secrets
import time
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heatmask.serving.web.metrics import Metrics

logger = logging.getLogger(__name__)


class RequestLog:
    """Log and count every request, and answer what nobody foresaw.

    Addresses are logged without their query: it names images, whose names can be patients'.

    Parameters
    ----------
    app
        The application behind it.
    metrics
        Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except ClientDisconnect:
            status = 499  # As nginx has it: the client went away
        except Exception:
            number = secrets.token_hex(4)
            logger.exception("Internal error, number %s", number)
            if status == 0:
                text = f"Internal error, number {number}. The server's log tells more."
                await PlainTextResponse(text, 500)(scope, receive, send_on)
        finally:
            self._log(scope, status, time.perf_counter() - start)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self.metrics.count_request(scope["method"], route, status, seconds)
        person = scope.get("state", {}).get("person", "")
        client = scope["client"][0] if scope.get("client") else ""
        path = quote(scope["path"][:200])  # A line break in it would forge a line
        logger.info(
            "%s %s %d in %.3f s", scope["method"], path, status, seconds,
            extra={
                "method": scope["method"], "path": path, "status": status,
                "seconds": round(seconds, 4), "person": person, "address": client,
            },
        )  # fmt: skip
