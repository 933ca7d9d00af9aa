"""Tables of a user's own: CSV as people and spreadsheets write it.

Not through pandas, which does not say in which line a value stands, fills up short lines, and
renames a column that is there twice.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatmask.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_WORKBOOK = b"PK\x03\x04"
_MOST_NAMED = 20


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes
    ----------
    columns : names of the columns
    lines : number in the file (the header is mostly 1) and values by column of each line
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: str | Path, needed: Sequence[str]) -> Table:
    """Read a CSV file with a header.

    Text in UTF-8 or, with a byte order mark, UTF-16; values apart by comma, semicolon, tab or
    ``|``, in double quotes where they hold that sign or a line break. Blanks around names and
    values are dropped, and lines without any value.

    Raises
    ------
    InputError
        The file cannot be read or is no such table, a needed column is missing, or lines have more
        or fewer values than there are columns; all of these are named.
    """
    text = _decode(_read_bytes(path), path)
    if not text.strip():
        raise InputError(
            f"{path} is empty. Its first line must name the columns: {', '.join(needed)}."
        )
    try:
        names, rows = _choose_rows(text, needed)
        lines = list(rows)
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}). Look for a quotation mark without its "
            "second one."
        ) from error
    _check_columns(path, names, needed)
    uneven = [
        f"line {line}: {len(values)} values, and there are {len(names)} columns"
        for line, values in lines
        if len(values) < len(names) or any(values[len(names) :])
    ]
    if uneven:
        raise_problems(f"{path} has {len(uneven)} of {len(lines)} lines", uneven)
    found = tuple(
        (line, {name: value for name, value in zip(names, values, strict=False) if name})
        for line, values in lines
    )
    return Table(tuple(filter(None, names)), found)


def raise_problems(what: str, problems: Sequence[str]) -> None:
    """Refuse lines of a table, the first of them named.

    Raises
    ------
    InputError
        Always.
    """
    more = len(problems) - _MOST_NAMED
    named = [*problems[:_MOST_NAMED], *[f"and {more} more"] * (more > 0)]
    raise InputError(
        f"{what} that cannot be used:\n  " + "\n  ".join(named) + "\nCorrect or remove them."
    )


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"The table {path} cannot be read: {error.strerror}.") from error


def _decode(content: bytes, path: str | Path) -> str:
    if content.startswith(_WORKBOOK):
        raise InputError(f"{path} is an Excel workbook, not a CSV file. Save it as 'CSV UTF-8'.")
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not in UTF-8 ({error}). Save it as 'CSV UTF-8'.") from error
    if "\0" in text:
        raise InputError(f"{path} is no text: it holds zero bytes. Save it as 'CSV UTF-8'.")
    return text


def _choose_rows(
    text: str, needed: Sequence[str]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and rows by the separator that gives most of the needed columns."""
    found = []
    for separator in SEPARATORS:
        rows = _split(text, separator)
        header = next(rows, (0, []))[1]
        if header and header[0] == "sep=":  # Excel's own first line, "sep=;"
            header = next(rows, (0, []))[1]
        found.append((header, rows))
    return max(found, key=lambda pair: (len({*pair[0]} & {*needed}), len(pair[0])))


def _split(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and values, of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    for row in reader:
        values = [value.strip() for value in row]
        if any(values):
            yield line, values
        line = reader.line_num + 1


def _check_columns(path: str | Path, names: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {' and '.join(missing)}. Its columns are "
            f"{', '.join(names) or 'not named'}."
        )
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise InputError(
            f"{path} has the column {' and '.join(twice)} more than once. Rename or remove one."
        )
