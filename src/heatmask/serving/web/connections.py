"""Connections on which no request comes are closed: each takes one of the server's file handles."""

from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A connection that is closed when the head of a request does not come to its end.

    uvicorn waits for it without a limit; `BodyGuard` has one for the body.

    Attributes
    ----------
    wait_s : float
        A head that has not come between two looks so far apart is not waited for.
    """

    wait_s = 30.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self.loop.call_later(self.wait_s, self._look, None)

    def _look(self, seen: Any) -> None:
        if self.transport.is_closing():
            return
        # What uvicorn works on: the latest request, nothing before the first
        latest = self.cycle
        idle = latest is None or latest.response_complete
        if idle and seen == (latest,):
            self.transport.close()
            return
        self.loop.call_later(self.wait_s, self._look, (latest,) if idle else None)
