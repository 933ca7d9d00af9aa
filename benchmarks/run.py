"""Speed and memory of Heatmask, ours and a peer in turn in one process: `make bench`.

The volume is a synthetic brain of 256 x 256 x 32 voxels (1 x 1 x 5 mm) with a lesion, the
network is the bundle's own. Ratios hold from machine to machine, milliseconds do not.
"""

import json
import os
import platform
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from pipeline import build_segmenter, measure_around, measure_cuda, measure_forward, measure_run
from processes import measure_help, measure_memory
from rich.console import Console
from rich.table import Table
from timing import Row

from heatmask import __version__
from heatmask.bundle import DEFAULT_BUNDLE
from heatmask.data.phantom import PHANTOM_DEMO_SEED, make_phantom

SHAPE, SPACING_MM = (256, 256, 32), (1.0, 1.0, 5.0)
NO_CUDA = "CUDA: not measured, no GPU here"
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
    console.print(make_table(rows))
    console.print("; ".join(f"{name}: {value}" for name, value in machine.items()))
    console.print(
        f"input: phantom of seed {PHANTOM_DEMO_SEED}, {SHAPE} voxels of {SPACING_MM} mm; "
        f"{repeats} pairs, peer and ours in turn"
    )
    if not torch.cuda.is_available():
        console.print(NO_CUDA)
    if json_path is not None:
        write_json({"machine": machine, "rows": [row.as_dict() for row in rows]}, json_path)


def measure_all(bundle: str, repeats: int, threads: int) -> list[Row]:
    """Return every row, from the parts to the whole command."""
    with console.status("Drawing the phantom") as status:
        phantom = make_phantom(PHANTOM_DEMO_SEED, SHAPE, SPACING_MM)
        shipped, ungated = build_segmenter(bundle), build_segmenter(bundle, gate=False)
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


def make_table(rows: list[Row]) -> Table:
    """Return medians as a table; a ratio with its least and largest value below it."""
    table = Table("What", title="Heatmask: medians", show_lines=True)
    for name in ("Ours", "Peer", "Ratio", "Target", "Met"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(
            f"{row.what}\n[dim]peer: {row.peer_name}[/dim]" if row.peer else row.what,
            f"{median(row.ours):.0f} {row.unit}",
            f"{median(row.peer):.0f} {row.unit}" if row.peer else "",
            _format_ratios(row.ratios),
            _format_limit(row),
            {True: "yes", False: "[red]no[/red]", None: ""}[row.met],
        )
    return table


def describe_machine() -> dict[str, str | int]:
    """Return what the numbers depend on."""
    return {
        "heatmask": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "CPU": _read_cpu_model(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file, first beside it, then in place."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _format_ratios(values: list[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.2f}\n[dim]{min(values):.2f} to {max(values):.2f}[/dim]"


def _format_limit(row: Row) -> str:
    if row.limit is None:
        return ""
    return f"<= {row.limit:g} x" if row.limit_on_ratio else f"<= {row.limit:g} {row.unit}"


def _read_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    typer.run(main)
