"""Where bundles and the MONAI Label app lie, with Heatmask or with the user; what they say."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heatmask.errors import InputError

DEFAULT_BUNDLE = "brain_mri_gp_unet_segmentation"
OWN_DATA_BUNDLE = "brain_mri_flair_selftrained_segmentation"
"""Whose network and training a user's own data get: nothing in them is for brains."""
BUNDLES_VARIABLE = "HEATMASK_BUNDLES"
"""Environment variable: folders of bundles, separated as in PATH."""
_PACKAGE = Path(__file__).resolve().parents[1]


def find_shipped(name: str) -> Path:
    """Return a folder that comes with Heatmask: ``bundles`` or ``apps/heatmask``.

    A wheel carries them inside the package, a checkout at its top.
    """
    inside = _PACKAGE / "shipped"
    return (inside if inside.is_dir() else _PACKAGE.parents[1]) / name


def list_places() -> list[Path]:
    """Return the folders that bundles are looked for in, the first one first.

    Those of the environment variable `BUNDLES_VARIABLE`, ``bundles`` in the working directory,
    and the shipped ones.

    Raises
    ------
    InputError
        The variable names a folder that is not there.
    """
    named = [
        Path(p).expanduser() for p in os.environ.get(BUNDLES_VARIABLE, "").split(os.pathsep) if p
    ]
    for place in named:
        if not place.is_dir():
            raise InputError(f"{BUNDLES_VARIABLE} must name folders; there is no folder '{place}'.")
    places = [*named, Path("bundles"), find_shipped("bundles")]
    return list(dict.fromkeys(place.resolve() for place in places if place.is_dir()))


def list_folders(places: Iterable[Path] | None = None) -> list[Path]:
    """Return the folders of all bundles, by name; of two with one name the first place's.

    Parameters
    ----------
    places
        By default those of `list_places`.
    """
    found: dict[str, Path] = {}
    for place in list_places() if places is None else places:
        for config in place.glob("*/configs/inference.json"):
            found.setdefault(config.parents[1].name, config.parents[1])
    return [found[name] for name in sorted(found)]


def find_bundle(name: str | Path = DEFAULT_BUNDLE) -> Path:
    """Return the folder of a bundle, by path or by its name in one of `list_places`.

    Raises
    ------
    InputError
        There is no such bundle; the message lists those there are.
    """
    path = Path(name).expanduser()
    if (path / "configs" / "inference.json").is_file():
        return path
    known = {folder.name: folder for folder in list_folders()}
    if str(name) in known:
        return known[str(name)]
    raise InputError(
        f"bundle must be a bundle's folder or one of {', '.join(known) or 'none'}, got {name!s}."
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the content of a bundle's ``metadata.json``; empty without one.

    Raises
    ------
    InputError
        It is no JSON.
    """
    path = folder / "configs" / "metadata.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"A bundle's metadata must be JSON, and {path} is not: {error}") from error
