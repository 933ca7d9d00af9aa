"""What makes heatmaps: a bundle with one of its methods, and the weights that are looked into."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatmask.attribution.registry import get_method, list_methods
from heatmask.bundle import find_bundle, list_folders, read_bundle
from heatmask.comparison.store import digest, digest_file
from heatmask.errors import InputError, OptionError
from heatmask.options import take_options
from heatmask.parts import ReadSettings, offer_options, resolve_options

CONFIGS = ("inference", "evaluate")
RANDOM = "random"
"""The control that every explanation is set against: of all draws together."""
DRAWS = 3
"""Networks of random weights for each explanation that takes a single pass; one for the others."""
SINGLE_PASS = 3
"""Passes through the network: one forward, one back, one of a baseline."""
_NOT_RESULTS = {"bundle_root", "weights", "dataset_dir", "input", "device", "pattern", "batch_size"}
_REFERENCE = re.compile(r"[@%]([A-Za-z_][\w#]*)")


@dataclass(frozen=True)
class Entry:
    """A bundle, a method and the weights whose attribution is shown.

    Attributes
    ----------
    bundle
        The bundle's folder.
    method
        One of the registry; ``"inherent"`` is the heatmap that a network carries.
    control
        ``""`` for the trained weights, else what `heatmask.comparison.controls` makes of them:
        ``"random:SEED"``, or ``"cascade:DEPTH"``. `RANDOM` stands for all seeds.
    """

    bundle: Path
    method: str
    control: str = ""

    @property
    def label(self) -> str:
        """The bundle's name without what all bundles share."""
        return re.sub(r"^brain_(mri|t1ce)_|_segmentation$", "", self.bundle.name)

    @property
    def name(self) -> str:
        """As tables show it."""
        shown = "own heatmap" if self.method == "inherent" else self.method
        return f"{self.label}, {shown}" + (f" ({self.control})" if self.control else "")


@dataclass(frozen=True)
class Refusal:
    """A row that has no numbers, and why."""

    bundle: str
    method: str
    reason: str


@dataclass
class Plan:
    """What is to be compared.

    Attributes
    ----------
    bundles
        Folders; the first entry of each in `entries` has its own method.
    entries
        With trained weights.
    refused
        What a bundle cannot do.
    """

    bundles: list[Path]
    entries: list[Entry] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def find_bundles(names: Sequence[str], pictures: bool) -> list[Path]:
    """Return the folders of bundles; without names, all that are evaluated on such data.

    Raises
    ------
    InputError
        There is none of that name, or none at all.
    """
    if names:
        return [find_bundle(name) for name in names]
    folders = [f for f in list_folders() if (f / "configs" / "evaluate.json").is_file()]
    found = [folder for folder in folders if takes_pictures(folder) == pictures]
    if not found:
        raise InputError("There must be a bundle to compare, and bundles/ has none for such data.")
    return found


def takes_pictures(bundle: Path) -> bool:
    """Whether a bundle is evaluated on tables of 2D pictures."""
    return "pictures" in read_bundle(bundle, CONFIGS).get()


def make_plan(bundles: Sequence[Path], methods: Sequence[str], quick: bool = False) -> Plan:
    """Return the entries of bundles and methods.

    Parameters
    ----------
    methods
        Names, for every bundle. Without any: each bundle's own and Grad-CAM, and all that the
        bundle with the most offers: methods are compared on one and the same network.
    quick
        Without `methods`: of that bundle only those that take a single pass forward and back.
    """
    plan = Plan(list(bundles))
    check_methods(methods)
    most = max(bundles, key=lambda bundle: len(read_methods(bundle)[1]))
    for bundle in bundles:
        own, offered = read_methods(bundle)
        further = offered if bundle == most else [name for name in offered if name == "grad_cam"]
        if quick:
            further = [name for name in further if is_single_pass(name)]
        wanted = list(methods) or [own, *further]
        for name in dict.fromkeys(wanted):
            if name in offered:
                plan.entries.append(Entry(bundle, name))
            else:
                plan.refused.append(
                    Refusal(bundle.name, name, _explain_refusal(name, own, offered))
                )
    return plan


def read_methods(bundle: Path) -> tuple[str, list[str]]:
    """Return a bundle's own method, and all that it offers."""
    config = read_bundle(bundle).get()
    own = str(config.get("method", "inherent"))
    offered = offer_options(bundle, config)
    return own, list(offered["method"].choices) if "method" in offered else [own]


def is_single_pass(method: str) -> bool:
    """Whether a method takes about one pass forward and back, of the image and of a baseline."""
    passes = get_method(method).count_passes()
    return passes is not None and passes <= SINGLE_PASS


def list_draws(entry: Entry) -> list[Entry]:
    """Return an entry's controls with random weights: one network alone may happen to show nothing.

    A ReLU before the output leaves about every second random network without any CAM.
    """
    seeds = range(DRAWS if is_single_pass(entry.method) else 1)
    return [Entry(entry.bundle, entry.method, f"{RANDOM}:{seed}") for seed in seeds]


def read_entry(entry: Entry, options: Mapping[str, Any]) -> Any:
    """Return the config parser of an entry, for evaluation."""
    config = read_bundle(entry.bundle, CONFIGS).get()
    chosen = {"method": entry.method} if "method" in config else {}
    return read_bundle(entry.bundle, CONFIGS, {**options, **chosen})


def digest_entry(entry: Entry, parser: Any) -> str:
    """Return a digest of what decides the raw heatmap: weights, method, preparation, inference."""
    options = parser.get_parsed_content("options")
    used = _collect(parser.get(), ("network_def", "inferer")) | resolve_options(options)
    weights = Path(options["weights"])
    calibration = weights.with_name("calibration.json")
    return digest(
        {
            "config": used,
            "weights": digest_file(weights),
            "calibration": digest_file(calibration) if calibration.is_file() else None,
            "control": entry.control,
        }
    )


def digest_preparation(parser: Any) -> str:
    """Return a digest of what reads and prepares the scans."""
    return digest(take_options(parser.get_parsed_content("options"), ReadSettings))


def _collect(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return config items with all that they refer to, but for places and the device."""
    found: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().split("#")[0]
        if name in found or name in _NOT_RESULTS or name not in config:
            continue
        found[name] = config[name]
        waiting += _REFERENCE.findall(str(config[name]))
    return found


def _explain_refusal(method: str, own: str, offered: Sequence[str]) -> str:
    if own == "inherent" and len(offered) == 1:
        return "the network carries its own heatmap, and the bundle offers nothing else"
    if method == "inherent":
        return "the network carries no heatmap of its own"
    return f"the bundle does not offer it (its option method has {len(offered)} others)"


def check_methods(methods: Sequence[str]) -> None:
    """Refuse names that no method has, with an `OptionError`."""
    known = [method.name for method in list_methods()]
    wrong = [name for name in methods if name not in known]
    if wrong:
        raise OptionError(f"method must be one of {', '.join(known)}; got {', '.join(wrong)}.")
