"""The flat folder of links that the host can list.

MONAI Label lists the files of one folder, not of those below it, and writes its index and
the labels beside them. Studies lie in sub-folders, often on a disk that cannot be written.
So the host gets a work folder with one link per study.
"""

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

from heatmask.data.dicom import read_only_series
from heatmask.data.find import Scan, find_scans, split_scan_name
from heatmask.data.sequence import UNKNOWN, recognise_sequence
from heatmask.errors import InputError, OutputError

logger = logging.getLogger(__name__)

LINKED_SUFFIXES = (".nii.gz", ".nii", ".nrrd")
"""What the host can list and send: one file a scan (a .nhdr has its voxels elsewhere)."""


def index_studies(
    studies: Path, workdir: Path, sequence: str = "FLAIR", pattern: str | None = None
) -> Path:
    """Link every study below a folder into one flat folder, and return that folder.

    Parameters
    ----------
    studies
        Folder of scans, searched to its ends; it is only read. See `choose_studies`.
    workdir
        Where the flat folder is made, one for each `studies`. Made again for the same
        studies, it keeps the labels and drops the links to scans that are gone.
    sequence, pattern
        What counts as a study, see `choose_studies`.

    Raises
    ------
    InputError
        The folder is missing, or holds no study.
    OutputError
        The work folder cannot be written.
    """
    if not studies.is_dir():
        raise InputError(
            f"STUDIES must name a folder of scans; there is no folder '{studies}'. Check the path."
        )
    chosen = choose_studies(studies, sequence, pattern)
    index = workdir / _name_index(studies)
    links = {
        f"{scan.case}{split_scan_name(scan.path.name)[1].lower()}": scan.path.resolve()
        for scan in chosen
    }
    try:
        _write_links(index, links)
    except OSError as error:
        raise OutputError(
            f"The work folder must be writable, '{workdir}' is not: {error}. Give --workdir."
        ) from error
    logger.info("%d studies from %s are listed in %s", len(links), studies, index)
    return index


def choose_studies(
    studies: Path, sequence: str = "FLAIR", pattern: str | None = None
) -> list[Scan]:
    """Return the scans below a folder that are studies of their own.

    With a pattern, that is every scan whose name fits it. Without one, it is every scan of
    the reference sequence by its name, and every scan that no name tells anything about,
    unless a scan of the reference sequence lies in the same folder. Scans of other sequences
    are modalities of a study. Masks are never studies.

    Raises
    ------
    InputError
        No scan counts as a study, or only scans in several files, which the host cannot list.
    """
    scans = find_scans(studies, pattern or "*")
    if pattern is None:
        scans = _choose_by_sequence(studies, scans, sequence)
    chosen = [scan for scan in scans if _can_be_linked(scan)]
    for scan in scans:
        if scan not in chosen:
            logger.warning(
                "Not served: %s is no single file (%s).", scan.path, ", ".join(LINKED_SUFFIXES)
            )
    if not chosen:
        raise InputError(
            f"'{studies}' must hold scans in single files ({', '.join(LINKED_SUFFIXES)}); its "
            f"{len(scans)} scans are DICOM series or .nhdr. Convert them, or run them through "
            "`heatmask segment`."
        )
    return chosen


def _choose_by_sequence(studies: Path, scans: list[Scan], sequence: str) -> list[Scan]:
    found = {scan: _recognise(scan) for scan in scans}
    taken = {scan.path.parent for scan in scans if found[scan] == sequence}
    chosen = [
        scan
        for scan in scans
        if found[scan] == sequence or (found[scan] == UNKNOWN and scan.path.parent not in taken)
    ]
    counts = Counter(found[scan] for scan in scans if scan not in chosen)
    others = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    if not chosen:
        raise InputError(
            f"'{studies}' must hold a {sequence} scan; found by their names and headers: {others}. "
            "Choose other scans with --pattern, for example --pattern '*t1*'."
        )
    if others:
        logger.info("Not studies of their own: %s", others)
    return chosen


def _recognise(scan: Scan) -> str:
    header = read_only_series(scan.path).header if scan.path.is_dir() else None
    return recognise_sequence(scan.path, header)


def _can_be_linked(scan: Scan) -> bool:
    return scan.path.is_file() and scan.path.name.lower().endswith(LINKED_SUFFIXES)


def _name_index(studies: Path) -> str:
    """Name of the flat folder: readable, and different for every folder of studies."""
    path = studies.resolve()
    return f"{path.name or 'root'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _check_unlabelled(index: Path, link: Path, target: Path | None) -> None:
    """Refuse to let a name stand for another scan while a label is kept under it."""
    labels = sorted(index.glob(f"labels/*/{split_scan_name(link.name)[0]}.*"))
    if target is not None and labels:
        raise InputError(
            f"A study with a label must stay where it is: '{link.name}' was {link.readlink()} and "
            f"would be {target}, with the label {labels[0]} of the former. Move the label away, "
            "give another --workdir, or rename the scan."
        )


def _write_links(index: Path, links: dict[str, Path]) -> None:
    index.mkdir(parents=True, exist_ok=True)
    for path in index.iterdir():
        if path.is_symlink() and links.get(path.name) != path.readlink():
            _check_unlabelled(index, path, links.get(path.name))
            path.unlink()
    for name, target in links.items():
        if not os.path.lexists(index / name):  # A file of this name was uploaded to the server
            (index / name).symlink_to(target)
