"""DICOM files: their headers, and whether all of a folder are whole.

A folder whose copy stopped must not pass for a shorter scan: every file that is DICOM, or has the
name of one, is used, known to hold no image, or refused by name. Headers only, and no torch.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatmask.data.paths import find_missing_content
from heatmask.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesDescription ProtocolName "
    "PatientID Modality ImageType InstanceNumber "
    "ImagesInAcquisition NumberOfSeriesRelatedInstances "
    "Rows Columns NumberOfFrames SamplesPerPixel BitsAllocated PixelRepresentation "
    "PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "ScanningSequence SequenceVariant InversionTime EchoTime RepetitionTime "
    "ContrastBolusAgent SliceThickness "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # of float, double and integer pixels
_UNDEFINED_LENGTH = 0xFFFFFFFF  # compressed pixels
_DEFLATED = "1.2.840.10008.1.2.1.99"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# Of slices that are compressed as files, or still on their way.
_WRAPPED = ".gz .bz2 .xz .zst .zip .part .partial .filepart .crdownload .download .tmp".split()
_MAX_NAMED = 10


@dataclass(frozen=True)
class DicomSlice:
    """A slice of a series: one file, or one frame of a file that holds several.

    Attributes
    ----------
    path : the file
    header : the part of its header that is needed here
    frame : which frame of the file, from 0; None for a file of one slice
    """

    path: Path
    header: "Dataset"
    frame: int | None = None


class DamagedFileError(Exception):
    """What is wrong with a file, in a few words."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins like DICOM, whatever its name.

    Either with a preamble and the marker, or at once with the first elements of a header, as old
    software writes it. A link to a file that is not there is none.
    """
    if not path.exists():
        return False
    with _explain_unreadable(path), path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    has_type = start[4:6].isalpha() and start[4:6].isupper()
    is_short = start[5:8] == bytes(3)  # an element without a type, of less than 256 bytes
    return start[:2] in (b"\x08\x00", b"\x02\x00") and (has_type or is_short)


def is_dicom_folder(folder: Path) -> bool:
    """Whether any file directly in a folder is DICOM (hidden files do not count)."""
    return any(is_dicom(path) for path in _list_files(folder))


def read_slices(folder: Path) -> list[DicomSlice]:
    """All images directly in a folder.

    Objects without an image (reports, segmentations, directory files) and files that are not
    DICOM are passed over.

    Raises
    ------
    InputError
        Files are damaged, or are no DICOM though they have the names of slices.
    """
    slices, damaged, others = [], {}, []
    for path in _list_files(folder):
        if not is_dicom(path):
            others.append(path)
            continue
        try:
            header = _read_header(path)
        except DamagedFileError as error:
            damaged[path] = str(error)
        else:
            slices += [DicomSlice(path, header)] if header is not None else []
    shapes = {_shape_of(path) for path in (*damaged, *(one.path for one in slices))}
    damaged |= {path: _describe_stray(path) for path in others if _looks_like(path, shapes)}
    if damaged:
        raise InputError(_describe_damaged(folder, damaged, len(slices)))
    return slices


def read_slice(path: Path) -> DicomSlice:
    """One file as a slice.

    Raises
    ------
    InputError
        It holds no image, or is damaged.
    """
    try:
        header = _read_header(path)
    except DamagedFileError as error:
        raise InputError(f"'{path}' is not complete ({error}). Copy or export it again.") from error
    if header is None:
        raise InputError(
            f"The DICOM file '{path}' holds no image (a report or directory file). Give one "
            "slice, or the folder of a series."
        )
    return DicomSlice(path, header)


def _list_files(folder: Path) -> list[Path]:
    """Files and links to files, also to missing ones; of the hidden ones those that are DICOM.

    A program that copies may keep a file hidden until it is complete.
    """
    found = (p for p in folder.iterdir() if p.is_file() or (p.is_symlink() and not p.is_dir()))
    return sorted(path for path in found if not path.name.startswith(".") or is_dicom(path))


@contextmanager
def _explain_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be read: {error.strerror}. Change its permissions."
        ) from error


def _read_header(path: Path) -> "Dataset | None":
    """Read up to the pixels; None if the file holds no image."""
    # Imported late: importing this module must stay cheap for the command line.
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    pixels: list[tuple[int, int]] = []  # declared length, and where they begin

    def reached_pixels(tag: int, _vr: Any, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels.append((length, file.tell()))
        return tag in _PIXEL_TAGS

    tags: Any = [Tag(tag_for_keyword(name) or 0) for name in _TAGS]
    with _explain_unreadable(path), path.open("rb") as file:
        try:
            header = read_partial(file, reached_pixels, force=True, specific_tags=tags)
            is_image = _is_image(header)
        except Exception as error:  # pydicom raises whatever its parts do
            raise DamagedFileError("its header is cut off or damaged") from error
    if not is_image:
        return None
    if not pixels:
        raise DamagedFileError("it ends before the pixels")
    length, start = pixels[0]
    _check_length(header, length, path.stat().st_size - start)
    return header


def _is_image(header: Any) -> bool:
    """Whether a header is that of an image.

    Raises
    ------
    DamagedFileError
        It ends before that is known.
    """
    from pydicom.uid import UID

    meta = header.file_meta
    if "TransferSyntaxUID" not in meta and "SOPInstanceUID" not in header:  # what follows the class
        raise DamagedFileError("its header is cut off or damaged")
    kind = UID(meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "")
    if kind.name == kind:  # of a vendor
        return bool(header.get("Rows"))
    return "Image Storage" in kind.name


def _check_length(header: "Dataset", length: int, left: int) -> None:
    """Compare the pixels (bytes) with what the header says and with what is left of the file."""
    try:
        bits = int(header.BitsAllocated) * int(header.get("SamplesPerPixel") or 1)
        count = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedFileError("its header does not say how many pixels it has") from error
    if length == _UNDEFINED_LENGTH:
        return  # the decoder refuses what is cut
    needed = (bits * count + 7) // 8
    if header.file_meta.get("TransferSyntaxUID") != _DEFLATED:
        length = min(length, left)
    if length < needed:
        raise DamagedFileError(f"{length:,} of {needed:,} bytes of pixels")


def _shape_of(path: Path) -> str:
    """The name of a file without its numbers; a hash is one."""
    return re.sub(r"[0-9A-Fa-f-]{16,}|[\d.]*\d", "0", path.name)


def _looks_like(path: Path, shapes: set[str]) -> bool:
    """Whether a file that is no DICOM seems to be one of the slices with names of such shapes.

    Or stands for one: "IM0014.gz" where there is no "IM0014".
    """
    shape, bare = _shape_of(path), path.with_suffix("")
    suffix, suffixes = Path(shape).suffix.lower(), {Path(s).suffix.lower() for s in shapes}
    is_empty_slice = is_empty(path) and "0" in shape and suffix in suffixes
    is_wrapped = path.suffix.lower() in _WRAPPED and not bare.exists()
    stands_for_slice = is_wrapped and _shape_of(bare) in shapes
    like = shape in shapes or suffix in DICOM_SUFFIXES or is_empty_slice or stands_for_slice
    return bool(shapes) and like


def is_empty(path: Path) -> bool:
    """Whether a file has no bytes, or is a link to one that is not there."""
    return not path.exists() or path.stat().st_size == 0


def _describe_stray(path: Path) -> str:
    fix = find_missing_content(path)
    if fix:
        return f"a link to a file that is not there: {fix}"
    return "0 bytes" if is_empty(path) else "no DICOM"


def _describe_damaged(folder: Path, damaged: dict[Path, str], whole: int) -> str:
    named = [f"{path.name} ({why})" for path, why in sorted(damaged.items())]
    more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    return (
        f"{len(named)} of {len(named) + whole} DICOM slices in '{folder}' cannot be used: "
        f"{', '.join(named[:_MAX_NAMED])}{more}. Copy or export the series again."
    )
