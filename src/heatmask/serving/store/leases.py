"""Who is at work on an image, so that it is not handed to somebody else for a while."""

from collections.abc import Callable

LEASE_S = 900.0


class Leases:
    """Leases of images, each of one client, in memory: a server that starts anew has none.

    Parameters
    ----------
    clock
        Returns the time in s.
    duration_s
        How long a lease lasts after it was taken or renewed.
    """

    def __init__(self, clock: Callable[[], float], duration_s: float = LEASE_S) -> None:
        self._clock, self._duration_s = clock, duration_s
        self._leases: dict[str, tuple[str, float]] = {}

    def take(self, image: str, client: str) -> bool:
        """Take or renew a lease; False if somebody else has it."""
        if self.find_holder(image) not in (None, client):
            return False
        self._leases[image] = (client, self._clock() + self._duration_s)
        return True

    def find_holder(self, image: str) -> str | None:
        """Return the client at work on an image, or None."""
        client, end = self._leases.get(image, (None, 0.0))
        if client is not None and end <= self._clock():
            del self._leases[image]
            return None
        return client

    def end(self, client: str, image: str | None = None) -> None:
        """End a client's lease of an image, or all of its leases."""
        for name, (holder, _) in list(self._leases.items()):
            if holder == client and image in (name, None):
                del self._leases[name]

    def list_holders(self) -> dict[str, str]:
        """Return the clients at work, by image."""
        holders = {image: self.find_holder(image) for image in list(self._leases)}
        return {image: holder for image, holder in holders.items() if holder is not None}
