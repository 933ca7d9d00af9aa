"""What was explained, kept: another mask of the same scan then costs the mask alone.

The key of an explanation is a digest of the scans' bytes, the bundle's weights and config, the
options but those of the mask, and the code. Who has no access to an image cannot make its key: it
is made from the file, which a route finds for those alone who may see it.
"""

import hashlib
import json
import logging
import threading
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import Tensor

import heatmask
from heatmask.data.recognition import find_clue
from heatmask.errors import OutputError
from heatmask.explained import Explained
from heatmask.files import write_atomically
from heatmask.result import describe_versions
from heatmask.serving.store.durable import make_folders, measure_sha256

logger = logging.getLogger(__name__)

MB = 10**6
MEMORY_BYTES = 512 * MB
DISK_BYTES = 4_000 * MB
_DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


class Explanations:
    """Explained scans in memory; what the network said of studies also on disk.

    Of what is kept, the longest unused goes first. Safe from several threads.

    Parameters
    ----------
    folder
        The server's own, private one; None keeps nothing on disk.
    memory_bytes, disk_bytes
        The most that is kept.
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._folder, self._memory_bytes, self._disk_bytes = folder, memory_bytes, disk_bytes
        self._kept: OrderedDict[str, tuple[Explained, float]] = OrderedDict()
        self._noted: dict[str, str] = {}
        self._lock = threading.Lock()
        if folder is not None:
            make_folders(folder)
            for draft in folder.glob(".*"):  # of a server that was killed
                draft.unlink(missing_ok=True)

    def find(self, key: str) -> Explained | None:
        """Return an explained scan that is in memory."""
        with self._lock:
            explained, _ = self._kept.pop(key, (None, 0.0))
            if explained is not None:
                self._kept[key] = explained, time.monotonic()
            return explained

    def keep(self, key: str, explained: Explained) -> None:
        """Keep an explained scan in memory; one that is larger than the bound is not kept."""
        with self._lock:
            # It did not cost these seconds whoever finds it
            self._kept[key] = replace(explained, seconds={}), time.monotonic()
            self._kept.move_to_end(key)
            while sum(kept.nbytes for kept, _ in self._kept.values()) > self._memory_bytes:
                self._kept.popitem(last=False)

    def note(self, question: str, key: str) -> None:
        """Take note of the key that a question led to, for as long as the answer is in memory."""
        with self._lock:
            self._noted[question] = key
            self._noted = {q: k for q, k in self._noted.items() if k in self._kept}

    def has_noted(self, question: str) -> bool:
        """Return whether the answer of a question that was asked before is in memory."""
        with self._lock:
            return self._noted.get(question) in self._kept

    def expire(self, older_than_s: float) -> None:
        """Forget what was not used for a while, such as scans of sessions that have ended."""
        limit = time.monotonic() - older_than_s
        with self._lock:
            for key in [key for key, (_, used) in self._kept.items() if used < limit]:
                del self._kept[key]

    def read(self, key: str, image: MetaTensor) -> dict[str, Tensor] | None:
        """Return what the network said of an image (C, X, Y, Z), if it is on disk and whole.

        Returns
        -------
        dict or None
            As `heatmask.pipeline.Pipeline.explain`.
        """
        path = self._find_file(key)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:  # which compares checksums
                said = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            heatmap = said["heatmap"]
            if heatmap.shape[1:] != image.shape[1:]:
                raise ValueError(f"a heatmap of shape {tuple(heatmap.shape)}")
            path.touch()
        except _DAMAGED as error:
            logger.warning("An explanation on disk is damaged and made again: %s", error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return {**said, "heatmap": convert_to_dst_type(heatmap, image, dtype=torch.float32)[0]}

    def write(self, key: str, said: Mapping[str, Tensor]) -> None:
        """Keep on disk what the network said, if there is room."""
        path = self._find_file(key)
        if path is None:
            return
        arrays = {name: np.asarray(value) for name, value in said.items()}
        if sum(array.nbytes for array in arrays.values()) > self._disk_bytes:
            return
        try:
            with write_atomically(path) as draft:
                draft.touch(mode=0o600)
                np.savez(draft, allow_pickle=False, **arrays)
            self._drop_unused(path.parent)
        except (OutputError, OSError) as error:
            logger.warning("An explanation was not kept on disk: %s", error)

    def _find_file(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{key}.npz"

    def _drop_unused(self, folder: Path) -> None:
        """Delete the files that were not used for longest until the others are within the bound."""
        with self._lock:
            files = [(path, path.stat()) for path in folder.glob("*.npz")]
            files.sort(key=lambda item: item[1].st_mtime_ns)
            total = sum(stat.st_size for _, stat in files)
            for path, stat in files:
                if total <= self._disk_bytes:
                    return
                path.unlink(missing_ok=True)
                total -= stat.st_size


def digest(content: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest_scans(scans: str | Mapping[str, str]) -> str:
    """Return the digest of the scans of a head: their bytes, and what their names say of them.

    Nothing is remembered of files, which may be replaced between two requests. One that cannot be
    read has a digest too; whoever opens it says why.
    """
    by_name = {"": scans} if isinstance(scans, str) else scans
    return digest([[name, *_describe_file(Path(path))] for name, path in by_name.items()])


def _describe_file(path: Path) -> list[str]:
    try:
        if path.is_dir():  # A DICOM series: what its headers say is in the files
            files = sorted(file for file in path.iterdir() if file.is_file())
            return [path.name, digest([[file.name, measure_sha256(file)] for file in files]), ""]
        return [path.name, measure_sha256(path), repr(find_clue(path))]
    except OSError as error:
        return [path.name, str(error), ""]


@cache
def digest_code() -> str:
    """Return the digest of this package and of the versions that it runs with."""
    root = Path(heatmask.__file__).parent
    sources = [
        [str(path.relative_to(root)), measure_sha256(path)] for path in sorted(root.rglob("*.py"))
    ]
    return digest([sources, describe_versions()])


def place(explained: Explained, case: str, path: str) -> Explained:
    """Return an explained scan as that of a file with the same content."""
    if (explained.case, explained.scan.meta.get("filename_or_obj")) == (case, path):
        return explained
    meta = {**explained.scan.meta, "filename_or_obj": path}
    return replace(explained, case=case, scan=MetaTensor(explained.scan.as_tensor(), meta=meta))
