"""Does the label-free quality know which masks are bad? ``python benchmarks/mask_quality.py DATA``.

Prints the quality and Dice of each volume or picture, their rank correlation, and the mean Dice of
the half that is trusted, with 95 % bootstrap intervals over patients (groups of pictures).
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from heatmask.bundle import DEFAULT_BUNDLE, find_bundle
from heatmask.data.tables.csv_table import read_table
from heatmask.experiments.cases import Case, Place, list_cases, read_references
from heatmask.experiments.entries import read_config
from heatmask.experiments.overlap import score_mask
from heatmask.geometry import measure_spacing_mm
from heatmask.pipeline import Pipeline
from heatmask.report.quality import CLOSE_LOOK
from heatmask.report.summary import summarise_result

DRAWS = 5000


def main() -> None:
    """Measure the cases of a split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE)
    parser.add_argument("--split", default="test")
    parser.add_argument("--pattern")
    parser.add_argument("--limit", type=int, help="so many cases, drawn at random")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    bundle = find_bundle(chosen.bundle)
    place = Place(str(chosen.data), split=chosen.split, pattern=chosen.pattern, device="cpu")
    cases = list_pictures(place) if place.pictures else list_volumes(place, bundle)
    if chosen.limit is not None and chosen.limit < len(cases):
        drawn = np.random.default_rng(0).permutation(len(cases))[: chosen.limit]
        cases = [cases[index] for index in sorted(drawn)]
    pipeline = Pipeline.from_bundle(bundle, {}, "cpu")
    rows = []
    for case in cases:
        result = pipeline(case.image, case.name)
        qualities = [c["quality"] for c in summarise_result(result)["classes"]]
        quality = min((q for q in qualities if q is not None), default=None)
        spacing = measure_spacing_mm(np.asarray(result.scan.affine)).tolist()
        mask = np.asarray(result.mask)[0]
        truth = load_reference(case, result.scan)
        rows.append((case.cluster, quality, score_mask(mask, truth, spacing)["dice"]))
        print(case.name, *(f"{x:.3f}" if x is not None else "-" for x in rows[-1][1:]), flush=True)
    report(rows)


def list_volumes(place: Place, bundle: Path) -> list[Case]:
    """Return the volumes of the split that have a reference mask."""
    cases = list_cases(place, read_config(bundle)["sequences"], {}, place.split)
    return list(cases.cases)


def list_pictures(place: Place) -> list[Case]:
    """Return the pictures of the split; one without a reference mask shows nothing."""
    references = read_references(place)
    table = read_table(Path(place.data) / place.labels, ("image", "split", "group"))
    found = []
    for _, row in table.lines:
        if row["split"] == place.split:
            image = Path(place.data) / row["image"]
            reference = references.get(image, Path())
            found.append(Case(image.stem, row["group"], str(image), reference, (0,)))
    return found


def load_reference(case: Case, scan: Any) -> NDArray[np.bool_]:
    """Return a case's reference mask (X, Y, Z), empty if it has none."""
    if not case.reference.is_file():
        return np.zeros(scan.shape[1:], bool)
    return case.load_reference(scan)


def report(rows: list[tuple[str, float | None, float]]) -> None:
    """Print what quality says of Dice; rows of cluster, quality and Dice."""
    nothing = [r for r in rows if np.isnan(r[2]) or (r[1] is None)]
    rightly = sum(np.isnan(r[2]) for r in nothing)
    print(f"{len(nothing)} of {len(rows)} have an empty mask, {rightly} of them rightly so.")
    rows = [r for r in rows if r[1] is not None]
    clusters = np.array([r[0] for r in rows])
    values = np.array([r[1:] for r in rows], float)
    print(f"Of the other {len(rows)}:")
    for name, measure in list_measures().items():
        low, high = _bootstrap(clusters, values, measure)
        print(f"{name}: {measure(values):.3f} [{low:.3f}, {high:.3f}]")
    print(f"below {CLOSE_LOOK}: {int((values[:, 0] < CLOSE_LOOK).sum())}")


def list_measures() -> dict[str, Callable[[NDArray[np.float64]], float]]:
    """Return what is measured of rows (n, 2) of quality and Dice, by name."""

    def average(dice: NDArray[np.float64]) -> float:
        return float(dice.mean()) if dice.size else float("nan")

    return {
        "rank correlation": lambda some: float(spearmanr(*some.T)[0]),
        "mean Dice of all": lambda some: average(some[:, 1]),
        "of the trusted half": lambda some: average(
            some[np.argsort(-some[:, 0], kind="stable")][: len(some) // 2, 1]
        ),
        f"of those below {CLOSE_LOOK}": lambda some: average(some[some[:, 0] < CLOSE_LOOK, 1]),
        f"of those above {CLOSE_LOOK}": lambda some: average(some[some[:, 0] >= CLOSE_LOOK, 1]),
    }


def _bootstrap(
    clusters: NDArray[np.str_],
    values: NDArray[np.float64],
    measure: Callable[[NDArray[np.float64]], float],
) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    names, members = np.unique(clusters, return_inverse=True)
    indices = [np.flatnonzero(members == number) for number in range(len(names))]

    def draw() -> Iterator[float]:
        for _ in range(DRAWS):
            chosen = rng.integers(0, len(names), len(names))
            yield measure(values[np.concatenate([indices[c] for c in chosen])])

    low, high = np.nanpercentile(list(draw()), (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
