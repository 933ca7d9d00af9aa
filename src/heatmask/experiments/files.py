"""How results become files: CSVs, all of a folder."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path

from heatmask.files import write_atomically


def read_text(name: str) -> str:
    """Return a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def format_csv(header: Sequence[str], lines: Iterable[Iterable[object]]) -> str:
    """Return a CSV; numbers have six digits, NaN is left empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *([_shorten(cell) for cell in line] for line in lines)])
    return text.getvalue()


def _shorten(cell: object) -> object:
    if not isinstance(cell, float):
        return cell
    return "" if math.isnan(cell) else f"{cell:.6g}"


def write_files(folder: str | Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write texts and pictures by name, each whole or not at all; return the paths.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    for name, content in contents.items():
        with write_atomically(Path(folder) / name) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return [Path(folder) / name for name in contents]
