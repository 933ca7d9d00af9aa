"""What was measured, and on what, for people and as JSON."""

import json
import os
import platform
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.table import Table
from timing import Row

from heatmask import __version__
from heatmask.files import write_atomically

NO_CUDA = "CUDA: not measured, no GPU here"


def make_tables(rows: list[Row]) -> list[Table]:
    """Return a table for each group of rows that stand together."""
    return [make_table(list(members)) for _, members in groupby(rows, lambda row: row.group)]


def make_table(rows: list[Row]) -> Table:
    """Return medians as a table; a ratio with its least and largest value below it."""
    table = Table("What", title=f"{rows[0].group}: medians", show_lines=True)
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
    """Write a JSON file, whole or not at all."""
    with write_atomically(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _format_ratios(values: list[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.2f}\n[dim]{min(values):.2f} to {max(values):.2f}[/dim]"


def _format_limit(row: Row) -> str:
    if row.limit is None:
        return ""
    return f"<= {row.limit:.3g} x" if row.limit_on_ratio else f"<= {row.limit:g} {row.unit}"


def _read_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
