"""Figures compared with those that were looked at and kept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KEPT = Path(__file__).resolve().parents[1] / "pictures"
SIZE = (320, 200)
TOLERANCE = 1.5
"""Root mean square of the difference in grey levels; a missing outline makes 2.4."""


def assert_like_kept(picture: Path, name: str) -> None:
    """Compare a figure, made small, with ``tests/pictures/<name>.png``.

    Where there is none, it is written and the test fails: look at it, then run again.
    """
    kept = KEPT / f"{name}.png"
    small = shrink(picture)
    if not kept.exists():
        KEPT.mkdir(exist_ok=True)
        Image.fromarray(small).save(kept)
        raise AssertionError(f"{kept} was missing and is written: look at it, then run again.")
    difference = small.astype(float) - np.asarray(Image.open(kept).convert("RGB"))
    rms = float(np.sqrt(np.mean(difference**2)))
    assert rms < TOLERANCE, f"{picture} differs from {kept} by {rms:.1f} grey levels"


def shrink(picture: Path) -> NDArray[np.uint8]:
    """Return a figure (rows, columns, 3) of one size, which keeps pages and colours."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BOX))
