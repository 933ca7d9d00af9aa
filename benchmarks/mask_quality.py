"""Does the label-free quality know which masks are bad? ``python benchmarks/mask_quality.py DATA``.

Prints each patient's quality and Dice, their rank correlation, and the mean Dice of the half that
is trusted, with 95 % bootstrap intervals over patients.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from heatmask.bundle import DEFAULT_BUNDLE, find_bundle
from heatmask.experiments.cases import Place, list_cases
from heatmask.experiments.entries import list_label_words, read_config
from heatmask.experiments.overlap import score_mask
from heatmask.geometry import measure_spacing_mm
from heatmask.pipeline import Pipeline
from heatmask.report.quality import CLOSE_LOOK, measure_quality

DRAWS = 5000


def main() -> None:
    """Measure all cases of a split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE)
    parser.add_argument("--split", default="test")
    parser.add_argument("--pattern")
    chosen = parser.parse_args()
    bundle = find_bundle(chosen.bundle)
    place = Place(str(chosen.data), split=chosen.split, pattern=chosen.pattern, device="cpu")
    cases = list_cases(
        place, read_config(bundle)["sequences"], list_label_words(bundle), chosen.split
    )
    pipeline = Pipeline.from_bundle(bundle, {}, "cpu")
    rows = []
    for case in cases.cases:
        result = pipeline(case.image, case.name)
        spacing = measure_spacing_mm(np.asarray(result.scan.affine)).tolist()
        mask, label = np.asarray(result.mask)[0], int(result.probabilities.argmax()) + 1
        quality = measure_quality(
            np.asarray(result.scan)[0],
            mask == label,
            float(result.probabilities[label - 1]),
            spacing,
        )
        dice = score_mask(mask, case.load_reference(result.scan), spacing)["dice"]
        rows.append((quality or 0.0, dice))
        print(f"{case.name}: quality {rows[-1][0]:.3f}, Dice {dice:.3f}", flush=True)
    report(np.array(rows))


def report(rows: NDArray[np.float64]) -> None:
    """Print what quality says of Dice; rows (n, 2)."""
    describe = {
        "rank correlation": lambda some: spearmanr(*some.T)[0],
        "mean Dice of all": lambda some: some[:, 1].mean(),
        "of the trusted half": lambda some: some[np.argsort(-some[:, 0])][
            : len(some) // 2, 1
        ].mean(),
        f"of those below {CLOSE_LOOK}": lambda some: some[some[:, 0] < CLOSE_LOOK, 1].mean(),
    }
    for name, measure in describe.items():
        low, high = _bootstrap(rows, measure)
        print(f"{name}: {measure(rows):.3f} [{low:.3f}, {high:.3f}]")


def _bootstrap(
    rows: NDArray[np.float64], measure: Callable[[NDArray[np.float64]], float]
) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = [measure(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(DRAWS)]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
