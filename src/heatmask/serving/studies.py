"""The flat folder of links that the host can list.

MONAI Label lists the files of one folder, not of those below it, and writes its index and
the labels beside them. Studies lie in sub-folders, often on a disk that cannot be written.
So the host gets a work folder with one link per study, to its reference scan
(`heatmask.serving.store.links`). Viewers want volumes: of a picture a copy with one slice is kept
in the work folder, and the link leads there. Of a PACS, links lead to where its series will lie.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from glob import escape
from pathlib import Path

from rich.progress import track

from heatmask.data.cases import SIBLING_FOLDER, Study, find_studies
from heatmask.data.paths import PICTURE_SUFFIXES, get_place, is_picture, split_scan_name
from heatmask.data.readers.pictures import convert_picture
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.errors import InputError, OutputError
from heatmask.pacs import PacsStudies
from heatmask.serving.store.links import SERIES, SUFFIXES, name_sibling, split_link
from heatmask.serving.store.lock import STORE, lock_folder

logger = logging.getLogger(__name__)


LABELS = "slice_labels.csv"
"""Name of the table of image-level labels in a folder of studies, which training reads."""


def index_studies(
    studies: Path,
    workdir: Path,
    sequences: Sequence[str] = ("FLAIR",),
    pattern: str | None = None,
) -> Path:
    """Link every study below a folder into one flat folder, and return that folder.

    Parameters
    ----------
    studies
        Folder of scans, searched to its ends; it is only read. See `choose_studies`.
    workdir
        Where the flat folder is made, one for each `studies`. Made again for the same
        studies, it keeps the labels and drops the links to scans that are gone.
    sequences, pattern
        What counts as a study, see `choose_studies`.

    Raises
    ------
    InputError
        The folder is missing, or holds no study; or a server works with it already.
    OutputError
        The work folder cannot be written.
    """
    if not studies.is_dir():
        raise InputError(
            f"STUDIES must name a folder of scans; there is no folder '{studies}'. Check the path."
        )
    chosen = choose_studies(studies, sequences, pattern)
    index = workdir / _name_index(studies)
    _link_studies(chosen, index)
    logger.info("%d studies from %s are listed in %s", len(chosen), studies, index)
    return index


def index_pacs(source: PacsStudies, index: Path, sequences: Sequence[str] = ("FLAIR",)) -> Path:
    """Link every study of a PACS into a flat folder, and return that folder.

    Nothing is fetched: the links lead to where the series will lie.

    Parameters
    ----------
    source
        The studies of the PACS.
    index
        The flat folder, see `find_pacs_index`.
    sequences
        See `choose_studies`.

    Raises
    ------
    InputError, OutputError
        As `index_studies`.
    """
    chosen = source.choose(sequences)
    _link_studies(chosen, index)
    logger.info("%d studies of %s are listed in %s", len(chosen), source.pacs.url, index)
    return index


def find_pacs_index(url: str, workdir: Path) -> Path:
    """Return the flat folder of a PACS, one for each address."""
    host = re.sub(r"[^A-Za-z0-9.-]+", "_", url.partition("://")[2])
    return workdir / f"{host.strip('_')}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _link_studies(chosen: Sequence[Study], index: Path) -> None:
    workdir = index.parent
    lock = lock_folder(index / STORE)
    links = {name: path for study in chosen for name, path in _list_links(study).items()}
    try:
        links = _convert_pictures(links, workdir / "volumes_of_pictures")
        _write_links(index, links)
    except OSError as error:
        raise OutputError(
            f"The work folder must be writable, '{workdir}' is not: {error}. Give --workdir."
        ) from error
    finally:
        lock.release()


def choose_studies(
    studies: Path, sequences: Sequence[str] = ("FLAIR",), pattern: str | None = None
) -> list[Study]:
    """Return the studies below a folder whose reference scan the host can list.

    Parameters
    ----------
    studies, pattern
        As `heatmask.data.cases.find_studies`.
    sequences
        What the reference of a study may be, the first that is there.

    Raises
    ------
    InputError
        No scan is one of `sequences` or of unknown sequence, or only scans in several files,
        which the host cannot list.
    """
    found = find_studies(studies, pattern, sequences)
    kinds = Counter(next(iter(study.paths)) for study in found)
    if pattern is None and kinds.keys().isdisjoint({*sequences, UNKNOWN}):
        others = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
        raise InputError(
            f"'{studies}' must hold a {' or '.join(sequences)} scan; found by their names and "
            f"headers: {others}. Choose other scans with --pattern, for example --pattern '*t1*'."
        )
    named = [study for study in found if _has_text_names(study)]
    for study in found:
        if study not in named:
            logger.warning(
                "Not served: the name of %r is no UTF-8, which viewers need. Rename it.",
                str(study.reference),
            )
    chosen = [study for study in named if _can_be_linked(study.reference)]
    for study in named:
        if study not in chosen:
            logger.warning(
                "Not served: %s is no DICOM series and no single file (%s).",
                study.reference,
                ", ".join(SUFFIXES),
            )
    if not chosen:
        raise InputError(
            f"'{studies}' must hold DICOM series or scans in single files ({', '.join(SUFFIXES)}); "
            f"its {len(named)} studies are .nhdr. Convert them, or run them through "
            "`heatmask segment`."
        )
    return chosen


def _list_links(study: Study) -> dict[str, Path]:
    """Links of a study by their place in the flat folder."""
    (_, reference), *siblings = study.paths.items()
    links = {f"{study.case}{_suffix(reference)}": get_place(reference)}
    for sequence, path in siblings:
        name = name_sibling(sequence) + _suffix(path).removesuffix(SERIES)
        links[f"{SIBLING_FOLDER}/{study.case}/{name}"] = get_place(path)
    return links


def _suffix(path: Path) -> str:
    if is_picture(path):
        return SUFFIXES[0]
    suffix = split_scan_name(path.name)[1].lower()
    return SERIES if path.is_dir() or not suffix else suffix


def _has_text_names(study: Study) -> bool:
    try:
        "".join(map(str, study.paths.values())).encode()
    except UnicodeEncodeError:
        return False
    return True


def _can_be_linked(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith((*SUFFIXES, *PICTURE_SUFFIXES))


def _convert_pictures(links: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Replace pictures by copies with one slice in a folder; damaged ones are left out."""
    pictures = [name for name, path in links.items() if is_picture(path)]
    converted = dict(links)
    for name in track(pictures, "Converting pictures", disable=not pictures):
        try:
            converted[name] = _update_copy(links[name], folder)
        except InputError as error:
            logger.warning("Not served: %s", error)
            del converted[name]
    if not converted:
        raise InputError(
            f"There must be a picture that can be read, and none of {len(pictures)} can. The "
            "lines above say why."
        )
    return converted


