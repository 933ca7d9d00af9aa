"""What makes heatmaps: a bundle with one of its methods, and the weights that are looked into."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from heatmask.attribution.registry import get_method, list_methods
from heatmask.bundle import find_bundle, list_folders, read_bundle
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.errors import InputError, OptionError
from heatmask.experiments.cases import Place, list_labels
from heatmask.parts import offer_options

RANDOM = "random"
"""The control that every explanation is set against: of all draws together."""
DRAWS = 3
"""Networks of random weights for each explanation that takes a single pass; one for the others."""
SINGLE_PASS = 3
"""Passes through the network: one forward, one back, one of a baseline image."""


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
        ``""`` for the trained weights, else what `heatmask.experiments.controls` makes of them:
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


def find_bundles(names: Sequence[str], place: Place) -> list[Path]:
    """Return the folders of bundles; without names, all that are made for such data.

    Raises
    ------
    InputError
        There is none of that name, or none at all.
    OptionError
        Two have one name, which their rows would share.
    """
    if names:
        bundles = [find_bundle(name) for name in names]
        if len({Entry(bundle, "").label for bundle in bundles}) < len(bundles):
            raise OptionError(
                "Each bundle must have a name of its own, which its rows bear; got "
                f"{', '.join(map(str, bundles))}. Rename a folder."
            )
        return bundles
    labels = list_labels(place) if place.pictures else None
    found = [folder for folder in list_folders() if _fits(folder, labels)]
    if not found:
        raise InputError(
            "There must be a bundle to compare, and bundles/ has none for such data. Name a "
            "--bundle."
        )
    return found


def _fits(bundle: Path, labels: set[str] | None) -> bool:
    """Whether a bundle knows a table's labels, or takes volumes, of which one class is shown."""
    if labels is not None:
        return labels <= set(list_label_words(bundle))
    config = read_config(bundle)
    return len(config["class_names"]) == 1 and UNKNOWN not in config["sequences"]


@cache
def read_config(bundle: Path, name: str = "inference") -> Mapping[str, Any]:
    """Return a bundle's config as it is, with nothing built."""
    return read_bundle(bundle, (name,)).get()


def list_label_words(bundle: Path) -> dict[str, str]:
    """Return what tables of pictures may call a bundle's classes, and which class each word means.

    The words are those of the table that it was trained on. Where one segment stands for several
    of them, its own name is one more.
    """
    trained = (bundle / "configs" / "train.json").is_file()
    config = read_config(bundle, "train") if trained else {}
    names = config.get("class_names") or read_config(bundle)["class_names"]
    if segment := config.get("segment"):
        return dict.fromkeys((*names, segment), segment)
    return {name: name for name in names}


def name_network(bundle: Path, config: Mapping[str, Any]) -> str:
    """Return what a table of one bundle calls its masks: the network, and the method if chosen."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    network = metadata.get("network_name") or Entry(bundle, "").label
    method = config.get("method")
    shown = "relevance map" if method == "inherent" else method
    return f"{network}, {shown}" if shown else str(network)


def make_plan(bundles: Sequence[Path], methods: Sequence[str], quick: bool = False) -> Plan:
    """Return the entries of bundles and methods.

    Parameters
    ----------
    methods
        Names, for every bundle. Without any: each bundle's own and Grad-CAM, and all that the
        bundle with the most offers: methods are compared on one and the same network.
    quick
        Without `methods`: of that bundle only those that take a single pass forward and back.

    Raises
    ------
    OptionError
        No method has such a name.
    """
    known = [method.name for method in list_methods()]
    wrong = [name for name in methods if name not in known]
    if wrong:
        raise OptionError(f"method must be one of {', '.join(known)}; got {', '.join(wrong)}.")
    plan = Plan(list(bundles))
    most = max(bundles, key=lambda bundle: len(read_methods(bundle)[1]))
    for bundle in bundles:
        own, offered = read_methods(bundle)
        further = offered if bundle == most else [name for name in offered if name == "grad_cam"]
        if quick:
            further = [name for name in further if is_single_pass(name)]
        for name in dict.fromkeys(list(methods) or [own, *further]):
            if name in offered:
                plan.entries.append(Entry(bundle, name))
            else:
                reason = _explain_refusal(name, own, offered)
                plan.refused.append(Refusal(bundle.name, name, reason))
    return plan


def read_methods(bundle: Path) -> tuple[str, list[str]]:
    """Return a bundle's own method, and all that it offers."""
    config = read_config(bundle)
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


def _explain_refusal(method: str, own: str, offered: Sequence[str]) -> str:
    if own == "inherent" and len(offered) == 1:
        return "the network carries its own heatmap, and the bundle offers nothing else"
    if method == "inherent":
        return "the network carries no heatmap of its own"
    return f"the bundle does not offer it (its option method has {len(offered)} others)"
