"""The command that lists the bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.padding import Padding

from heatmask.command_line import console

if TYPE_CHECKING:
    from heatmask.bundle import BundleInfo


def bundles(
    where: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print only the folder of this bundle, for scripts."),
    ] = None,
) -> None:
    """List the bundles, the best first, and where they lie.

    They are looked for in the folders that the environment variable HEATMASK_BUNDLES names, in
    bundles/ below the current folder, and with Heatmask itself; of two with one name the first
    counts.
    """
    from heatmask.bundle import find_bundle, list_bundles

    if where is not None:
        typer.echo(find_bundle(where).resolve())
        return
    found = list_bundles()
    for place in dict.fromkeys(bundle.folder.parent for bundle in found):
        console.print(f"In {escape(str(place))}:", soft_wrap=True)
        for bundle in found:
            if bundle.folder.parent == place:
                show_bundle(bundle)


def export(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or the path of its folder.")],
    folder: Annotated[Path, typer.Argument(help="The new folder; it must not exist.")],
) -> None:
    """Copy a bundle to give away, with every option written out.

    A bundle leaves out options that have their default. The copy names them all, so that it gives
    the same masks when a later version has other defaults.
    """
    from heatmask.bundle.export import export_bundle

    console.print(f"Bundle: {escape(str(export_bundle(bundle, folder)))}", soft_wrap=True)


def show_bundle(bundle: "BundleInfo") -> None:
    """Print what a bundle takes and does, how well, and what its weights may be used for."""
    about = bundle.metadata
    image = about.get("network_data_format", {}).get("inputs", {}).get("image", {})
    takes = " ".join([str(image.get("modality", "")), ", ".join(bundle.sequences)]).strip()
    lines = [f"{takes}. {about.get('task', 'Task not stated')}.", describe_dice(bundle)]
    lines += [f"Weights: {read_licence(about.get('copyright', ''))}."]
    console.print(Padding(f"[bold]{escape(bundle.name)}[/bold]", (0, 0, 0, 2), expand=False))
    console.print(Padding(escape("\n".join(lines)), (0, 0, 1, 6), expand=False))


def describe_dice(bundle: "BundleInfo") -> str:
    """Every mean Dice of a bundle, and what on."""
    if not bundle.evidence:
        return "Dice: not measured."
    protocol = str(bundle.metadata["eval_metrics"].get("protocol", "protocol not stated"))
    dice = ", ".join(str(found).removeprefix("Dice ") for found in bundle.evidence)
    return f"Dice {dice} ({protocol.partition(',')[0]})."


def read_licence(notice: str) -> str:
    """Return the licence that a bundle's copyright notice names after "Weights:"."""
    return notice.partition("Weights: ")[2].partition(",")[0].rstrip(".") or "licence not stated"
