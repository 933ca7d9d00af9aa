"""What one check found."""

import math
from dataclasses import dataclass

from torch import Tensor

SAME = 1e-5
"""How far two results that should be one may differ, relatively."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    name : str
        What was checked.
    methods : tuple of str
        The methods that rest on it.
    passed : bool
        Whether it speaks for them.
    measured, limit : float
        The number looked at, and the largest that passes; NaN where none came out.
    finding : str
        What was found, in words.
    advice : str
        How to mend it, and what to use instead; empty if it passed.
    """

    name: str
    methods: tuple[str, ...]
    passed: bool
    measured: float
    limit: float
    finding: str
    advice: str = ""


def conclude(name: str, measured: float, limit: float, finding: str, advice: str = "") -> Check:
    """Return the check that a number passes or fails; NaN fails."""
    passed = measured <= limit
    return Check(name, (), passed, measured, limit, finding, "" if passed else advice)


def fail(name: str, finding: str, advice: str = "", limit: float = 0) -> Check:
    """Return a check that failed before there was a number."""
    return conclude(name, math.nan, limit, finding, advice)


def compare(first: Tensor, second: Tensor) -> float:
    """Return the norm of a difference, relative to the larger norm."""
    scale = max(float(first.norm()), float(second.norm()))
    return divide(float((first - second).norm()), scale)


def divide(error: float, scale: float) -> float:
    """Return error / scale, and the error alone where there is no scale."""
    return error / scale if scale else error


def show(share: float) -> str:
    """Return a share for people: in percent, but for one that is far below a thousandth."""
    if 0 < share < 0.001:
        return f"{share:.0e}"
    return f"{share:.1%}" if share < 100 else f"{share:.0e} times"
