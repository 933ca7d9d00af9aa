"""Write a bundle for others: its own copy of every option, whatever later defaults are."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from heatmask.bundle.find import find_bundle
from heatmask.errors import OutputError
from heatmask.parts import list_all_options


def export_bundle(bundle: str | Path, folder: Path) -> Path:
    """Copy a bundle to a new folder, all of it or nothing, with every option written out.

    Raises
    ------
    InputError
        There is no such bundle.
    OutputError
        The folder exists, or cannot be written.
    """
    source, folder = find_bundle(bundle), Path(os.path.abspath(folder))
    if folder.exists():
        raise OutputError(f"{folder} exists already. Choose a new folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as partial:
            draft = Path(partial) / folder.name
            shutil.copytree(source, draft)
            for name in ("inference", "train"):
                _write_out(draft / "configs" / f"{name}.json")
            os.rename(draft, folder)
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {folder}: {error}. Check space and permissions."
        ) from error
    return folder


def _write_out(path: Path) -> None:
    """Let a config name every option that it has."""
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "options" in config:  # of Heatmask 0.1 a config names all
        options = {name: option.default for name, option in list_all_options(config).items()}
        text = json.dumps({**options, **config}, indent=4, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
