"""What the commands share: options, the console, values from the command line."""

from contextlib import suppress
from typing import Annotated, Any

import typer
from rich import get_console

from heatmask.errors import OptionError

console = get_console()  # The progress bars' own, so that lines appear above the bar

Bundle = Annotated[
    str, typer.Option(help="Name of a bundle in bundles/, or the path of its folder.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OPTION=VALUE",
        help="Any other option of the bundle's config, such as batch_size=4 or, below one, "
        "inferer#explainer#window=8. Repeatable.",
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(help='File names to take from a folder, such as "*-t2f.nii.gz".'),
]

PacsFilter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEYWORD=VALUE",
        help="Which series of a PACS, such as BodyPartExamined=BRAIN; by default Modality=MR. "
        "Repeatable.",
    ),
]


def read_axis(name: str) -> int:
    """Return the RAS axis that slices of this name are cut across."""
    from heatmask.geometry import SLICE_AXES

    if name not in SLICE_AXES:
        raise OptionError(f"slice_axis must be one of {', '.join(SLICE_AXES)}, got {name!r}.")
    return SLICE_AXES[name]


def read_options(options: list[str] | None) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a dict; values are read as JSON or Python where they are."""
    values: dict[str, Any] = {}
    for option in options or ():
        name, sign, text = option.partition("=")
        if not sign or not name:
            raise OptionError(f"--set must be given as OPTION=VALUE, got {option!r}.")
        values[name] = _read_value(text)
    return values


def read_filters(filters: list[str] | None) -> dict[str, str]:
    """Return ``KEYWORD=VALUE`` texts as a dict."""
    pairs = [text.partition("=") for text in filters or ()]
    for keyword, sign, value in pairs:
        if not (keyword.isalnum() and sign and value):
            raise OptionError(
                f"--pacs-filter must be given as KEYWORD=VALUE, got '{keyword}{sign}{value}'."
            )
    return {keyword: value for keyword, _, value in pairs}


def _read_value(text: str) -> Any:
    import ast
    import json

    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return read(text)
    return text
