"""Find the scans that a path stands for, and give each a name.

No torch here: the command line checks its inputs before it loads a network.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from heatmask.data.finding.masks import MASK_EXAMPLES, MASK_FOLDERS, is_mask
from heatmask.data.finding.passed_over import PassedOver, find_reason, list_names
from heatmask.data.paths import (
    SCAN_KINDS,
    VOLUME_SUFFIXES,
    check_scan_path,
    get_name,
    get_place,
    get_stem,
    is_picture,
    split_scan_name,
)
from heatmask.data.readers.dicom_files import is_dicom, is_dicom_folder, is_empty
from heatmask.data.readers.dicom_series import DicomSeries, read_only_series, read_only_slice
from heatmask.data.recognition import find_clue
from heatmask.data.recognition.bids import DATASET_FILE, NO_RAW_FOLDERS, is_no_structure
from heatmask.data.recognition.sequence import Header, SequenceClue
from heatmask.errors import InputError, OptionError

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

    @cached_property
    def clue(self) -> SequenceClue:
        """What is known about the sequence."""
        return find_clue(self.path, self.header)


class Found(NamedTuple):
    """What a search found.

    Attributes
    ----------
    scans : sorted by path
    notes : sentences for people on what was passed over or left out, and why
    """

    scans: list[Scan]
    notes: list[str]


def find_scans(path: str | Path, pattern: str | None = None) -> Found:
    """List the scans at or below a path.

    Parameters
    ----------
    path
        A NIfTI, an NRRD, a DICOM series folder, a file of one as a single slice, a picture, or a
        folder with any but single slices below.
        Hidden files and folders are not looked at. What else is passed over is in the notes,
        with the reason: see `heatmask.data.finding.passed_over`.
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
    _check_pattern(pattern)
    path = check_scan_path(path)
    if path.is_file():
        header = _check_scan_file(path)
        return Found([replace(scan, header=header) for scan in name_cases([path])], [])
    notes: list[str] = []
    headers = _search_folder(path, pattern, notes)
    scans = [replace(scan, header=headers[scan.path]) for scan in name_cases(headers)]
    return Found(scans, notes)


def name_cases(paths: Iterable[Path]) -> list[Scan]:
    """Give each path a unique case name that is safe as a folder name anywhere.

    Equal names get as many parent folders in front as make them differ, never a number: a
    number would pass to another scan when one is added, and with it the masks that are kept
    under it. Names that differ in case alone are equal, as some file systems do.
    """
    paths = list(paths)
    depths = dict.fromkeys(paths, 0)
    while True:
        names = {path: _name_at_depth(path, depth) for path, depth in depths.items()}
        counts = Counter(name.casefold() for name in names.values())
        equal = [path for path in paths if counts[names[path].casefold()] > 1]
        deeper = [path for path in equal if depths[path] < len(get_place(path).parents) - 1]
        if not deeper:
            break
        for path in deeper:
            depths[path] += 1
    for path in equal:  # These differ only in signs that are unsafe in names
        digest = hashlib.sha256(str(get_place(path)).encode()).hexdigest()[:8]
        names[path] = f"{_make_safe(get_stem(path))}_{digest}"
    return [Scan(names[path], path) for path in paths]


def _name_at_depth(path: Path, depth: int) -> str:
    parents = get_place(path).parts[-depth - 1 : -1] if depth else ()
    return _make_safe("_".join([*parents, get_stem(path)]))


def _make_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[-_MAX_CASE_LENGTH:] or "scan"


def _check_pattern(pattern: str | None) -> None:
    if pattern is not None and (not isinstance(pattern, str) or not pattern or "/" in pattern):
        raise OptionError(
            f"pattern must be a glob on file names such as '*-t2f.nii.gz', got {pattern!r}. "
            "Folders below are searched anyway."
        )


def _check_scan_file(path: Path) -> Header | None:
    """Refuse a file that is no scan; return the header of one that is a DICOM slice."""
    if is_mask(path):
        raise InputError(
            f"'{path.name}' is a mask by its name ({MASK_EXAMPLES}) or its folder's "
            f"({', '.join(MASK_FOLDERS)}). Give the scan itself, or rename the file."
        )
    if is_no_structure(get_stem(path)):
        raise InputError(
            f"'{path.name}' is named like a functional image, a field map or a parameter map. Give "
            "a structural scan, or rename the file."
        )
    if split_scan_name(path.name)[1]:
        return None
    if is_dicom(path):
        return read_only_slice(path).header
    suffix = split_scan_name(path.resolve().name)[1]
    fix = f"Give the link the suffix {suffix}" if suffix else "Convert it, or check the path"
    raise InputError(f"'{path}' is no scan: not {SCAN_KINDS}. {fix}.")


