"""What a NIfTI or NRRD claims to hold, and whether it does, before anybody reads its voxels.

Readers take memory for what the header claims. So the header comes first, from the file's first
bytes; then the file is unpacked piece by piece, and has to hold what it claimed.
"""

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from heatmask.data.paths import split_scan_name
from heatmask.data.readers.nifti import parse_header
from heatmask.errors import InputError
from heatmask.serving.web.limits import MB, Limits, TooLargeError

_CHUNK_BYTES = 1 << 20
_NRRD_HEADER_BYTES = 1 << 18
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8"), 1),
    **dict.fromkeys(("uint8_t",), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16"), 2),
    **dict.fromkeys(("int16_t", "ushort", "unsigned short", "unsigned short int", "uint16"), 2),
    **dict.fromkeys(("uint16_t",), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int"), 4),
    **dict.fromkeys(("uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64"), 8),
    **dict.fromkeys(("signed long long int", "int64_t", "ulonglong", "unsigned long long"), 8),
    **dict.fromkeys(("unsigned long long int", "uint64", "uint64_t", "double"), 8),
}


def check_volume(path: Path, limits: Limits) -> None:
    """Refuse a file whose voxels are too many, or fewer than its header claims.

    Raises
    ------
    InputError
        It is no NIfTI or NRRD in one file, or is cut off.
    TooLargeError
        It holds, or claims, more than is allowed.
    """
    try:
        if split_scan_name(path.name)[1].lower() == ".nrrd":
            _check_nrrd(path, limits)
        else:
            _check_nifti(path, limits)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"'{path.name}' is cut off or damaged ({error}). Send it again."
        ) from error


def _check_nifti(path: Path, limits: Limits) -> None:
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        start = file.read(540)
        try:
            header = parse_header(start)
            shape, itemsize = header.get_data_shape(), header.get_data_dtype().itemsize
            offset = float(header["vox_offset"])
        except Exception as error:  # nibabel raises whatever the bytes lead it to
            raise InputError(
                f"'{path.name}' does not begin like a NIfTI. Send it again."
            ) from error
        # With any other word there, ITK takes the file for Analyze, which knows no orientation.
        if header["magic"].item() != header.single_magic:
            raise InputError(
                f"'{path.name}' must hold header and voxels in one file, and say so by "
                f"{header.single_magic.decode()!r}. Save it as .nii.gz."
            )
        if not (math.isfinite(offset) and 0 <= offset <= MB):
            raise InputError(f"'{path.name}' says that its voxels begin at byte {offset:g}.")
        needed = int(offset) + itemsize * _count_voxels(path, shape, limits)
        _measure(path, needed, len(start), _read_on(file), limits)


def _check_nrrd(path: Path, limits: Limits) -> None:
    with path.open("rb") as file:
        start = file.read(_NRRD_HEADER_BYTES)
        end = re.search(rb"\r?\n\r?\n", start)
        if not (start.startswith(b"NRRD") and end):
            raise InputError(f"'{path.name}' does not begin like an NRRD. Send it again.")
        fields = _read_fields(path, start[: end.start()].decode("ascii", "replace"))
        if {"datafile", "lineskip", "byteskip"} & fields.keys():
            raise InputError(
                f"'{path.name}' must hold its voxels right behind the header, in the same file. "
                "Save it as one .nrrd."
            )
        itemsize = _NRRD_TYPES.get(fields.get("type", "").lower())
        if itemsize is None:
            raise InputError(f"'{path.name}' must say the type of its voxels, a number.")
        sizes = fields.get("sizes", "")
        if not re.fullmatch(r"\d{1,9}( +\d{1,9}){1,6}", sizes.strip()):
            raise InputError(f"'{path.name}' must say its sizes, got {sizes[:40]!r}.")
        needed = itemsize * _count_voxels(path, tuple(map(int, sizes.split())), limits)
        file.seek(end.end())
        encoding = fields.get("encoding", "").lower()
        if encoding in ("gzip", "gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                _measure(path, needed, 0, _read_on(unpacked), limits)
        elif encoding == "raw":
            _measure(path, needed, 0, _read_on(file), limits)
        else:
            raise InputError(
                f"'{path.name}' must be encoded as raw or gzip, got {encoding[:20]!r}. "
                "Save it again."
            )


def _read_fields(path: Path, header: str) -> dict[str, str]:
    """Return the fields of an NRRD header; their names without spaces, in lower case.

    What stands before ``:=`` is a key of the writer's own. It counts as a field too: ITK reads
    ``data file: LIST :=`` as one, and the lines that follow as names of files.
    """
    lines = (line for line in header.splitlines()[1:] if not line.startswith("#"))
    pairs = [line.partition(":") for line in lines if ":" in line]
    fields = {name.replace(" ", "").lower(): value.strip() for name, _, value in pairs}
    if len(fields) < len(pairs):  # Readers differ in which of two they take
        raise InputError(f"'{path.name}' says something twice in its header. Save it again.")
    return fields


def _count_voxels(path: Path, shape: tuple[int, ...], limits: Limits) -> int:
    count = int(np.prod(shape, dtype=object)) if shape else 0
    if count < 1 or min(shape) < 1:
        raise InputError(f"'{path.name}' holds no voxels, its sizes are {shape}.")
    if count > limits.voxels or max(shape) > limits.axis:
        raise TooLargeError(
            f"'{path.name}' claims {' x '.join(map(str, shape))} voxels; at most {limits.voxels:,} "
            f"are taken, and {limits.axis:,} along an axis. Crop or resample it."
        )
    return count


def _read_on(file: object) -> Iterator[int]:
    """Read a file to its end; yield the size of each piece."""
    while piece := file.read(_CHUNK_BYTES):  # type: ignore[attr-defined]
        yield len(piece)


def _measure(path: Path, needed: int, held: int, pieces: Iterator[int], limits: Limits) -> None:
    if needed > limits.unpacked_bytes:
        raise TooLargeError(
            f"'{path.name}' claims {needed:,} bytes, at most {limits.unpacked_bytes:,} are taken."
        )
    for size in pieces:
        held += size
        if held > limits.unpacked_bytes:
            raise TooLargeError(
                f"'{path.name}' unpacks to more than {limits.unpacked_bytes:,} bytes."
            )
    if held < needed:
        raise InputError(
            f"'{path.name}' is cut off: it has {held:,} of {needed:,} bytes. Send it again."
        )
