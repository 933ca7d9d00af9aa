"""The JSON that dcm2niix and BIDS keep beside a scan: what its DICOM header said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatmask.data.names import get_place, split_scan_name

_TIMES = ("EchoTime", "InversionTime", "RepetitionTime")
_LONGEST_ECHO_S = 1.5


def find_sidecar(path: Path) -> Path | None:
    """The JSON of a scan's own name in its own folder; None if there is none."""
    place = get_place(path)
    sidecar = place.with_name(split_scan_name(place.name)[0] + ".json")
    return sidecar if sidecar.is_file() else None


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """Read it as a header by DICOM keyword, with times in ms; empty if it is none.

    Times are in s by BIDS; where the echo time would then be impossibly long, they are in ms.
    """
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, Mapping):
        return {}
    header = dict(values)
    header.setdefault("ContrastBolusAgent", values.get("ContrastBolusIngredient"))
    times = {key: header[key] for key in _TIMES if isinstance(header.get(key), int | float)}
    scale = 1 if times.get("EchoTime", 0) > _LONGEST_ECHO_S else 1000
    return header | {key: time * scale for key, time in times.items()}
