"""The command for labels that a server stored."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heatmask.command_line import console
from heatmask.errors import OptionError

if TYPE_CHECKING:
    from heatmask.serving.store.labels import Version


def labels(
    workdir: Annotated[Path, typer.Argument(help="The work folder of a server.")] = Path(
        "work/serve"
    ),
    restore: Annotated[
        tuple[str, int] | None,
        typer.Option(
            metavar="IMAGE VERSION",
            help="Make this version of a final label the current one again.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Copy the current final labels into a new folder, with a table."
        ),
    ] = None,
) -> None:
    """List the labels that a server stored: every version, who made it, when, from which model.

    Nothing is ever overwritten: a restored version becomes a new one. To restore, stop the server
    first; listing and exporting may go on beside it.
    """
    from heatmask.serving.store.export import export_labels, find_stores
    from heatmask.serving.store.labels import is_of

    if restore is not None and export is not None:
        raise OptionError("Give --restore or --export, not both.")
    stores = find_stores(workdir)
    if restore is not None:
        restore_label(workdir, *restore)
    elif export is not None:
        count = export_labels(stores, export)
        _print(f"{count} labels and labels.csv: {export}")
    else:
        for store in stores:
            _print(f"In {store.flat}:")
            images = store.labels.list_images()
            if not images:
                _print("  no labels yet")
            for image in images:
                versions = store.labels.list_versions(image)
                name = versions[-1].image_name
                _print(f"{image} (sent as {name!r})" if name else image)
                current = store.list_current(image).values()
                scan = store.find_scan(image)
                for version in versions:
                    _print(f"  {describe(version, version in current, is_of(version, scan))}")


def restore_label(workdir: Path, image: str, number: int) -> None:
    """Make an earlier version the current one, in the name of who is logged in."""
    from getpass import getuser

    from heatmask.serving.store import Store
    from heatmask.serving.store.export import find_store, find_stores
    from heatmask.serving.store.lock import STORE

    flat = find_store(find_stores(workdir), image).flat
    store = Store(flat, flat / STORE)
    try:
        version = store.restore(image, number, getuser())
    finally:
        store.close()
    _print(f"{image}: {describe(version, is_current=True)}")


def describe(version: "Version", is_current: bool, is_of_scan: bool = True) -> str:
    """Return a line on one version."""
    facts = [
        f"by {version.person}" if version.person else "",
        f"from {version.model}" if version.model else "",
        f"restored from {version.restored_from}" if version.restored_from else "",
        f"without having seen that of {version.conflict}" if version.conflict else "",
        "" if is_of_scan else "of a scan that was replaced",
        "removed" if version.removed else "",
        "current" if is_current else "",
    ]
    line = f"{version.tag} {version.number}  {version.time[:19].replace('T', ' ')} UTC"
    return "  ".join([line, ", ".join(fact for fact in facts if fact)]).rstrip()


def _print(line: str) -> None:
    # Names of files and clients are not always valid text.
    line = line.encode("utf-8", "backslashreplace").decode()
    console.print(line, markup=False, highlight=False, soft_wrap=True)
