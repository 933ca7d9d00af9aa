"""How much sooner another mask of a scan comes than the first: ``python benchmarks/ask_again.py``.

A real server with every bundle, asked by MONAI Label's client as 3D Slicer asks: first the mask,
then masks with other options of the mask in turn, on a synthetic head of 256 x 256 x 32 voxels
(1 x 1 x 5 mm), FLAIR and T1-Gd. Seconds are those of the client, so that sending counts.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from local_server import run_server
from monailabel.client.client import MONAILabelClient
from phantom import DEMO_SEED, make_phantom, write_phantom
from rich.console import Console
from rich.table import Table
from tables import describe_machine

from heatmask.bundle import list_bundles

SHAPE, SPACING_MM = (256, 256, 32), (1.0, 1.0, 5.0)
SOONER, LIMIT_S = 10.0, 0.3
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}
OTHER_MASKS: list[dict[str, Any]] = [
    {"threshold_rule": "multi_otsu"},
    {"threshold_rule": "fixed", "threshold_level": 0.5},
    {"threshold_rule": "fixed", "threshold_level": 0.1},
    {"snap": False},
    {"min_volume_mm3": 1000},
]
console = Console(highlight=False)


def main(
    threads: Annotated[int, typer.Option(min=1, help="Threads the server may use.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of other masks.")] = 3,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results here too.")
    ] = None,
) -> None:
    """Print the seconds of the first mask and of further ones, and their ratio, by bundle."""
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "studies")
        with run_server(Path(folder), threads) as url:
            client = MONAILabelClient(url, tmpdir=folder)
            rows = [measure(client, bundle.name, rounds) for bundle in list_bundles()]
    machine = describe_machine()
    console.print(make_table(rows), "; ".join(f"{k}: {v}" for k, v in machine.items()))
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


def write_study(folder: Path) -> None:
    """Write a synthetic head with a lesion, the same scan as both sequences."""
    folder.mkdir()
    phantom = make_phantom(DEMO_SEED, SHAPE, SPACING_MM)
    for sequence in ("flair", "t1gd"):
        lesion = folder.parent / "lesion.nii.gz"
        write_phantom(phantom, folder / f"head_{sequence}.nii.gz", lesion)


def measure(client: MONAILabelClient, model: str, rounds: int) -> dict[str, Any]:
    """Return seconds of the first mask, and of others of the same scan, as a client sees them."""
    first, facts = ask(client, model, {})
    again = [ask(client, model, options)[0] for _ in range(rounds) for options in OTHER_MASKS]
    return {
        "model": model, "finding": facts["finding"], "first_s": first,
        "again_s": again, "median_s": median(again), "highest_s": max(again),
        "ratio": first / median(again), "load": os.getloadavg()[0],
    }  # fmt: skip


def ask(client: MONAILabelClient, model: str, options: dict[str, Any]) -> tuple[float, Any]:
    """Return the seconds that an answer takes, and what it says."""
    start = time.perf_counter()
    file, facts = client.infer(model, "head_flair", {**SLICER, **options})
    seconds = time.perf_counter() - start
    Path(file).unlink()
    return seconds, facts


def make_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table; "met" where the median is soon enough, both ways."""
    columns = "model", "first s", "again s (median, highest)", "sooner", "met", "load", "finding"
    table = Table(*columns, title=f"{SOONER:g} x sooner and below {LIMIT_S} s")
    for row in rows:
        met = row["ratio"] >= SOONER and row["median_s"] < LIMIT_S
        table.add_row(
            row["model"],
            f"{row['first_s']:.2f}",
            f"{row['median_s']:.3f}, {row['highest_s']:.3f}",
            f"{row['ratio']:.0f} x",
            "yes" if met else "no",
            f"{row['load']:.1f}",
            row["finding"].split(" (")[0],
        )
    return table


if __name__ == "__main__":
    typer.run(main)
