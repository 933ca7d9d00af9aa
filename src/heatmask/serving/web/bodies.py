"""Bounds of every request's body, before any route reads it."""

import asyncio
import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heatmask.serving.web.limits import Limits, TooLargeError

UPLOADS = ("/datastore", "/infer/", "/session", "/nninteractive/")


class BodyGuard:
    """Stop bodies that are too large, and clients that fall silent in the middle of one.

    Parameters
    ----------
    app
        The application behind it.
    limits
        Files may come to `UPLOADS` alone.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with a body that ends in time, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most, silence_s = 2 * self.limits.text_bytes, self.limits.silence_s
        uploads, deadline = scope["path"].startswith(UPLOADS), time.monotonic() + silence_s
        if uploads:
            most += self.limits.file_bytes
        text = f"The request must hold at most {most:,} bytes."
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            await PlainTextResponse(text, 413)(scope, receive, send)
            return
        received, complete = 0, False

        async def receive_some() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # waits for the client to go
            try:
                # A large file may take long as long as it comes; a text comes at once.
                left_s = silence_s if uploads else max(0.0, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), left_s)
            except TimeoutError as error:
                raise HTTPException(408, "The request did not come to its end.") from error
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > most:
                raise TooLargeError(text)
            return message

        await self.app(scope, receive_some, send)
