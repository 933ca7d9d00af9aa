"""Damaged volumes and DICOM files, and what reads them."""

import gzip
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from hypothesis import strategies as st

from heatmask.data.scan import load_scan
from heatmask.errors import HeatmaskError
from heatmask.serving.store.checks import check_image, check_label
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.volumes import check_volume
from helpers.scan_files import write_dicom_series

SHAPE = (5, 6, 7)
LIMITS = Limits(file_bytes=10**6, unpacked_bytes=4 * 10**6, voxels=500_000, axis=1000)
DICOM_SLICES = 3


def make_volumes(folder: Path) -> dict[str, bytes]:
    """Return good volumes by their suffix, scans and label maps in one: few whole numbers."""
    array = (np.random.default_rng(0).random(SHAPE) * 3).astype(np.float32).round()
    affine = np.diag([-1.5, -1.25, 4.0, 1.0])
    nifti = nib.Nifti1Image(array, affine).to_bytes()
    path = folder / "good.nrrd"
    nrrd.write(
        str(path), array,
        {"space": "left-posterior-superior", "space directions": affine[:3, :3],
         "space origin": [0, 0, 0], "encoding": "raw"},
    )  # fmt: skip
    return {".nii": nifti, ".nii.gz": gzip.compress(nifti, mtime=0), ".nrrd": path.read_bytes()}


def make_slices(folder: Path) -> dict[str, bytes]:
    """Return the files of a good DICOM series by name."""
    array = (np.random.default_rng(0).random((6, 5, DICOM_SLICES)) * 900).round()
    series = write_dicom_series(folder / "series", array, np.diag([1.0, 1.0, 4.0, 1.0]))
    return {path.name: path.read_bytes() for path in sorted(series.iterdir())}


@dataclass(frozen=True)
class Damage:
    """Bytes that are changed, where a content is cut off, and what comes behind it."""

    changes: list[tuple[int, int]]
    end: int | None
    tail: bytes

    def apply(self, content: bytes) -> bytes:
        """Return a damaged content."""
        changed = bytearray(content)
        for place, value in self.changes:
            # Headers are read closest: half of the changes lie there.
            where = place % max(1, len(changed) if place % 2 else min(400, len(changed)))
            changed[where : where + 1] = bytes([value])
        end = None if self.end is None else self.end % (len(changed) + 1)
        return bytes(changed[:end]) + self.tail


DAMAGES = st.builds(
    Damage,
    st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.none(), st.integers(0, 10**5)),
    st.one_of(st.just(b""), st.binary(max_size=20)),
)


def read_volume(folder: Path, suffix: str, content: bytes) -> bool:
    """Put a volume through all that a client's file goes through; return whether it was taken.

    Raises
    ------
    Exception
        Anything but `HeatmaskError`.
    """
    path = folder / f"sent{suffix}"
    path.write_bytes(content)
    with suppress(HeatmaskError):
        check_volume(path, LIMITS)
        doors: list[Callable[[], object]] = [
            lambda: check_image(path), lambda: check_label(path, path, {}), lambda: load_scan(path),
        ]  # fmt: skip
        return [_is_taken(door) for door in doors] == [True] * 3
    return False


def read_slices(folder: Path, slices: dict[str, bytes], content: bytes) -> bool:
    """Read a series one of whose files holds this, and the file alone; return whether both went.

    Raises
    ------
    Exception
        Anything but `HeatmaskError`.
    """
    (folder / "series").mkdir(exist_ok=True)
    for name, whole in slices.items():
        (folder / "series" / name).write_bytes(whole)
    damaged = folder / "series" / min(slices)
    damaged.write_bytes(content)
    alone = _is_taken(lambda: load_scan(damaged, min_slices=1))
    return _is_taken(lambda: load_scan(folder / "series")) and alone


def _is_taken(door: Callable[[], object]) -> bool:
    with suppress(HeatmaskError):
        door()
        return True
    return False


def gzip_again(content: bytes) -> bytes:
    """Return a content compressed: damage before it, so that the checksum holds."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=1) as file:
        file.write(content)
    return packed.getvalue()
