"""One scan: a path or a volume in, checked volumes out, one for each sequence in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys

from heatmask.data.readers.raw import RawScan, check_affine
from heatmask.data.readers.read import read_scan
from heatmask.data.recognition import find_clue
from heatmask.data.recognition.channels import BRAIN_TUMOUR, name_channels
from heatmask.data.recognition.sequence import UNKNOWN, SequenceClue
from heatmask.errors import InputError


class LoadedScan(NamedTuple):
    """What is known about the sequence of a scan, and its volume (1, X, Y, Z)."""

    clue: SequenceClue
    volume: MetaTensor


def load_scan(scan: Any, min_slices: int = 2) -> list[LoadedScan]:
    """Read and check a scan: a path (NIfTI, NRRD, DICOM series folder) or a volume in memory.

    A file with several channels (see `heatmask.data.recognition.channels`) gives a volume for
    each that is not empty; anything else gives one. Volumes are float32, their affine maps voxel
    indices to RAS mm, and nothing is reoriented or resampled. `meta` holds plain values only: what
    MONAI needs to invert and save, and

    - ``meta["sequence"]``: what `heatmask.data.recognition.sequence` recognised, or "unknown";
    - ``meta["warnings"]``: sentences for people; read them with `get_warnings`;
    - ``meta["nifti_header"]``: of a NIfTI its header, so that results lie on it in every viewer
      (see `heatmask.data.readers.nifti.make_nifti`).

    A volume in memory without an affine of its own (an array, a plain tensor) counts as 1 mm
    RAS, with a warning.

    Raises
    ------
    InputError
        It is no usable 3D image; the message says why and what to do.
    """
    if not isinstance(scan, (str, Path)):
        volume = _check_volume(scan, min_slices)
        return [LoadedScan(SequenceClue(str(volume.meta["sequence"])), volume)]
    path = Path(scan).expanduser()
    raw = read_scan(path)
    array = _squeeze(raw.array, path)
    if array.ndim == 4:
        return _split_channels(array, raw, path, min_slices)
    clue = find_clue(path, raw.header)
    raw = replace(raw, warnings=[*raw.warnings, *filter(None, [clue.conflict])])
    return [LoadedScan(clue, _make_volume(array, raw, path, clue, min_slices))]


def get_warnings(volume: MetaTensor) -> list[str]:
    """Warnings that travel with a volume; a copy, empty if there are none.

    A MONAI data loader turns an empty list in `meta` into None; here it is a list again.
    """
    return list(volume.meta.get("warnings") or [])


def check_voxels(array: np.ndarray, min_slices: int, name: str) -> None:
    """Refuse an array (X, Y, Z) that is no scan; `name` is for the message.

    Raises
    ------
    InputError
        If it is not 3D, has no or too few voxels along an axis, holds NaN or infinity,
        or the same value everywhere.
    """
    shape = " x ".join(map(str, array.shape))
    if array.size == 0:
        raise InputError(f"'{name}' has no voxels ({shape}). Export it again.")
    if array.ndim != 3 or min(array.shape) < min_slices:
        raise InputError(
            f"'{name}' is {shape}, and a volume of at least {min_slices} slices along each axis "
            "is needed. Give the whole volume, a DICOM series as its folder, not one slice."
        )
    # Both propagate NaN, so one pass shows NaN, infinity and constant images.
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        count = array.size - int(np.isfinite(array).sum())
        raise InputError(
            f"{count} of {array.size} voxels in '{name}' are NaN, infinite or above 3e38. Replace "
            "them, for example by the value of the background."
        )
    if low == high:
        raise InputError(
            f"All voxels of '{name}' are {low:g}. Check that the right file was exported."
        )


def _check_volume(value: Any, min_slices: int) -> MetaTensor:
    name = "volume in memory"
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        raise InputError(
            f"A scan must be a path, an array or a MetaTensor, got {type(value).__name__}."
        )
    if value.ndim != 4 or value.shape[0] != 1:
        raise InputError(
            f"A volume in memory must have the shape (1, X, Y, Z), got {tuple(value.shape)}."
        )
    volume = MetaTensor(torch.as_tensor(value, dtype=torch.float32))
    if isinstance(value, MetaTensor):
        volume.copy_meta_from(value)
        if not _lies_as_read(volume):
            volume.meta.pop("nifti_header", None)
    check_affine(np.asarray(volume.affine), name)
    check_voxels(volume[0].detach().cpu().numpy(), min_slices, name)
    warnings = get_warnings(volume)
    if not isinstance(value, MetaTensor):
        warnings.append("The volume came without geometry; voxels count as 1 mm, RAS.")
    volume.meta["warnings"] = warnings
    volume.meta.setdefault("sequence", UNKNOWN)
    return volume


def _lies_as_read(volume: MetaTensor) -> bool:
    """Whether a volume is still on the grid of the file that its header is of."""
    shape, affine = (
        volume.meta.get(key) for key in (MetaKeys.SPATIAL_SHAPE, MetaKeys.ORIGINAL_AFFINE)
    )
    if shape is None or affine is None:
        return False
    same = tuple(map(int, shape)) == tuple(volume.shape[1:])
    return same and np.allclose(affine, volume.affine)


def _squeeze(array: np.ndarray, path: Path) -> np.ndarray:
    """(X, Y, Z), or (X, Y, Z, C) where there are several channels."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    while array.ndim > 4 and 1 in array.shape[3:]:  # ITK keeps channels in the fifth axis
        array = array.squeeze(array.shape.index(1, 3))
    while array.ndim > 3 and array.shape[0] == 1 and not _is_slice_with_channels(array):
        array = array[0]  # channel-first, as networks want it
    if array.ndim > 4:
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"'{path}' is {shape}, and not 3D or 4D. Split it first.")
    if array.ndim == 4 and 1 in array.shape[1:3] and not _is_slice_with_channels(array):
        # The slices have come into the fourth axis; their place is free.
        free = array.shape.index(1, 1)
        array = np.moveaxis(array.squeeze(free), -1, free)
    return array


def _is_slice_with_channels(array: np.ndarray) -> bool:
    """Whether an array with an axis of length one is a single slice of the four sequences."""
    return array.ndim == 4 and array.shape[3] == len(BRAIN_TUMOUR)


def _split_channels(
    array: np.ndarray, raw: RawScan, path: Path, min_slices: int
) -> list[LoadedScan]:
    names, warnings = name_channels(path, array.shape[3])
    raw = replace(raw, warnings=raw.warnings + warnings)
    source = f"the order of channels of '{path.name}'"
    clues = [SequenceClue(name, source if name != UNKNOWN else "") for name in names]
    # An empty channel is a sequence that this patient has not; if all are, the first is refused.
    present = [c for c in range(len(clues)) if array[..., c].any()] or [0]
    return [
        LoadedScan(clues[c], _make_volume(array[..., c], raw, path, clues[c], min_slices))
        for c in present
    ]


def _make_volume(
    array: np.ndarray, raw: RawScan, path: Path, clue: SequenceClue, min_slices: int
) -> MetaTensor:
    check_voxels(array, min_slices, str(path))
    meta: dict[str, Any] = {
        MetaKeys.ORIGINAL_AFFINE: raw.affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(array.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "filename_or_obj": str(path),
        "sequence": clue.sequence,
        "warnings": list(raw.warnings),
    }
    if raw.nifti_header is not None:
        meta["nifti_header"] = raw.nifti_header
    voxels = torch.from_numpy(np.ascontiguousarray(array))
    return MetaTensor(voxels[None], torch.from_numpy(raw.affine), meta)
