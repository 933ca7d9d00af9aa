"""Ours and the peer in turn: the machine's mood changes, the ratio of neighbours hardly."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One thing measured, beside a peer where there is one.

    Attributes
    ----------
    what
        What ours is, for the table.
    unit
        Of `ours`, `peer` and of a limit on ours.
    ours, peer
        One number a repeat, in the order measured; pairs belong together.
    peer_name
        What the peer is; empty where there is none.
    limit
        What must not be exceeded; None for a number that is only reported.
    limit_on_ratio
        Whether the limit is on the ratio ours / peer, or on ours.
    group
        What the row's table is headed by.
    peak_mb
        What ours took of a GPU's memory, in 10^6 bytes; None elsewhere.
    """

    what: str
    unit: str
    ours: list[float]
    peer_name: str = ""
    peer: list[float] = field(default_factory=list)
    limit: float | None = None
    limit_on_ratio: bool = True
    group: str = "Heatmask"
    peak_mb: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's, pair by pair; empty without a peer."""
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=False)]

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the limit; None without a limit."""
        if self.limit is None:
            return None
        return median(self.ratios if self.limit_on_ratio else self.ours) <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Everything measured and what follows from it, ready for JSON."""
        medians = {"median": median(self.ours), "met": self.met}
        if self.peer:
            medians |= {"peer_median": median(self.peer), "ratio_median": median(self.ratios)}
        return {**asdict(self), **medians}


def measure_in_turn(
    ours: Callable[[], Any], peer: Callable[[], Any], repeats: int
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of ours and of the peer, called peer, ours, peer, ours, ...

    Both are called once before, unmeasured.
    """
    peer(), ours()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        times[1].append(measure_call(peer))
        times[0].append(measure_call(ours))
    return times


def settle(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Return a call that comes back when the device is done: a GPU works on after the call."""
    if device != "cuda":
        return call
    from torch import cuda

    def call_and_wait() -> Any:
        result = call()
        cuda.synchronize()
        return result

    return call_and_wait


def measure_call(call: Callable[[], Any]) -> float:
    """Return the milliseconds that one call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
