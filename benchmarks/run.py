"""Speed and memory of Heatmask, ours and a peer in turn in one process: `make bench`.

The volume is a synthetic brain of 256 x 256 x 32 voxels (1 x 1 x 5 mm) with a lesion, the
network is the bundle's own; attribution has inputs of its own (`attribution_inputs.py`). Ratios
hold from machine to machine, milliseconds do not.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from attribution_inputs import CPU
from command_line import measure_help, measure_memory
from phantom import DEMO_SEED, make_phantom
from rich.console import Console
from tables import NO_CUDA, describe_machine, make_tables, write_json
from timing import Row

from attribution import choose_plans, measure_attribution
from heatmask.bundle import DEFAULT_BUNDLE
from pipeline import build_pipeline, measure_around, measure_cuda, measure_forward, measure_run

SHAPE, SPACING_MM = (256, 256, 32), (1.0, 1.0, 5.0)
console = Console(highlight=False)


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of measurements a row.")] = 21,
    threads: Annotated[int, typer.Option(min=1, help="Threads torch may use.")] = 2,
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = DEFAULT_BUNDLE,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results here too.")
    ] = None,
) -> None:
    """Measure speed and memory, print a table, and tell which targets are met."""
    torch.set_num_threads(threads)
    machine = describe_machine()
    rows = measure_all(bundle, repeats, threads)
    console.print(*make_tables(rows), sep="\n")
    with console.status("Attribution"):
        further = measure_attribution(choose_plans(), threads)
    console.print(*make_tables(further), sep="\n")
    rows += further
    console.print("; ".join(f"{name}: {value}" for name, value in machine.items()))
    console.print(
        f"input: phantom of seed {DEMO_SEED}, {SHAPE} voxels of {SPACING_MM} mm; "
        f"{repeats} pairs, of attribution {CPU.repeats}, peer and ours in turn"
    )
    if not torch.cuda.is_available():
        console.print(NO_CUDA)
    if json_path is not None:
        write_json({"machine": machine, "rows": [row.as_dict() for row in rows]}, json_path)


def measure_all(bundle: str, repeats: int, threads: int) -> list[Row]:
    """Return every row, from the parts to the whole command."""
    with console.status("Drawing the phantom") as status:
        phantom = make_phantom(DEMO_SEED, SHAPE, SPACING_MM)
        shipped, ungated = build_pipeline(bundle), build_pipeline(bundle, gate=False)
        status.update("Around the network")
        rows = [
            measure_around(shipped, phantom, repeats, "Loaded array to mask but the network"),
            measure_around(ungated, phantom, repeats, "The same, gate off"),
        ]
        status.update("The network")
        rows.append(measure_forward(shipped, phantom, repeats))
        rows.append(measure_run(shipped, phantom, repeats))
        rows += measure_cuda(bundle, phantom, repeats)
        status.update("The command")
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure_memory(phantom, Path(folder), threads))
        rows.append(measure_help(repeats))
    return rows


if __name__ == "__main__":
    typer.run(main)
