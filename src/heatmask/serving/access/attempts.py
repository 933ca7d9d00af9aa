"""How often somebody may fail before having to wait."""

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from heatmask.serving.access.person import AccessError


class Attempts:
    """Failures by key in a sliding window.

    Parameters
    ----------
    limit
        Failures of one key that are let through in a window.
    window_s
        Length of the window in seconds.
    clock
        Seconds that only grow.
    max_keys
        Keys that are kept; the one that was quiet for longest makes room.
    """

    def __init__(
        self,
        limit: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = 20_000,
    ) -> None:
        self.limit, self.window_s, self.max_keys = limit, window_s, max_keys
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, key: str) -> Iterator[None]:
        """Let a block try something; if it ends in `AccessError` 401, this counts as a failure.

        It counts beforehand too, so that many at once do not get past the limit.

        Raises
        ------
        AccessError
            429: the key has failed too often; the text and ``Retry-After`` say how long to wait.
        """
        self.count(key)
        try:
            yield
        except AccessError as error:
            if error.status != 401:
                self._forgive(key)
            raise
        self._forgive(key)

    def count(self, key: str) -> None:
        """Count a failure.

        Raises
        ------
        AccessError
            As `attempt`.
        """
        with self._lock:
            now = self._clock()
            times = self._times.setdefault(key, deque())
            self._times.move_to_end(key)
            while times and times[0] <= now - self.window_s:
                times.popleft()
            if len(times) >= self.limit:
                wait_s = times[0] + self.window_s - now
                raise AccessError(
                    429, f"Too many failed attempts. Try again in {wait_s:.0f} s.", wait_s
                )
            times.append(now)
            while len(self._times) > self.max_keys:
                self._times.popitem(last=False)

    def _forgive(self, key: str) -> None:
        """Take back the latest failure of a key; earlier ones still count."""
        with self._lock:
            if times := self._times.get(key):
                times.pop()


def find_network(address: str) -> str:
    """Return what counts as one address: in IPv6 everybody has 2^64 of them."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
