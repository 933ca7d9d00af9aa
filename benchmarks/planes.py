"""How a bundle does on axial, coronal and sagittal pictures: an evaluation, split by plane.

The planes of the figshare test fold were judged by eye, from a look at the first, middle and last
picture of each group (`docs/results/figshare_test_planes.csv`); the data set does not hold them.
"""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, f1_score

from heatmask.experiments.bootstrap import Interval, bootstrap_clusters


def main(
    evaluation: Annotated[Path, typer.Argument(help="per_picture.csv of heatmask evaluate.")],
    planes: Annotated[Path, typer.Argument(help="CSV with the columns picture and plane.")],
) -> None:
    """Print macro F1, accuracy and Dice of the first method for each plane."""
    plane_of = {row["picture"]: row["plane"] for row in read_rows(planes)}
    rows = read_rows(evaluation)
    rows = [row for row in rows if row["method"] == rows[0]["method"]]
    table = Table("plane", "pictures", "groups", "macro F1", "accuracy", "mean Dice")
    for plane in sorted(set(plane_of.values())):
        table.add_row(plane, *score_rows([r for r in rows if plane_of[r["picture"]] == plane]))
    Console().print(table)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score_rows(rows: list[dict[str, str]]) -> list[str]:
    """Return counts, and scores with their intervals over groups."""
    true, predicted, groups = (
        np.array([r[k] for r in rows]) for k in ("class", "predicted", "group")
    )
    dice = np.array([float(row["dice"]) for row in rows])
    intervals = (
        bootstrap_clusters(
            lambda i: float(
                f1_score(true[i], predicted[i], labels=np.unique(true), average="macro")
            ),
            groups,
        ),
        bootstrap_clusters(lambda i: float(accuracy_score(true[i], predicted[i])), groups),
        bootstrap_clusters(lambda i: float(dice[i].mean()), groups),
    )
    return [str(len(rows)), str(len(set(groups))), *map(format_interval, intervals)]


def format_interval(interval: Interval) -> str:
    """Return the value with its ends."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval)


if __name__ == "__main__":
    typer.run(main)
