"""What a path stands for by its own name and place, and whether its content is here.

Never by what a link points to: git-annex and DataLad keep scans as links to files named by a hash.
They and Git LFS leave links that lead nowhere, or small texts, in place of files not yet fetched.
"""

import os
from pathlib import Path

from heatmask.errors import InputError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr")
SCAN_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
SCAN_KINDS = (
    "a NIfTI (.nii, .nii.gz), an NRRD (.nrrd, .nhdr), a DICOM series folder, a DICOM slice "
    "or a picture"
)
"""For messages."""
_ANNEX = "fetch it with `git annex get` or `datalad get`"
_POINTERS = {
    b"/annex/objects/": _ANNEX,
    b"version https://git-lfs": "fetch it with `git lfs pull`",
}
_LARGEST_POINTER_BYTES = 32768  # git-annex's own limit


def split_scan_name(name: str) -> tuple[str, str]:
    """Split a file name into stem and scan suffix; the suffix is empty for other files."""
    for suffix in SCAN_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def is_picture(path: str | Path) -> bool:
    """Whether a file is a 2D picture without geometry, by its name."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def get_place(path: Path) -> Path:
    """Absolute path without following links, the last or any other."""
    return Path(os.path.abspath(path))


def get_name(path: Path) -> str:
    """Name of a file or folder; the real one also of "."."""
    return get_place(path).name


def get_stem(path: Path) -> str:
    """Name of a folder; of a file without its scan suffix."""
    name = get_name(path)
    return name if path.is_dir() else split_scan_name(name)[0]


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


def check_scan_path(path: str | Path) -> Path:
    """Return the path of a scan, with the home folder for ``~``.

    Raises
    ------
    InputError
        Nothing is there, or only a pointer to content that is not on this machine.
    """
    path = Path(path).expanduser()
    fix = find_missing_content(path)
    if fix:
        raise InputError(f"The content of '{path}' is not on this machine: {fix}.")
    if not path.exists():
        raise InputError(f"There is no scan at '{path}'. Check the path.")
    return path