def _update_copy(picture: Path, folder: Path) -> Path:
    """Return a picture's copy as a volume, made again if the picture has changed since."""
    digest = hashlib.sha256(str(picture).encode()).hexdigest()[:16]
    copy = folder / digest / (split_scan_name(picture.name)[0] + SUFFIXES[0])
    changed_ns = picture.stat().st_mtime_ns
    if not copy.exists() or copy.stat().st_mtime_ns != changed_ns:
        copy.parent.mkdir(parents=True, exist_ok=True)
        convert_picture(picture, copy)
        os.utime(copy, ns=(changed_ns, changed_ns))
    return copy


def _name_index(studies: Path) -> str:
    """Name of the flat folder: readable, and different for every folder of studies."""
    path = studies.resolve()
    return f"{path.name or 'root'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _check_unlabelled(index: Path, link: Path, target: Path | None) -> None:
    """Refuse to let a name stand for another scan while a label is kept under it."""
    case = split_link(link)[0]
    kept = index / STORE / "labels" / case
    labels = [*index.glob(f"labels/*/{escape(case)}.*"), *[kept] * kept.is_dir()]
    if target is not None and labels and target.resolve() != link.resolve():
        raise InputError(
            f"A study with a label must stay where it is: '{link.name}' was {link.readlink()} and "
            f"would be {target}, with the label {min(labels)} of the former. Move the label away, "
            "give another --workdir, or rename the scan."
        )


def _write_links(index: Path, links: dict[str, Path]) -> None:
    index.mkdir(parents=True, exist_ok=True)
    for path in [*index.iterdir(), *index.glob(f"{SIBLING_FOLDER}/*/*")]:
        target = links.get(str(path.relative_to(index)))
        if path.is_symlink() and target != path.readlink():
            if path.parent == index:
                _check_unlabelled(index, path, target)
            path.unlink()
    for name, target in links.items():
        if not os.path.lexists(index / name):  # A file of this name was uploaded to the server
            (index / name).parent.mkdir(parents=True, exist_ok=True)
            (index / name).symlink_to(target)
