"""A MONAI Bundle for serving: found, read once, built anew for every request."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatmask.attribution.calibration import FILE_NAME
from heatmask.bundle import read_bundle, read_metadata, run_bundle
from heatmask.device import place_network
from heatmask.errors import Failures, InputError
from heatmask.learning.bundle import find_obstacle
from heatmask.options import Option
from heatmask.parts import offer_options
from heatmask.pipeline import Pipeline
from heatmask.serving.options import build_panel
from heatmask.serving.store.durable import measure_sha256

REQUIRED_FILES = (
    "configs/inference.json",
    "configs/metadata.json",
    "models/model.pt",
    "docs/data_license.txt",
)
"""Without these a bundle cannot be served; the last says what its weights may be used for."""


DECISIVE_FILES = ("configs/inference.json", "models/model.pt", f"models/{FILE_NAME}")


class ServedBundle:
    """One complete bundle.

    Parameters
    ----------
    folder
        The bundle's folder; its name becomes the model's.

    Attributes
    ----------
    name, version, description : str
    labels : dict of str to int
        Names and values of the mask's labels, 1 to N, without the background.
    panel : dict of str to Option
        The options a request may set.
    can_learn : bool
        Whether corrected masks can be learnt with it.

    Raises
    ------
    InputError, OptionError
        The configs do not describe a model that a viewer can show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        metadata = read_metadata(folder)
        self.version = str(metadata.get("version", ""))
        self.description = str(metadata.get("description", ""))
        self.labels = read_labels(metadata)
        config = read_bundle(folder).get()
        check_class_names(self.labels, config.get("class_names", list(self.labels)))
        self.panel: dict[str, Option] = build_panel(offer_options(folder, config))
        self.can_learn = find_obstacle(config) is None
        self._networks: dict[torch.device, tuple[int, nn.Module]] = {}

    @property
    def license_text(self) -> str:
        """First paragraph of ``docs/data_license.txt``, on one line."""
        text = (self.folder / "docs/data_license.txt").read_text(encoding="utf-8")
        return " ".join(text.strip().split("\n\n")[0].split())

    def digest(self) -> list[str]:
        """Return digests of what decides what this bundle says: config, weights, their ranges."""
        files = [self.folder / name for name in DECISIVE_FILES]
        return [measure_file(path) if path.is_file() else "" for path in files]

    def open(self, options: Mapping[str, Any], device: torch.device) -> Pipeline:
        """Return the pipeline with these options; it shares the network with the others."""
        return Pipeline.from_bundle(self.folder, options, device, self.load_network(device))

    def load_network(self, device: torch.device) -> nn.Module:
        """Return the network with its weights on `device`.

        It is kept there, and loaded again when the weights' file has changed.

        Raises
        ------
        WeightsError
            The weights are missing or do not fit (they are loaded strictly).
        """
        weights = self.folder / "models/model.pt"
        changed_ns = weights.stat().st_mtime_ns if weights.is_file() else -1
        known_ns, network = self._networks.get(device, (-1, nn.Identity()))
        if changed_ns == -1 or known_ns != changed_ns:
            network = place_network(run_bundle(read_bundle(self.folder), "network"), device)
            self._networks[device] = (changed_ns, network)
        return network


def measure_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is read again only when it has changed."""
    stat = path.stat()
    return _measure(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1000)
def _measure(path: Path, changed_ns: int, size: int) -> str:
    return measure_sha256(path)


def find_bundles(folders: Iterable[Path], failures: Failures) -> list[ServedBundle]:
    """Return every complete bundle of these folders, in order; `failures` keeps the others."""
    bundles = []
    for root in folders:
        with failures.catch(root.name):
            missing = [name for name in REQUIRED_FILES if not (root / name).is_file()]
            if missing:
                raise InputError(f"It lacks {', '.join(missing)}.")
            bundles.append(ServedBundle(root))
    return bundles


def read_labels(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the labels of a bundle's first output, as viewers need them.

    Raises
    ------
    InputError
        They are not 1 to N with the background at 0: Slicer would shift every segment.
    """
    output = next(iter(metadata["network_data_format"]["outputs"].values()))
    names = {int(value): str(name) for value, name in output.get("channel_def", {}).items()}
    background = names.get(0, "").lower()
    if background != "background" or len(names) < 2 or sorted(names) != list(range(len(names))):
        raise InputError(
            "channel_def of the first output in metadata.json must be 0: background and then "
            f"1 to N without a gap, got {output.get('channel_def')}. Renumber the labels."
        )
    return {name: value for value, name in sorted(names.items()) if value}


def check_class_names(labels: Mapping[str, int], class_names: Sequence[str]) -> None:
    """Refuse a bundle whose two lists of classes differ: the viewer's and the report's.

    Raises
    ------
    InputError
        They differ.
    """
    if list(labels) != list(class_names):
        raise InputError(
            f"channel_def in metadata.json names {', '.join(labels)} and class_names in "
            f"inference.json {', '.join(class_names)}. They must be the same, in one order."
        )
