"""The rows of all steps as tables in Markdown, for docs/results.md."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from statistics import median
from typing import Any

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]


def write_page(steps: list[Row]) -> str:
    """Return the page: agreement, speed, halving, attribution, and what failed."""
    rows = [row for step in steps for row in step["rows"]]
    bundles = [row for row in rows if "variant" in row]
    sections = {
        "Agreement with the CPU, the worst scan": make_table(find_worst(bundles), AGREEMENT),
        "Time and memory": make_table(bundles, SPEED),
        "Out of memory": make_table([row for row in rows if "halvings" in row], HALVING),
        "Attribution": make_table([row for row in rows if "group" in row], METHODS),
        "Not finished": "\n".join(list_unfinished(steps)),
        "Missed": "\n".join(f"- {line}" for row in rows for line in row.get("missed", [])),
    }
    return (
        "\n\n".join(f"### {title}\n\n{text or 'None.'}" for title, text in sections.items()) + "\n"
    )


def make_table(rows: Iterable[Row], columns: Columns) -> str:
    """Return a Markdown table, empty without rows."""
    lines = [" | ".join(show(row) for show in columns.values()) for row in rows]
    if not lines:
        return ""
    head = [" | ".join(columns), " | ".join("---" for _ in columns)]
    return "\n".join(f"| {line} |" for line in [*head, *lines])


def find_worst(rows: list[Row]) -> Iterator[Row]:
    """Yield a row for each bundle and variant: the largest differences, the least Dice."""
    compared = sorted((r for r in rows if "dice" in r), key=lambda r: (r["bundle"], r["variant"]))
    for _, members in groupby(compared, lambda row: (row["bundle"], row["variant"])):
        group = list(members)
        worst = {key: max(row[key] for row in group) for key in WORST}
        yield {**group[0], **worst, "dice": min(row["dice"] for row in group)}


def list_unfinished(steps: list[Row]) -> Iterator[str]:
    """Yield a line for each step that failed or had no time."""
    for step in steps:
        if step["error"]:
            yield f"- {step['step']} failed: {step['error'].strip().splitlines()[-1]}"
        elif not step["complete"]:
            yield f"- {step['step']} ran out of time"


def _show_range(row: Row) -> str:
    ratios = [ours / peer for ours, peer in zip(row["ours"], row["peer"], strict=False)]
    return f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""


def _show_peak(row: Row) -> str:
    return f"{row['peak_mb']:.0f} MB" if row.get("peak_mb") is not None else ""


WORST = ("heatmap", "heatmap_mean", "probability", "slices_shown_differ")
AGREEMENT: Columns = {
    "bundle": lambda row: row["bundle"].removesuffix("_segmentation"),
    "variant": lambda row: row["variant"],
    "heatmaps differ by": lambda row: f"{row['heatmap']:.1e}",
    "on average": lambda row: f"{row['heatmap_mean']:.1e}",
    "probabilities differ by": lambda row: f"{row['probability']:.1e}",
    "slices shown by one only": lambda row: str(row["slices_shown_differ"]),
    "Dice of the masks": lambda row: f"{row['dice']:.4f}",
}
SPEED: Columns = {
    "bundle": lambda row: row["bundle"].removesuffix("_segmentation"),
    "scan": lambda row: f"{row['scan']}, {row['slices']} slices",
    "variant": lambda row: row["variant"],
    "explain": lambda row: f"{row['explain_ms']:.1f} ms",
    "read and prepare": lambda row: f"{row['prepare_ms']} ms",
    "make mask": lambda row: f"{row['mask_ms']} ms",
    "peak memory": _show_peak,
}
HALVING: Columns = {
    "bundle": lambda row: row["bundle"].removesuffix("_segmentation"),
    "memory needed": lambda row: f"{row['peak_mb']} MB",
    "left": lambda row: f"{row['memory']:.0%}",
    "halvings": lambda row: str(row["halvings"]),
    "heatmaps differ by": lambda row: f"{row['heatmap']:.1e}",
}
METHODS: Columns = {
    "subject": lambda row: row["group"],
    "what": lambda row: row["what"],
    "ours": lambda row: f"{row['median']:.1f} {row['unit']}",
    "beside": lambda row: row["peer_name"],
    "ratio": _show_range,
    "target met": lambda row: {True: "yes", False: "no", None: ""}[row["met"]],
    "peak memory": _show_peak,
}
