"""The fixed range of a method's heatmap on a bundle's weights, kept beside them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatmask.attribution.registry import get_method
from heatmask.errors import InputError, OptionError
from heatmask.files import write_atomically

FILE_NAME = "calibration.json"


def read_calibration(
    weights: str | os.PathLike[str],
    method: str,
    target_layer: str | Sequence[str] | None = None,
) -> list[float]:
    """Return the range (low, high) of the raw heatmap that `method` gives with these weights.

    Parameters
    ----------
    weights
        The checkpoint; ``calibration.json`` lies beside it.
    target_layer
        Another than the method's own has another range, kept as ``METHOD:LAYER``. Methods without
        a layer pass it over.

    Raises
    ------
    InputError
        There is no such file, or it is damaged.
    OptionError
        It does not hold the method, or not with this layer.
    """
    path = Path(weights).with_name(FILE_NAME)
    try:
        ranges = json.loads(path.read_text(encoding="utf-8"))
        known = {name: [float(low), float(high)] for name, (low, high) in ranges.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"The weights must have the ranges of their heatmaps in {path} beside them, and that "
            f"cannot be read: {error}. `heatmask train` writes it with the weights; or give the "
            "option calibration=[low,high]."
        ) from error
    key = method
    if target_layer is not None and "layer" in get_method(method).needs:
        layers = (target_layer,) if isinstance(target_layer, str) else target_layer
        key = ":".join([method, *layers])
    if key not in known:
        raise OptionError(
            f"The range of the heatmap must be known, and that of {key} is not. Known in {path}: "
            f"{', '.join(known)}. Choose one (target_layer auto is the method's own layer); "
            "for others give the option calibration=[low,high] too: the median of the raw heatmap "
            "where there is nothing, and about its highest value on a finding."
        )
    return known[key]


def list_ranges(weights: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Return the methods whose range is known with these weights, and layers that they may take."""
    path = Path(weights).with_name(FILE_NAME)
    names = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    layers = dict.fromkeys(name.partition(":")[2] for name in names if name.count(":") == 1)
    return [name for name in names if ":" not in name], list(layers)


def write_calibration(
    ranges: Mapping[str, tuple[float, float]], weights: str | os.PathLike[str]
) -> Path:
    """Write the ranges (low, high) by method beside a checkpoint; return the file."""
    path = Path(weights).with_name(FILE_NAME)
    lines = ",\n".join(f'  "{name}": {json.dumps(list(ends))}' for name, ends in ranges.items())
    with write_atomically(path) as draft:
        draft.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    return path
