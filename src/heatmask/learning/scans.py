"""Scans to learn from: which patient, which labels, and the mask that somebody corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.data.readers.reference import read_label_map
from heatmask.errors import InputError
from heatmask.geometry import match_voxels


@dataclass(frozen=True)
class CorrectedMask:
    """A mask that a person made or corrected.

    Attributes
    ----------
    path : of the label map
    names : of its values; None where nobody said, and any value is the finding
    sha256 : of the file
    version : number of the label that it is
    """

    path: Path
    names: Mapping[int, str] | None = None
    sha256: str = ""
    version: int = 1


@dataclass(frozen=True)
class LearnScan:
    """One scan.

    Attributes
    ----------
    name : the image's
    patient : whose it is; all scans of a patient are held out together
    image : what `heatmask.pipeline.Pipeline` takes: a path, or a path for each sequence
    sequence : of the scan on whose grid the mask lies; None for the first of the network
    labels : 0 or 1 for each slice along the file's third axis; None where nobody labelled them
    correction : None where nobody corrected a mask
    """

    name: str
    patient: str
    image: str | Mapping[str, str] = field(hash=False)
    sequence: str | None = None
    labels: Sequence[int] | None = None
    correction: CorrectedMask | None = None


def check_names(scan: LearnScan, finding: str) -> list[str]:
    """Return a warning for each value of a corrected mask that is not learnt.

    Raises
    ------
    InputError
        The mask's names are known, and the bundle's finding is not among them.
    """
    names = scan.correction.names if scan.correction is not None else None
    if names is None:
        return []
    others = [
        name for value, name in sorted(names.items()) if not _is_same(name, finding) and value
    ]
    if len(others) == len([value for value in names if value]) > 0:
        raise InputError(
            f"The label of {scan.name} must name {finding!r}, which the bundle finds; it names "
            f"{', '.join(map(repr, others))}. Rename the segment in the viewer and submit again."
        )
    return [
        f"{scan.name}: {name!r} is not learnt; the bundle finds {finding!r}." for name in others
    ]


def read_correction(
    correction: CorrectedMask, finding: str, shape: Sequence[int], affine: NDArray[Any]
) -> NDArray[np.bool_]:
    """Return where a corrected mask marks a finding, (X, Y, Z) on the grid of a scan.

    Raises
    ------
    InputError
        The file cannot be read, or does not lie on the scan's voxels.
    """
    labels, grid = read_label_map(correction.path)
    names = correction.names
    if names is None:
        marked = labels > 0
    else:
        values = [value for value, name in names.items() if value and _is_same(name, finding)]
        marked = np.isin(labels, values)
    return match_voxels(marked, grid, tuple(shape), np.asarray(affine))


def _is_same(name: str, finding: str) -> bool:
    # The viewer writes names in lower case.
    return name.strip().lower() == finding.strip().lower()
