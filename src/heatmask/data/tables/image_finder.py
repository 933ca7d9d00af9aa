"""Find the images that a table names, however it spells their paths."""

import os
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from heatmask.errors import InputError


class ImageFinder:
    r"""Finds images below a folder by the paths of a table.

    A path is taken as it is written; if nothing is there, with ``\`` for ``/``, in other case or
    another Unicode form (as it becomes on the way from Windows or macOS to Linux), if exactly one
    file then fits.

    Parameters
    ----------
    folder
        The folder that the paths begin in.

    Raises
    ------
    InputError
        There is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise InputError(f"There is no folder of images at {folder}.")

    def __call__(self, written: str) -> Path:
        """Return the path of an image, without ``..`` in it; one that is not there if none fits."""
        path = Path(os.path.normpath(self.folder / written))
        if path.exists():
            return path
        found = self._by_spelling.get(_spell(written), [])
        return found[0] if len(found) == 1 else path

    @cached_property
    def _by_spelling(self) -> dict[str, list[Path]]:
        """Every file and folder below, by its path in the one spelling; read when first needed."""
        found = defaultdict(list)
        for parent, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = Path(parent, name)
                found[_spell(str(path.relative_to(self.folder)))].append(path)
        return found


def _spell(path: str) -> str:
    return os.path.normpath(unicodedata.normalize("NFC", path.replace("\\", "/")).casefold())