def _search_folder(
    folder: Path, pattern: str | None, notes: list[str]
) -> dict[Path, Header | None]:
    """Scans below a folder in the order of their paths, with the headers of DICOM series."""
    passed_over = PassedOver()
    candidates = sorted(_walk_scans(folder, pattern, passed_over))
    paths = [path for path in candidates if _fits(path, pattern)]
    if not paths:
        _raise_nothing_found(folder, pattern, candidates, passed_over)
    if passed_over:
        notes.append(f"Passed over below '{folder}': {passed_over}.")
    series = _read_series([path for path in paths if path.is_dir()], len(paths) == 1, notes)
    headers: dict[Path, Header | None] = {path: None for path in paths if not path.is_dir()}
    headers |= {path: one.header for path, one in series.items()}
    if not headers:
        raise InputError(
            f"None of the {len(paths)} DICOM folders in '{folder}' can be read. {' '.join(notes)}"
        )
    return dict(sorted(headers.items()))


def _fits(path: Path, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(get_name(path), pattern)


def _read_series(folders: list[Path], alone: bool, notes: list[str]) -> dict[Path, DicomSeries]:
    """Read the series of DICOM folders; in an archive, bad ones are named and left out."""
    series = {}
    for folder in folders:
        try:
            series[folder] = read_only_series(folder)
        except InputError as error:
            if alone:
                raise
            notes.append(f"Left out: {error}")
    notes += _describe_split_series(series)
    return series


def _describe_split_series(series: dict[Path, DicomSeries]) -> Iterator[str]:
    folders: dict[str, list[str]] = {}
    for folder, one in series.items():
        folders.setdefault(one.uid, []).append(str(folder))
    for uid, names in folders.items():
        if uid and len(names) > 1:
            yield (
                f"One DICOM series lies in {list_names(names, 'folders')}, and each is taken as a "
                "scan of its own. Put its files into one folder."
            )


def _walk_scans(folder: Path, pattern: str | None, passed_over: PassedOver) -> Iterator[Path]:
    """Scan files below a folder, and every folder that holds DICOM files directly."""
    wants_pictures = is_picture(pattern or "")
    for name, folders, files in os.walk(folder, onerror=_raise_unreadable):
        parent = Path(name)
        folders[:] = _choose_folders(parent, folders, files, passed_over)
        shown = [parent / file for file in files if not file.startswith(".")]
        scans = {path for path in shown if split_scan_name(path.name)[1]}
        for path in shown:
            reason = find_reason(path, wants_pictures)
            if reason and _fits(path, pattern):
                passed_over.add(reason, path)
            elif not reason and path in scans:
                yield path
        if len(shown) == len(scans):
            continue
        if is_dicom_folder(parent):
            yield parent
        else:
            for path in {*shown} - scans:
                if is_empty(path) and not path.is_symlink():
                    passed_over.add("of 0 bytes", path)


def _choose_folders(
    parent: Path, folders: list[str], files: list[str], passed_over: PassedOver
) -> list[str]:
    """The folders to search: not hidden, no links, of BIDS the raw scans."""
    chosen = []
    for path in (parent / name for name in folders if not name.startswith(".")):
        if path.is_symlink():
            passed_over.add("linked as folders, give the folder itself", path)
        elif DATASET_FILE in files and path.name in NO_RAW_FOLDERS:
            passed_over.add("beside the raw scans of BIDS, give the folder to search it", path)
        else:
            chosen.append(path.name)
    return chosen


def _raise_unreadable(error: OSError) -> None:
    raise InputError(
        f"The folder '{error.filename}' cannot be searched: {error.strerror}. Change its "
        "permissions, or give a folder beside it."
    ) from error


def _raise_nothing_found(
    folder: Path, pattern: str | None, candidates: list[Path], passed_over: PassedOver
) -> None:
    others = f" Passed over: {passed_over}." if passed_over else ""
    if candidates:
        names = ", ".join(f"'{path.name}'" for path in candidates[:3])
        raise InputError(
            f"The pattern '{pattern}' matches none of the {len(candidates)} scans below "
            f"'{folder}', such as {names}.{others}"
        )
    raise InputError(
        f"There is no scan in '{folder}' or a folder below it: no *{', *'.join(VOLUME_SUFFIXES)} "
        f"and no DICOM series.{others} Give {SCAN_KINDS}, or a folder of them."
    )
