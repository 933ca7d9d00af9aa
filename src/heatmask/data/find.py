"""Find the scans that a path stands for, and give each a name.

No torch here: the command line checks its inputs before it loads a network.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from heatmask.data.dicom import (
    DicomSeries,
    is_dicom,
    is_dicom_folder,
    read_only_series,
    read_only_slice,
)
from heatmask.data.flat import PICTURE_SUFFIXES, is_picture
from heatmask.data.sequence import Header, SequenceClue, find_sequence_clue
from heatmask.errors import InputError, OptionError

logger = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr")
SCAN_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
# Reference masks by the habit of public data sets, and what Heatmask writes itself.
NEVER_SCANS = ("*-seg*", "*_seg*", "*_mask.nii.gz", "*_heatmap.nii.gz")
MASK_FOLDERS = ("labelsTr", "labelsTs")
"""Where the Medical Segmentation Decathlon keeps masks under the names of the scans."""
_KINDS = (
    "a NIfTI (.nii, .nii.gz), an NRRD (.nrrd, .nhdr), a DICOM series folder, a DICOM slice "
    "or a picture"
)
_MAX_CASE_LENGTH = 100


@dataclass(frozen=True)
class Scan:
    """One scan to work on.

    Attributes
    ----------
    case : name for people and for output folders; unique in its list, safe in any path
    path : a file, or the folder of a DICOM series
    header : of one DICOM slice; None for other formats
    """

    case: str
    path: Path
    header: Header | None = field(default=None, compare=False, repr=False)

    @property
    def clue(self) -> SequenceClue:
        """What header or name tell about the sequence."""
        return find_sequence_clue(get_name(self.path), self.header)


def find_scans(path: str | Path, pattern: str | None = None) -> list[Scan]:
    """List the scans at or below a path, sorted by path.

    Parameters
    ----------
    path
        A NIfTI, an NRRD, a DICOM series folder, a file of one as a single slice, a picture, or a
        folder with any but single slices below.
        Hidden files and folders, links to folders, and masks by their names
        (`NEVER_SCANS`) or folders (`MASK_FOLDERS`) are passed over.
    pattern
        For folders: glob on the file's name (the folder's for DICOM), such as
        ``*-t2f.nii.gz``; other files are not looked at. Pictures in folders are only looked
        at with a pattern that ends like them (``*.png``): most are no scans.

    Raises
    ------
    InputError
        If there is no scan, a file of another kind, or a DICOM folder with several series.
    OptionError
        If the pattern is empty or names folders.
    """
    path = Path(path).expanduser()
    _check_pattern(pattern)
    if not path.exists():
        raise InputError(f"The scan must exist; got '{path}'. Check the path.")
    if path.is_file():
        header = _check_scan_file(path)
        return [replace(scan, header=header) for scan in name_cases([path])]
    headers = _search_folder(path, pattern)
    return [Scan(scan.case, scan.path, headers[scan.path]) for scan in name_cases(headers)]


def split_scan_name(name: str) -> tuple[str, str]:
    """Split a file name into stem and scan suffix; the suffix is empty for other files."""
    for suffix in SCAN_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def get_name(path: Path) -> str:
    """File name; for a folder the real one, also of "."."""
    return path.resolve().name if path.is_dir() else path.name


def is_mask(path: Path) -> bool:
    """Whether a file is a mask or heatmap, not a scan, by its name or its folder's."""
    name = path.name.lower()
    return path.parent.name in MASK_FOLDERS or any(fnmatchcase(name, p) for p in NEVER_SCANS)


def name_cases(paths: Iterable[Path]) -> list[Scan]:
    """Give each path a unique case name that is safe as a folder name anywhere.

    Equal names get as many parent folders in front as tell them apart, never a number: a
    number would pass to another scan when one is added, and with it the masks that are kept
    under it. Names are told apart without regard to case, as some file systems do.
    """
    paths = list(paths)
    depths = dict.fromkeys(paths, 0)
    while True:
        names = {path: _name_at_depth(path, depth) for path, depth in depths.items()}
        counts = Counter(name.casefold() for name in names.values())
        equal = [path for path in paths if counts[names[path].casefold()] > 1]
        deeper = [path for path in equal if depths[path] < len(path.resolve().parents) - 1]
        if not deeper:
            break
        for path in deeper:
            depths[path] += 1
    for path in equal:  # Only signs that are unsafe in names tell these apart
        digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        names[path] = f"{_make_safe(_stem(path))}_{digest}"
    return [Scan(names[path], path) for path in paths]


