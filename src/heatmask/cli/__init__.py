"""The `heatmask` command, thin over the bundles' configs.

torch and MONAI take seconds to import, so each command imports what it needs, and
`heatmask --help` nothing of it.
"""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from heatmask import __version__
from heatmask.cli.bundles import bundles, export
from heatmask.cli.labels import labels
from heatmask.cli.learning import learn, learned
from heatmask.cli.methods import check, methods
from heatmask.cli.scans import demo, prelabel, segment, serve
from heatmask.cli.training import derive_labels, train
from heatmask.cli.users import users
from heatmask.command_line import console
from heatmask.errors import HeatmaskError
from heatmask.experiments.commands import compare, evaluate, retrain, simulate


class Commands(TyperGroup):
    """The commands; the first name of `check` still works."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        return super().get_command(ctx, "check" if cmd_name == "doctor" else cmd_name)


app = typer.Typer(
    name="heatmask",
    cls=Commands,
    help="Image-level classifiers, explained, as segmenters: one MRI in, a heatmap and a "
    "pseudo-mask to correct in 3D Slicer out.",
    epilog="Start with: heatmask demo   then: heatmask segment SCAN   and: heatmask serve STUDIES. "
    "Pseudo-masks are for research and to be corrected by a radiologist: not a diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    demo, segment, serve, prelabel, labels, learn, learned, bundles, export,
    evaluate, compare, retrain, simulate, train, derive_labels, methods, check,
):  # fmt: skip
    app.command()(command)
app.add_typer(users)


@app.callback(invoke_without_command=True)
def show_version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
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
