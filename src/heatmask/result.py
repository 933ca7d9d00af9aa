"""What came out of one scan, in one typed object."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from heatmask import __version__

_find_version = cache(version)  # which reads all that a package says of itself


@dataclass(frozen=True)
class Provenance:
    """What made a result.

    Attributes
    ----------
    bundle, version
        Name and version of the bundle; empty for a pipeline that was put together by hand.
    options
        Every option of the run, with what was set below an item, such as
        ``inferer#explainer#window``.
    weights_sha256
        Of the file that the network was loaded from; None for another network.
    device
        Where the network ran.
    versions
        Of the packages that a result depends on.
    """

    bundle: str = ""
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    device: str = "cpu"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Result:
    """What a pipeline says of one scan. Volumes lie on the scan's own grid.

    Attributes
    ----------
    case
        Its name.
    image
        Path of the scan whose grid this is; empty for a volume in memory.
    scan
        That scan as it was read, (1, X, Y, Z).
    heatmap
        (K, X, Y, Z), raw scale, one channel a class.
    display
        The heatmap in [0, 1] by the bundle's fixed calibration, for people and files.
    mask
        (1, X, Y, Z), uint8: 0 background, k + 1 for class k.
    probabilities
        (K,), the largest over the slices.
    slice_probabilities
        (slices, K), in RAS order as the next two.
    shown
        (slices, K), bool: where the heatmap holds an attribution.
    predicted
        (slices, K), bool: where the classifier predicts the class.
    class_names
        One for each of the K classes.
    slice_axis
        The RAS axis along which slices were cut.
    sequence
        Of the scan, or "unknown".
    sequences
        The channels of the network that held a scan.
    warnings
        Sentences for people.
    seconds
        By stage.
    provenance
        What made it.
    """

    case: str
    image: str
    scan: MetaTensor
    heatmap: MetaTensor
    display: MetaTensor
    mask: MetaTensor
    probabilities: Tensor
    slice_probabilities: Tensor
    shown: Tensor
    predicted: Tensor
    class_names: tuple[str, ...]
    slice_axis: int = 2
    sequence: str = "unknown"
    sequences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)


def describe_versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = {name: _find_version(name) for name in ("monai", "numpy", "scipy", "scikit-image")}
    return {
        "heatmask": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **packages,
    }
