"""Folders and files that are whole or not there, whatever happens to the process or the disk.

What is new is written into a draft, synced to the disk, and given its name by one renaming, which
is synced too. All of it belongs to the user who runs the server: folders 0700, files 0600.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from heatmask.errors import OutputError

_CHUNK_BYTES = 1 << 20


@contextmanager
def open_draft(drafts: Path) -> Iterator[Path]:
    """Give a new folder below `drafts`, which is gone at the end unless it was published.

    Raises
    ------
    OutputError
        The disk is full, or cannot be written.
    """
    draft = drafts / uuid4().hex
    try:
        make_folders(draft)
        yield draft
    except OSError as error:
        raise OutputError(
            f"Nothing was stored: {error.strerror or error}. What was stored before is unchanged. "
            "Check the space left on the server's disk, and the permissions of its work folder."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, target: Path) -> None:
    """Give a draft, a folder or a file, its name; once this returns it outlasts a power cut.

    The files in it must have been synced. A folder that is not empty is never replaced.
    """
    make_folders(target.parent)
    if draft.is_dir():
        sync_folder(draft)
    os.replace(draft, target)
    try:
        sync_folder(target.parent)
    except OSError:  # Whoever asked is going to hear that nothing was stored
        shutil.rmtree(target, ignore_errors=True)
        raise


def copy_synced(source: Path, target: Path) -> str:
    """Copy a file that is no link to a new one; return the SHA-256 of its content."""
    digest = hashlib.sha256()
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as reading,
        _create(target) as new,
    ):
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            new.write(chunk)
        _sync(new)
    return digest.hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a new JSON file; ASCII, because names of clients are not always valid text."""
    with _create(path) as file:
        file.write(json.dumps(content, indent=1, default=str).encode("ascii"))
        _sync(file)


def read_json(path: Path, types: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Return a JSON file's object; an empty one where it is missing or torn.

    Parameters
    ----------
    types
        If given, only these keys count, and only where their value is of this type.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    if types is None:
        return content
    return {k: v for k, v in content.items() if k in types and isinstance(v, types[k])}


def measure_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folders(path: Path) -> None:
    """Make a folder and those it lies in, and sync their names."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems sync no folders
            raise
    finally:
        os.close(folder)


def _create(path: Path) -> Any:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
