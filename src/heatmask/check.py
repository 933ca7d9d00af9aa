"""What may be believed of a bundle's network: `heatmask check` and `heatmask methods`."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from heatmask.attribution.checks import inspect_network, judge_methods
from heatmask.attribution.checks.check import Check, conclude
from heatmask.attribution.checks.probe import prepare_subject
from heatmask.attribution.registry import get_method, list_methods
from heatmask.bundle import find_bundle, read_bundle, read_metadata, run_bundle
from heatmask.device import resolve_device
from heatmask.errors import InputError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

EDGES = {1: 256, 2: 128, 3: 64}
"""Size of an image whose size the metadata leave open, by number of axes."""


@dataclass(frozen=True)
class Findings:
    """What the checks found of a bundle.

    Attributes
    ----------
    bundle : str
        Name of its folder.
    method : str
        The one asked about, or the bundle's default.
    checks : list of Check
        What was looked at.
    refusals : dict
        For each method looked at the check that refuses it, or None.
    """

    bundle: str
    method: str
    checks: list[Check]
    refusals: dict[str, Check | None]

    @property
    def sound(self) -> bool:
        """Whether the method may be used."""
        return self.refusals[self.method] is None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: a number that is not there becomes null."""
        return {
            "bundle": self.bundle,
            "method": self.method,
            "sound": self.sound,
            "checks": [_drop_nan(asdict(check)) for check in self.checks],
            "methods": [
                {
                    "name": name,
                    "sound": check is None,
                    "reason": check.finding if check else "",
                    "advice": check.advice if check else "",
                }
                for name, check in self.refusals.items()
            ],
        }


def inspect_bundle(bundle: str, method: str | None = None, device: str = "auto") -> Findings:
    """Look at a bundle's network with all methods, or with one.

    Parameters
    ----------
    bundle
        Its name or folder.
    method
        The method asked about; None looks at all and asks about the bundle's default: the
        id ``method`` of its config, without which it is ``"inherent"``.
    device
        See `resolve_device`.

    Raises
    ------
    HeatmaskError
        The bundle cannot be built, or there is no such method.
    """
    folder = find_bundle(bundle)
    parser, metadata = read_bundle(folder), read_metadata(folder)
    asked = get_method(method or _read(parser, "method", "inherent")).name
    names = [asked] if method else [entry.name for entry in list_methods()]
    network = run_bundle(parser, "network").to(resolve_device(device))
    shape = choose_image_shape(metadata, _read(parser, "network_def", {}, build=False))
    inferer = _read(parser, "inferer", None)
    target_layer = inferer.explainer.options.get("target_layer") if inferer else None
    checks = inspect_network(network, shape, names, target_layer=target_layer)
    if checks[0].passed:  # there are logits to count
        named = list_class_names(_read(parser, "class_names", None), metadata)
        classes = check_classes(prepare_subject(network, shape).logits.shape[1], named)
        checks.insert(1, replace(classes, methods=tuple(names)))
    return Findings(folder.resolve().name, asked, checks, judge_methods(checks, names))


def list_class_names(
    class_names: Sequence[str] | None, metadata: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the classes that a bundle's config and its metadata name, each by its place.

    In the metadata a background comes before the classes and is none of them.
    """
    named = {} if class_names is None else {"class_names of the config": list(class_names)}
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    for output in outputs.values():
        channels = [str(name) for name in output.get("channel_def", {}).values()]
        if channels:
            behind = int(channels[0].lower() == "background")
            named["channel_def of the metadata"] = channels[behind:]
    return named


def check_classes(logits: int, named: Mapping[str, Sequence[str]]) -> Check:
    """Config and metadata must name one class for each logit, and the same ones."""
    wrong = sum(len(names) != logits for names in named.values())
    wrong += len({tuple(names) for names in named.values()}) > 1
    said = [f"{place}: {', '.join(names)}" for place, names in named.items()]
    return conclude(
        "class outputs", wrong, 0, "; ".join([f"{logits} logit(s) an image", *said]),
        "Let config and metadata name one class for each logit, in one order.",
    )  # fmt: skip


def choose_image_shape(
    metadata: Mapping[str, Any], network_def: Mapping[str, Any]
) -> tuple[int, ...]:
    """Return the shape (C, *spatial) of an image for the network.

    From the metadata's first input, where sizes may be open (``"8*n"``, ``"*"``), or else
    from the arguments of the network.
    """
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    image: Mapping[str, Any] = next(iter(inputs.values()), {})
    spatial = image.get("spatial_shape") or ["*"] * int(network_def.get("spatial_dims", 2))
    channels = image.get("num_channels") or network_def.get("in_channels", 1)
    if len(spatial) not in EDGES:
        raise InputError(
            f"spatial_shape in the metadata must have 1 to 3 entries, got {spatial!r}."
        )
    return (int(channels), *(_choose_size(size, EDGES[len(spatial)]) for size in spatial))


def print_findings(findings: Findings, console: Console) -> None:
    """Print the checks, then what that means for each method."""
    table = Table("check", "measured", "limit", "result", title=escape(findings.bundle))
    for check in findings.checks:
        result = "[green]passed[/green]" if check.passed else "[red]failed[/red]"
        table.add_row(check.name, escape(check.finding), f"{check.limit:g}", result)
    console.print(table)
    methods = Table("method", "result")
    for name, refusal in findings.refusals.items():
        result = "[green]sound[/green]"
        if refusal:
            reason = f"{refusal.finding.rstrip('.')}. {refusal.advice}"
            result = f"[red]refused:[/red] {escape(reason)}"
        methods.add_row(name, result)
    console.print(methods)
    colour, word = ("green", "sound") if findings.sound else ("red", "refused")
    console.print(f"{findings.method} with {escape(findings.bundle)}: [{colour}]{word}[/]")


def describe_methods() -> list[dict[str, Any]]:
    """Return what people should know of every method, as JSON can hold it."""
    return [
        {
            "name": method.name,
            "family": method.family,
            "needs": sorted(method.needs),
            "invariants": sorted(method.invariants),
            "cost": method.cost,
            "paper": method.paper,
            "source": method.source,
            "summary": method.summary,
        }
        for method in list_methods()
    ]


def print_methods(console: Console) -> None:
    """Print the methods as a table."""
    table = Table(Column("method", no_wrap=True), "family", "needs", "cost", "paper")
    for method in describe_methods():
        needs = ", ".join(method["needs"]) or "forwards only"
        table.add_row(method["name"], method["family"], needs, method["cost"], method["paper"])
    console.print(table)


def format_json(content: object) -> str:
    """Return it as indented JSON."""
    return json.dumps(content, indent=2, allow_nan=False)


def _choose_size(size: int | str, open_size: int) -> int:
    if isinstance(size, int):
        return size
    factor = re.fullmatch(r"\s*(\d+)\s*\*\s*n\s*", size)
    return math.ceil(open_size / int(factor[1])) * int(factor[1]) if factor else open_size


def _read(parser: "ConfigParser", name: str, default: Any, build: bool = True) -> Any:
    """An item of the config: built, or as it is written there."""
    if name not in parser:
        return default
    return run_bundle(parser, name) if build else parser[name]


def _drop_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
