"""Who edits: a lease for each client, which ends when it is idle or gone."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from heatmask.errors import HeatmaskError
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.nninteractive.editor import Editor


class LeaseError(HeatmaskError):
    """A client has no lease, or gets none.

    Attributes
    ----------
    status
        410 (it has ended) or 503 (too many edit already): the client library knows both.
    headers
        What belongs to the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {"Retry-After": "10"} if status == 503 else {}


@dataclass
class Lease:
    """One client's image, mask and edits.

    Attributes
    ----------
    token, person, model : the secret, whose it is, and the model for its images ("" for none)
    editor : what it works on, once it has sent an image
    busy : held while a request of this client is answered; the next one waits
    active, seen : when it did something, and when it was heard of; in s of the clock
    """

    token: str
    person: str
    model: str
    active: float
    seen: float
    editor: Editor | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Leases:
    """All leases of a server; after a restart there are none.

    Parameters
    ----------
    limits
        ``editors``, ``kept_voxels``, ``idle_s`` and ``liveness_s``.
    clock
        Returns the time in s.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def claim(self, person: str, model: str) -> Lease:
        """Return a new lease.

        Raises
        ------
        LeaseError
            There are too many.
        """
        with self._lock:
            self._drop_ended()
            if len(self._leases) >= self._limits.editors:
                raise LeaseError(503, f"{len(self._leases)} clients edit already. Try again later.")
            now = self._clock()
            lease = Lease(secrets.token_urlsafe(24), person, model, now, now)
            self._leases[lease.token] = lease
            return lease

    def get(self, token: str, person: str, *, active: bool = True, seen: bool = True) -> Lease:
        """Return a person's lease; `active` and `seen` keep it for longer.

        Raises
        ------
        LeaseError
            There is none, or it has ended.
        """
        with self._lock:
            self._drop_ended()
            lease = self._leases.get(token)
            if lease is None or lease.person != person:
                raise LeaseError(
                    410,
                    "The session has ended. Connect again and send the image; what you have "
                    "segmented is in your viewer.",
                )
            now = self._clock()
            lease.active = now if active else lease.active
            lease.seen = now if seen else lease.seen
            return lease

    def release(self, token: str, person: str) -> None:
        """End a person's lease, if there is one."""
        with self._lock:
            lease = self._leases.get(token)
            if lease is not None and lease.person == person:
                del self._leases[token]

    def expire(self) -> None:
        """Drop what is idle, and what is not heard of any more."""
        with self._lock:
            self._drop_ended()

    def measure_remaining_s(self, lease: Lease) -> float:
        """Return how long a lease lasts without an edit."""
        return max(0.0, lease.active + self._limits.idle_s - self._clock())

    def check_room(self, lease: Lease, voxels: int) -> None:
        """Refuse an image for which there is no room beside those of others.

        Raises
        ------
        LeaseError
            There is none.
        """
        others = [one.editor for one in list(self._leases.values()) if one is not lease]
        kept = sum(np.prod(editor.shape) for editor in others if editor is not None)
        if kept + voxels > self._limits.kept_voxels:
            raise LeaseError(503, "The images that others edit leave no room. Try again later.")

    def _drop_ended(self) -> None:
        now, limits = self._clock(), self._limits
        for token, lease in list(self._leases.items()):
            idle, silent = now - lease.active, now - lease.seen
            # A request that is being answered keeps its lease, however long it takes
            if not lease.busy.locked() and (idle > limits.idle_s or silent > limits.liveness_s):
                del self._leases[token]
