"""The first transform of every pipeline: a path in, a checked volume out."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys

from heatmask.data.read import RawScan, check_affine, read_scan
from heatmask.data.sequence import (
    SEQUENCES,
    UNKNOWN,
    SequenceClue,
    describe_mismatch,
    find_sequence_clue,
)
from heatmask.errors import InputError, OptionError


class LoadScand(MapTransform):
    """Read and check scans: path in, channel-first float32 MetaTensor (1, X, Y, Z) out.

    The affine maps voxel indices to RAS mm and nothing is reoriented or resampled. `meta`
    holds plain values only: what MONAI needs to invert and save, and

    - ``meta["sequence"]``: what `heatmask.data.sequence` recognised, or "unknown";
    - ``meta["warnings"]``: sentences for people; read them with `get_warnings`, because a
      data loader turns an empty list into None.

    A volume in memory, channel-first (1, X, Y, Z), is checked in the same way. Without an
    affine of its own (an array, a plain tensor) it counts as 1 mm RAS, with a warning.

    Parameters
    ----------
    keys
        Keys whose values are paths (NIfTI, NRRD, DICOM series folder) or volumes.
    expected
        Sequences the network was trained on; a scan known to be another one gets a
        warning. Empty: no warning.
    channel
        Which channel of a scan with several (X, Y, Z, C) to take; None refuses such scans.
    min_slices
        Least number of voxels along each axis.
    allow_missing_keys
        Pass over absent keys.

    Raises
    ------
    InputError
        On call, if a scan is no usable 3D image; the message says why and what to do.
    OptionError
        At once, if an option has the wrong type or range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        expected: Sequence[str] | str = ("FLAIR",),
        channel: int | None = None,
        min_slices: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.expected = (expected,) if isinstance(expected, str) else tuple(expected or ())
        self.channel = channel
        self.min_slices = min_slices
        self._check_options()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path or volume by its checked volume."""
        result = dict(data)
        for key in self.key_iterator(result):
            value = result[key]
            if isinstance(value, (str, Path)):
                result[key] = self._load_path(Path(value).expanduser())
            else:
                result[key] = self._check_volume(value)
        return result

    def _check_options(self) -> None:
        unknown = [name for name in self.expected if name not in SEQUENCES]
        if unknown:
            raise OptionError(
                f"expected must name sequences of {', '.join(SEQUENCES)}; got "
                f"{', '.join(map(repr, unknown))}. Correct the name, or give () for any."
            )
        if self.channel is not None and not _is_count(self.channel, least=0):
            raise OptionError(
                f"channel must be None or a whole number from 0, got {self.channel!r}. "
                "Give the index of the channel to take."
            )
        if not _is_count(self.min_slices, least=1):
            raise OptionError(
                f"min_slices must be a whole number from 1, got {self.min_slices!r}. "
                "Give the least number of slices along any axis."
            )

    def _load_path(self, path: Path) -> MetaTensor:
        raw = read_scan(path)
        array = _take_channel(raw.array, self.channel, str(path))
        check_voxels(array, self.min_slices, str(path))
        clue = find_sequence_clue(path.resolve() if path.is_dir() else path, raw.header)
        mismatch = describe_mismatch(clue, self.expected)
        warnings = raw.warnings + ([mismatch] if mismatch else [])
        return _make_volume(array, raw, path, clue, warnings)

    def _check_volume(self, value: Any) -> MetaTensor:
        name = "volume in memory"
        if not isinstance(value, (np.ndarray, torch.Tensor)):
            raise InputError(
                f"A scan must be a path or a volume; got {type(value).__name__}. "
                "Give a path, an array or a MetaTensor."
            )
        if value.ndim != 4 or value.shape[0] != 1:
            raise InputError(
                f"A volume in memory must be channel-first with one channel, (1, X, Y, Z); "
                f"got {tuple(value.shape)}. Add or select the channel first."
            )
        volume = MetaTensor(torch.as_tensor(value, dtype=torch.float32))
        if isinstance(value, MetaTensor):
            volume.copy_meta_from(value)
        check_affine(np.asarray(volume.affine), name)
        check_voxels(volume[0].detach().cpu().numpy(), self.min_slices, name)
        warnings = get_warnings(volume)
        if not isinstance(value, MetaTensor):
            warnings.append("The volume came without geometry; voxels count as 1 mm, RAS.")
        volume.meta["warnings"] = warnings
        volume.meta.setdefault("sequence", UNKNOWN)
        return volume


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
        raise InputError(
            f"The scan must have voxels; '{name}' has none ({shape}). Export it again."
        )
    if array.ndim != 3 or min(array.shape) < min_slices:
        raise InputError(
            f"The scan must be 3D with at least {min_slices} slices along each axis; '{name}' "
            f"is {shape}. Give the whole volume, not one slice."
        )
    # Both propagate NaN, so one pass tells about NaN, infinity and constant images.
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        count = array.size - int(np.isfinite(array).sum())
        raise InputError(
            f"All voxels must be finite; {count} of {array.size} in '{name}' are NaN or "
            "infinite. Replace them, for example by the value of the background."
        )
    if low == high:
        raise InputError(
            f"The scan must show something; all voxels of '{name}' are {low:g}. "
            "Check that the right file was exported."
        )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _take_channel(array: np.ndarray, channel: int | None, name: str) -> np.ndarray:
    """(X, Y, Z), from an array that may have channels as its last axis."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    n_channels = array.shape[3] if array.ndim == 4 else 1
    if array.ndim > 4:
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"The scan must be 3D or 4D; '{name}' is {shape}. Split it first.")
    if channel is None and n_channels > 1:
        raise InputError(
            f"The scan must have one channel; '{name}' has {n_channels} (a 4D image). "
            f"Choose one with channel=0 to {n_channels - 1}, or split the file."
        )
    if (channel or 0) >= max(n_channels, 1):
        raise InputError(
            f"The scan must have the channel asked for; channel={channel}, but '{name}' has "
            f"{n_channels}, counted from 0. Choose another channel."
        )
    return np.ascontiguousarray(array[..., channel or 0]) if array.ndim == 4 else array


def _make_volume(
    array: np.ndarray, raw: RawScan, path: Path, clue: SequenceClue, warnings: list[str]
) -> MetaTensor:
    meta = {
        MetaKeys.ORIGINAL_AFFINE: raw.affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(array.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "filename_or_obj": str(path),
        "sequence": clue.sequence,
        "warnings": warnings,
    }
    return MetaTensor(torch.from_numpy(array)[None], torch.from_numpy(raw.affine), meta)
