"""Speed of the attribution methods beside their lower bound and beside Captum, MONAI and zennit.

F is one batched forward and input gradient of the same network over the same images with
frozen parameters, fwd its forward. Part of `make bench`; alone, and in a minute:
``python benchmarks/attribution.py --quick``.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from attribution_inputs import CPU, CUDA, QUICK, Plan
from lower_bound import measure_lower_bounds
from memory_limit import measure_limits
from rich.console import Console
from scan_attribution import measure_scans
from tables import NO_CUDA, describe_machine, make_tables, write_json
from timing import Row

console = Console(highlight=False)


def main(
    quick: Annotated[bool, typer.Option(help="Tiny sizes: shows that it runs, no more.")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Pairs a row.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use.")] = 2,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results here too.")
    ] = None,
) -> None:
    """Measure, print a table, and tell which targets are met."""
    torch.set_num_threads(threads)
    machine = describe_machine()
    with console.status("Attribution") as status:
        rows = []
        for row in measure_attribution(choose_plans(quick, repeats), threads):
            rows.append(replace(row, limit=None) if quick else row)  # tiny sizes tell of no target
            status.update(row.what)
    for table in make_tables(rows):
        console.print(table)
    console.print("; ".join(f"{name}: {value}" for name, value in machine.items()))
    if not torch.cuda.is_available():
        console.print(NO_CUDA)
    if json_path is not None:
        write_json({"machine": machine, "rows": [row.as_dict() for row in rows]}, json_path)


def choose_plans(quick: bool = False, repeats: int | None = None) -> list[Plan]:
    """Return what to measure on the CPU, and on a GPU where there is one."""
    plans = [QUICK] if quick else [CPU, *([CUDA] if torch.cuda.is_available() else [])]
    return [replace(plan, repeats=repeats) if repeats else plan for plan in plans]


def measure_attribution(plans: list[Plan], threads: int) -> Iterator[Row]:
    """Yield every row, one when it is measured."""
    for plan in plans:
        yield from measure_lower_bounds(plan)
        yield from measure_scans(plan)
        yield from measure_limits(plan, threads)


if __name__ == "__main__":
    typer.run(main)
