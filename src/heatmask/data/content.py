"""Whether a file's content is on this machine.

git-annex, DataLad and Git LFS keep links that lead nowhere, or small texts, in place of files that
were not fetched.
"""

import os
from pathlib import Path

from heatmask.errors import InputError

_ANNEX = "fetch it with `git annex get` or `datalad get`"
_POINTERS = {
    b"/annex/objects/": _ANNEX,
    b"version https://git-lfs": "fetch it with `git lfs pull`",
}
_LARGEST_POINTER_BYTES = 32768  # git-annex's own limit


def find_missing_content(path: Path) -> str:
    """How to get the content of a file that is but a pointer to it; empty if it is here."""
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        return _ANNEX if "annex" in target else "its link leads nowhere, bring back the file"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_POINTER_BYTES:
            return ""
        with path.open("rb") as file:
            start = file.read(32)
    except OSError:
        return ""  # The reader says what is wrong
    return next((fix for pointer, fix in _POINTERS.items() if start.startswith(pointer)), "")


def check_content(path: Path) -> None:
    """Refuse a file that is but a pointer.

    Raises
    ------
    InputError
        The content is not on this machine.
    """
    fix = find_missing_content(path)
    if fix:
        raise InputError(f"The content of a scan must be here; that of '{path}' is not: {fix}.")
