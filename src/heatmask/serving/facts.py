"""What goes to a client beside a volume, as values and as a text for people."""

from collections.abc import Mapping
from typing import Any

from heatmask.explained import Explained
from heatmask.report.summary import describe_slices, summarise_result
from heatmask.result import Result


def gather_facts(
    explained: Explained, result: Result, mask_options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is to be said of a scan, as plain values.

    Parameters
    ----------
    result
        What was made of `explained` with `mask_options`.
    """
    summary = summarise_result(result)
    facts = {**summary, "threshold_levels": explained.find_levels(mask_options)}
    return {
        **facts,
        "probabilities": {c["name"]: c["probability"] for c in summary["classes"]},
        "text": write_text(facts),
    }


def write_text(facts: Mapping[str, Any]) -> str:
    """Return the facts as lines for people: the finding, then what it rests on."""
    lines = [facts["finding"]]
    for entry in facts["classes"]:
        if entry["suspicious_slices"]:
            levels = facts["threshold_levels"][entry["name"]]
            used, otsu = (_show(levels[name]) for name in ("used", "otsu"))
            slices = describe_slices(entry["suspicious_slices"])
            lines += [
                f"{entry['name']}: confidence {entry['confidence']:.2f}, slices {slices} "
                f"(from 0); threshold {used}, Otsu {otsu} (of 0 to 1)."
            ]
    return "\n".join([*lines, *(f"Warning: {warning}" for warning in facts["warnings"])])


def _show(level: float | None) -> str:
    return "none" if level is None else f"{level:.2f}"
