"""A MONAI Bundle for serving: found, read once, built anew for every request."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatmask.bundle import read_bundle
from heatmask.errors import Failures, InputError, WeightsError
from heatmask.networks.weights import load_weights
from heatmask.pipeline import Pipeline
from heatmask.serving.options import Option, build_panel

REQUIRED_FILES = (
    "configs/inference.json",
    "configs/metadata.json",
    "models/model.pt",
    "docs/data_license.txt",
)
"""Without these a bundle cannot be served; the last says what its weights may be used for."""


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

    Raises
    ------
    InputError, OptionError
        The configs do not describe a model that a viewer can show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        metadata = json.loads((folder / "configs/metadata.json").read_text(encoding="utf-8"))
        self.version = str(metadata.get("version", ""))
        self.description = str(metadata.get("description", ""))
        self.labels = read_labels(metadata)
        self._parser = read_bundle(folder)
        check_class_names(self.labels, self._parser.get("class_names", list(self.labels)))
        shown = self._parser.get("displayable_configs", {})
        self.panel: dict[str, Option] = build_panel(shown, self._parser.config)
        self._networks: dict[torch.device, tuple[int, nn.Module]] = {}

    @property
    def weights_path(self) -> Path:
        """The checkpoint."""
        return self.folder / "models/model.pt"

    @property
    def license_text(self) -> str:
        """First paragraph of ``docs/data_license.txt``, on one line."""
        text = (self.folder / "docs/data_license.txt").read_text(encoding="utf-8")
        return " ".join(text.strip().split("\n\n")[0].split())

    def build_pipeline(self, options: Mapping[str, Any], device: torch.device) -> Pipeline:
        """Build the pipeline with these values of the config's top level.

        Every option of the panel must be given, so that none is left over from the request
        before. Not safe from several threads.
        """
        network = self.load_network(device)
        self._parser.update(dict(options))
        preprocessing, inferer, postprocessing = (
            self._parser.get_parsed_content(name)
            for name in ("preprocessing", "inferer", "postprocessing")
        )
        return Pipeline(
            preprocessing,
            network,
            inferer,
            postprocessing,
            device,
            class_names=list(self.labels),
            bundle_root=self.folder,
            options=options,
        )

    def load_network(self, device: torch.device) -> nn.Module:
        """Return the network with its weights on `device`.

        It is kept there, and loaded again when the weights' file has changed.

        Raises
        ------
        WeightsError
            The weights are missing or do not fit (they are loaded strictly).
        """
        if not self.weights_path.is_file():
            raise WeightsError(
                f"{self.name} must have its weights in {self.weights_path}, and the file is gone. "
                "Restore it."
            )
        changed_ns = self.weights_path.stat().st_mtime_ns
        known_ns, network = self._networks.get(device, (0, nn.Identity()))
        if known_ns != changed_ns:
            # Not lazy: the parser would hand out the network that is on another device.
            network = self._parser.get_parsed_content("network_def", lazy=False)
            network = load_weights(network, self.weights_path).to(device)
            self._networks[device] = (changed_ns, network)
        return network


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
