"""The `heatmask` command, thin over the bundles' configs.

torch and MONAI take seconds to import, so each command imports what it needs, and
`heatmask --help` nothing of it.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from heatmask import __version__
from heatmask.cli.bundles import bundles
from heatmask.cli.common import console
from heatmask.cli.experiments import compare, evaluate, retrain
from heatmask.cli.methods import doctor, methods
from heatmask.cli.scans import demo, segment, serve
from heatmask.cli.training import derive_labels, train
from heatmask.errors import HeatmaskError

app = typer.Typer(
    name="heatmask",
    help="Image-level classifiers, explained, as segmenters: one MRI in, a heatmap and a "
    "pseudo-mask to correct in 3D Slicer out.",
    epilog="Start with: heatmask demo   then: heatmask segment SCAN   and: heatmask serve STUDIES. "
    "Pseudo-masks are for research and to be corrected by a radiologist: not a diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    demo, segment, serve, bundles,
    evaluate, compare, retrain, train, derive_labels, methods, doctor,
):  # fmt: skip
    app.command()(command)


@app.callback(invoke_without_command=True)
def show_version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Show the version."""
    if version:
        console.print(f"heatmask {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a `HeatmaskError` is printed alone, with exit status 1."""
    try:
        app()
    except HeatmaskError as error:
        Console(stderr=True, highlight=False).print(
            f"[red]heatmask: error:[/red] {escape(str(error))}"
        )
        sys.exit(1)
