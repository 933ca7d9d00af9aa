"""Percentiles of millions of voxels."""

import numpy as np
from numpy.typing import NDArray


def find_percentile(values: NDArray[np.floating], percent: float) -> float:
    """Return what `numpy.percentile` does, near 0 and 100 in a fifth of the time.

    A sample says about where it lies, and only the values near that are ordered.
    """
    rank = percent / 100 * (values.size - 1)
    first, share = int(rank), rank - int(rank)
    sample = values[:: values.size // 2000 | 1]
    low = np.percentile(sample, percent - 3) if percent > 3 else -np.inf
    high = np.percentile(sample, percent + 3) if percent < 97 else np.inf
    near = values[(values >= low) & (values <= high)]
    place = first - np.count_nonzero(values < low)
    if not 0 <= place < near.size - 1:
        near, place = values, first
    places = [place, min(place + 1, near.size - 1)]
    before, after = np.partition(near, places)[places]
    # numpy interpolates from the nearer one too; from the other the last digit may differ.
    if share < 0.5:
        return float(before + (after - before) * share)
    return float(after - (after - before) * (1 - share))
