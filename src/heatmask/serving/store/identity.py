"""Which scan a label was made of, so that another one in its place does not take the label."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from heatmask.data.readers.dicom_files import read_slices
from heatmask.serving.store.durable import measure_sha256


def identify(scan: Path) -> dict[str, Any]:
    """Return what tells a scan from others: a SHA-256, and when and how large it was.

    The SHA-256 is that of a file's content; of a series that of its SOP instance UIDs.

    Raises
    ------
    OSError, InputError
        It is not there, or cannot be read.
    """
    size, changed_ns = _look_at(scan)
    return {"sha256": _measure(scan, size, changed_ns), "size": size, "changed_ns": changed_ns}


def is_same(scan: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether a scan is the one that was recorded; a file that nobody touched is not read again.

    Raises
    ------
    OSError, InputError
        As `identify`.
    """
    size, changed_ns = _look_at(scan)
    if (size, changed_ns) == (recorded.get("size"), recorded.get("changed_ns")):
        return True
    return _measure(scan, size, changed_ns) == recorded.get("sha256")


def _look_at(scan: Path) -> tuple[int, int]:
    stat = scan.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=10_000)
def _measure(scan: Path, size: int, changed_ns: int) -> str:
    if not scan.is_dir():
        return measure_sha256(scan)
    uids = sorted(str(one.header.get("SOPInstanceUID")) for one in read_slices(scan))
    return hashlib.sha256("\n".join(uids).encode()).hexdigest()
