"""The first transform of every pipeline: scans of one head in, one volume out."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch

from heatmask.data.background import zero_channels
from heatmask.data.checks.contrast import describe_contradictions
from heatmask.data.checks.plausibility import check_plausible
from heatmask.data.recognition.sequence import (
    SEQUENCES,
    UNKNOWN,
    SequenceClue,
    check_sequences,
    describe_mismatch,
)
from heatmask.data.scan import LoadedScan, get_warnings, load_scan
from heatmask.errors import InputError, OptionError


class LoadSequencesd(MapTransform):
    """Read, check and stack the scans of one head, one channel for each sequence.

    The key holds one scan (a path, or a volume (1, X, Y, Z) in memory), a file with several
    sequences in its channels (`heatmask.data.recognition.channels`), or a mapping from sequence
    to scan. It becomes a float32 MetaTensor (len(channels), X, Y, Z) on the grid of the reference:
    scans with another grid are resampled to it linearly, absent ones are channels of zeros.
    The reference itself goes, as it is, to ``"scan"``: (1, X, Y, Z). Nothing is reoriented.
    It is of the sequence under ``"reference"``, which need not be in `sequences` (the scan that a
    viewer shows); without that key, the first of `sequences` that is there.

    A scan of unknown sequence counts as the first of `sequences`; so does one of another
    sequence where none is among `sequences`, with a warning. Further scans of other sequences
    are left out with a warning. `meta` of both volumes holds what
    `heatmask.data.scan.load_scan` says (the sequence is the reference's), and

    - ``meta["sequences_used"]``: the channels that hold a scan, in their order;
    - ``meta["warnings"]``: of all scans; also where the voxels contradict the names
      (`heatmask.data.checks.contrast`).

    Parameters
    ----------
    keys
        The key of the scans, one.
    sequences
        What is looked for, in the order in which it may be the reference.
    channels
        What the network takes, in the order of its channels; None for `sequences`.
    min_slices
        Least number of voxels along each axis.
    single_slices
        Refuse a scan of several slices: for networks that see a finding in every slice.
    needed
        A sequence without which the network is not to be trusted: there is a warning where it is
        absent.
    required
        A sequence without which nothing is done, if it is among `channels`. A scan of unknown
        sequence may be it, one that is known to be another is refused.
    size_mm
        Least length of the two longer sides of what a scan of a head shows, and greatest of all
        three; None checks nothing (`heatmask.data.checks.plausibility`).
    zero_air
        Hand on scans in which air is 0, whatever number the file gives it
        (`heatmask.data.background`). Before anything is resampled: a background of -1000 would
        spread into the head.

    Raises
    ------
    InputError
        On call, if a scan is no usable 3D image, or does not overlap the reference; the
        message says why and what to do.
    OptionError
        At once, if an option has the wrong type or range.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        sequences: Sequence[str] = ("FLAIR",),
        min_slices: int = 2,
        needed: str | None = None,
        required: str | None = None,
        size_mm: Sequence[float] | None = None,
        channels: Sequence[str] | None = None,
        zero_air: bool = False,
        single_slices: bool = False,
    ) -> None:
        super().__init__(keys)
        self.size_mm, self.zero_air, self.single_slices = size_mm, zero_air, single_slices
        self.required = required
        self.sequences, self.needed = check_sequences(sequences), needed
        self.channels = check_sequences(channels or sequences)
        _check_subset(self.sequences, self.channels)
        if required in self.channels and required not in self.sequences:
            raise OptionError(
                f"sequences must hold {required}, without which this network finds nothing; got "
                f"{', '.join(self.sequences)}."
            )
        self.min_slices = min_slices
        if not isinstance(min_slices, int) or isinstance(min_slices, bool) or min_slices < 1:
            raise OptionError(f"min_slices must be a whole number from 1, got {min_slices!r}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the scans by their volume and add the reference."""
        (key,) = self.keys
        image, scan = self._load(data[key], data.get("reference"))
        return {**data, key: image, "scan": scan}

    def _load(self, value: Any, reference: str | None) -> tuple[MetaTensor, MetaTensor]:
        given = self._list_scans(value)
        roles = assign_roles(list(given), self.sequences, reference)
        if self.required in self.channels:
            self._check_required(roles, given)
        loaded = {name: self._open(name, given[name]) for name in roles.needed}
        zeroed = {name: zero_channels(scan.volume) for name, scan in loaded.items()}
        doubts = [doubt for v in zeroed.values() for doubt in check_plausible(v, self.size_mm)]
        volumes = zeroed if self.zero_air else {n: scan.volume for n, scan in loaded.items()}
        scan = volumes[roles.reference]
        count = min(scan.shape[1:])
        if self.single_slices and count > 1:
            raise InputError(
                "This network takes a single slice that shows a finding, and would see one in each "
                f"of the {count} slices of this scan. Give one slice: a picture, a DICOM file or a "
                "volume of one slice."
            )
        scan.meta["warnings"] = list(dict.fromkeys([
            *(warning for volume in volumes.values() for warning in get_warnings(volume)),
            *doubts,
            *self._describe_roles(roles, loaded),
            *describe_contradictions(
                {c: zeroed[n] for c, n in roles.channels.items() if n in (c, UNKNOWN)}
            ),
        ]))  # fmt: skip
        scan.meta["sequences_used"] = list(roles.channels)
        return self._stack(roles, volumes), scan

    def _list_scans(self, value: Any) -> dict[str, Any]:
        """Sequence to scan; loaded already where only the file says what is in it."""
        if not isinstance(value, Mapping):
            return {scan.clue.sequence: scan for scan in load_scan(value, self.min_slices)}
        wrong = [name for name in value if name not in (*SEQUENCES, UNKNOWN)]
        if wrong or not value:
            raise InputError(
                f"Scans by sequence must be under one of {', '.join(SEQUENCES)}; got "
                f"{', '.join(map(repr, wrong)) or 'no scan'}."
            )
        return dict(value)

    def _check_required(self, roles: "Roles", given: Mapping[str, Any]) -> None:
        if roles.channels.get(str(self.required)) in (self.required, UNKNOWN):
            return
        came = [
            f"{name} by {scan.clue.source}" if isinstance(scan, LoadedScan) else name
            for name, scan in given.items()
        ]
        raise InputError(
            f"This network needs a {self.required} scan; got {', '.join(came)}. Give the "
            f"{self.required} scan of this head; if this is it, correct its name or header."
        )

    def _open(self, name: str, scan: Any) -> LoadedScan:
        """Load what is not, and compare what its file or header says with its name."""
        if isinstance(scan, LoadedScan):
            return scan
        loaded = load_scan(scan, self.min_slices)
        if len(loaded) > 1:
            raise InputError(
                f"The scan given as {name}, '{scan}', has {len(loaded)} channels. Give the file "
                "alone, or one file for each sequence."
            )
        clue, volume = loaded[0]
        mismatch = describe_mismatch(clue, (name,))
        volume.meta["warnings"] = get_warnings(volume) + ([mismatch] if mismatch else [])
        volume.meta["sequence"] = name
        if clue.sequence == UNKNOWN:
            clue = SequenceClue(name, "its place among the scans")
        return LoadedScan(clue, volume)

    def _describe_roles(self, roles: "Roles", loaded: Mapping[str, LoadedScan]) -> list[str]:
        warnings = []
        if roles.is_substitute:
            clue = loaded[roles.reference].clue
            warnings += [describe_mismatch(clue, self.sequences)]
        if roles.left_out:
            taken, others = " and ".join(self.sequences), ", ".join(roles.left_out)
            warnings += [f"Left out, the network takes {taken}: {others}."]
        if self.needed in self.channels and self.needed not in roles.channels:
            alone = " and ".join(roles.channels)
            warnings += [
                f"Without {self.needed} this network is not to be trusted: on {alone} alone its "
                "probabilities and masks may mean nothing (see its model card)."
            ]
        return [warning for warning in warnings if warning]

    def _stack(self, roles: "Roles", volumes: Mapping[str, MetaTensor]) -> MetaTensor:
        scan = volumes[roles.reference]
        moved = {
            channel: match_grid(volumes[name], scan, name, roles.reference).as_tensor()
            for channel, name in roles.channels.items()
        }
        stack = [moved[c] if c in moved else torch.zeros(scan.shape) for c in self.channels]
        image = MetaTensor(torch.cat(stack)).copy_meta_from(scan)
        image.meta["warnings"] = get_warnings(scan)
        return image


def _check_subset(sequences: Sequence[str], channels: Sequence[str]) -> None:
    if not set(sequences) <= set(channels):
        raise OptionError(
            f"sequences must be among those that the network takes, {', '.join(channels)}; "
            f"got {', '.join(sequences)}."
        )


@dataclass(frozen=True)
class Roles:
    """What the scans of one head are used for.

    Attributes
    ----------
    reference : name of the scan that gives the grid
    channels : channel to name of the scan in it, in the order of the channels
    left_out : names of scans that no channel holds
    """

    reference: str
    channels: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """Names of the scans to read, the reference first."""
        return list(dict.fromkeys([self.reference, *self.channels.values()]))

    @property
    def is_substitute(self) -> bool:
        """Whether a scan of another sequence stands in, because there is no other."""
        return any(name not in (channel, UNKNOWN) for channel, name in self.channels.items())


def assign_roles(names: Sequence[str], sequences: Sequence[str], reference: str | None) -> Roles:
    """Say which scan goes to which channel.

    Parameters
    ----------
    names
        Sequences of the scans, or "unknown"; not empty.
    sequences
        The channels.
    reference
        Name of the scan that gives the grid; None takes the first channel's.

    Raises
    ------
    InputError
        The reference is not among the names.
    """
    if reference is not None and reference not in names:
        raise InputError(
            f"The reference must be one of the scans, {', '.join(names)}; got {reference!r}."
        )
    channels = {name: name for name in sequences if name in names}
    if UNKNOWN in names and sequences[0] not in channels:
        channels = {sequences[0]: UNKNOWN, **channels}
    if not channels:
        channels = {sequences[0]: reference or names[0]}
    used = channels.values()
    reference = reference or next(iter(used))
    return Roles(reference, channels, tuple(name for name in names if name not in used))


def match_grid(
    scan: MetaTensor, reference: MetaTensor, name: str, reference_name: str
) -> MetaTensor:
    """Resample a scan (1, X, Y, Z) to the grid of another, linearly; outside it is 0.

    Raises
    ------
    InputError
        The two do not overlap in space.
    """
    affines = np.asarray(scan.affine), np.asarray(reference.affine)
    if scan.shape == reference.shape and np.allclose(*affines, atol=1e-3):
        return scan
    moved = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=torch.float32)(
        scan, reference
    )
    if not moved.any():
        raise InputError(
            f"{name} ({_describe_grid(scan)}) shows nothing within {reference_name} "
            f"({_describe_grid(reference)}). Check that both are of one patient, or register them "
            "first."
        )
    return moved


def _describe_grid(scan: MetaTensor) -> str:
    shape = np.array(scan.shape[1:])
    affine = np.asarray(scan.affine)
    centre = affine[:3, :3] @ ((shape - 1) / 2) + affine[:3, 3]
    size, spacing = " x ".join(map(str, shape)), " x ".join(f"{float(s):.3g}" for s in scan.pixdim)
    return f"{size} voxels of {spacing} mm around {', '.join(f'{c:.1f}' for c in centre)} mm"
