"""The flat folder: a link for each study, to its reference scan; the host can list no others.

``<id>.nii.gz``, ``.nii`` or ``.nrrd`` is a link to a file, ``<id>.series`` to the folder of a DICOM
series. ``modalities/<id>/<sequence>`` links to the other scans of the study.
"""

from pathlib import Path

from heatmask.data.cases import SIBLING_FOLDER
from heatmask.data.paths import split_scan_name

SUFFIXES = (".nii.gz", ".nii", ".nrrd")
"""Of images and labels that clients send and receive: one file each, which ITK reads too."""
SERIES = ".series"
"""Of a link to a DICOM series: its name may be any, also that of a folder beside it."""
_STAR = "star"  # Not every file system knows a file named "T2*"


def list_studies(folder: Path) -> dict[str, Path]:
    """Return the links in a flat folder by the ids of their studies."""
    links = (path for path in sorted(folder.glob("[!.]*")) if path.is_symlink())
    return {split_link(path)[0]: path for path in links if split_link(path)[1]}


def split_link(link: Path) -> tuple[str, str]:
    """Split the name of a link into the id and the suffix; the latter is empty for other files."""
    if link.name.endswith(SERIES):
        return link.name.removesuffix(SERIES), SERIES
    case, suffix = split_scan_name(link.name)
    return case, suffix.lower() if suffix.lower() in SUFFIXES else ""


def find_scan(image: Path) -> Path:
    """Return the user's own path of an image in the flat folder, which tells what the scan is.

    That may itself be a link, to a file named by a hash: it is not followed.
    """
    return image.readlink() if image.is_symlink() else image


def is_study(image: Path) -> bool:
    """Whether an image is a study and stays, and not what a client has sent."""
    return image.is_symlink()


def read_siblings(image: Path) -> dict[str, str]:
    """Return the other scans of a study, by sequence; empty if it has none.

    Parameters
    ----------
    image
        A link, or an uploaded file, in the flat folder.
    """
    folder = image.parent / SIBLING_FOLDER / split_link(image)[0]
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    names = [split_scan_name(path.name)[0].replace(_STAR, "*") for path in paths]
    return {name: str(find_scan(path)) for name, path in zip(names, paths, strict=True)}


def name_sibling(sequence: str) -> str:
    """Return a sequence as the name of a file."""
    return sequence.replace("*", _STAR)