def _name_at_depth(path: Path, depth: int) -> str:
    parents = path.resolve().parts[-depth - 1 : -1] if depth else ()
    return _make_safe("_".join([*parents, _stem(path)]))


def _stem(path: Path) -> str:
    return get_name(path) if path.is_dir() else split_scan_name(path.name)[0]


def _make_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[-_MAX_CASE_LENGTH:] or "scan"


def _check_pattern(pattern: str | None) -> None:
    if pattern is not None and (not isinstance(pattern, str) or not pattern or "/" in pattern):
        raise OptionError(
            f"pattern must be a glob on file names, got {pattern!r}. "
            "Give for example '*-t2f.nii.gz'; folders below are searched anyway."
        )


def _check_scan_file(path: Path) -> Header | None:
    """Refuse a file that is no scan; return the header of one that is a DICOM slice."""
    if is_mask(path):
        raise InputError(
            f"The scan must not be a mask; '{path.name}' is one by its name "
            f"({', '.join(NEVER_SCANS)}) or its folder's ({', '.join(MASK_FOLDERS)}). "
            "Give the scan itself, or rename the file."
        )
    if split_scan_name(path.name)[1]:
        return None
    if is_dicom(path):
        return read_only_slice(path).header
    raise InputError(f"The scan must be {_KINDS}; got '{path}'. Convert it, or check the path.")


def _search_folder(folder: Path, pattern: str | None) -> dict[Path, Header | None]:
    """Scans below a folder in the order of their paths, with the headers of DICOM series."""
    wants_pictures = is_picture(pattern or "")
    candidates = sorted(p for p in _walk_scans(folder) if wants_pictures or not is_picture(p))
    paths = [path for path in candidates if pattern is None or fnmatchcase(get_name(path), pattern)]
    if not paths:
        _raise_nothing_found(folder, pattern, candidates)
    series = _read_series([path for path in paths if path.is_dir()], alone=len(paths) == 1)
    headers: dict[Path, Header | None] = {path: None for path in paths if not path.is_dir()}
    headers |= {path: one.header for path, one in series.items()}
    if not headers:
        raise InputError(
            f"The folder must hold a scan that can be read; of the {len(paths)} DICOM folders in "
            f"'{folder}' none can. The lines above say why."
        )
    return dict(sorted(headers.items()))


def _read_series(folders: list[Path], alone: bool) -> dict[Path, DicomSeries]:
    """Read the series of DICOM folders; in an archive, bad ones are named and left out."""
    series = {}
    for folder in folders:
        try:
            series[folder] = read_only_series(folder)
        except InputError as error:
            if alone:
                raise
            logger.warning("Left out: %s", error)
    return series


def _walk_scans(folder: Path) -> Iterator[Path]:
    """Scan files below a folder, and every folder that holds DICOM files directly."""
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        scans = [name for name in files if split_scan_name(name)[1] and name[0] != "."]
        paths = (Path(parent, name) for name in scans)
        yield from (path for path in paths if not is_mask(path))
        if len(files) > len(scans) and is_dicom_folder(Path(parent)):
            yield Path(parent)


def _raise_unreadable(error: OSError) -> None:
    raise InputError(
        f"Every folder searched must be readable; '{error.filename}' is not "
        f"({error.strerror}). Change its permissions, or give a folder beside it."
    ) from error


def _raise_nothing_found(folder: Path, pattern: str | None, candidates: list[Path]) -> None:
    if candidates:
        names = ", ".join(f"'{path.name}'" for path in candidates[:3])
        raise InputError(
            f"The pattern must match a scan; '{pattern}' matches none of the "
            f"{len(candidates)} scans below '{folder}', such as {names}. Change the pattern."
        )
    raise InputError(
        f"The folder must hold a scan; searched '{folder}' and all folders below it for "
        f"*{', *'.join(VOLUME_SUFFIXES)} and DICOM series and found none (masks named "
        f"{', '.join(NEVER_SCANS)} do not count). Give {_KINDS}, or a folder of them."
    )
