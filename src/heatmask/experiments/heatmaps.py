"""Raw heatmaps of an entry on every case, each computed once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray

from heatmask.attribution.memory import measure_peak
from heatmask.attribution.registry import get_method
from heatmask.bundle import read_bundle, run_bundle
from heatmask.errors import reveal_reason
from heatmask.experiments.cases import Case
from heatmask.experiments.controls import make_control, show_control
from heatmask.experiments.entries import Entry, read_config
from heatmask.experiments.store import (
    Kept,
    Store,
    digest,
    digest_code,
    digest_file,
    list_targets,
)
from heatmask.geometry import find_slice_axis
from heatmask.pipeline import Pipeline

_HALF_MAX = 60_000.0
_BY_SLICE = ("shown", "predicted", "probabilities")
_NOT_RESULTS = ("bundle_root", "weights", "dataset_dir", "input", "output_dir", "device", "pattern",
                "batch_size", "displayable_configs", "dataset", "writer")  # fmt: skip
"""Parts of a bundle's config that say where and how it runs, and not what comes out."""


@dataclass(frozen=True)
class Heatmap:
    """The attribution of one case where a class is shown, on the network's grid.

    Attributes
    ----------
    maps
        (n, H, W), float32, of the n slices and classes that are shown, in the order of `shown`.
    shown, predicted
        (slices, K), bool, as `heatmask.inferer.HeatmapInferer` returns them.
    probabilities
        (slices, K), float32.
    seconds
        What it took to classify all slices and explain those shown.
    """

    maps: NDArray[np.float32]
    shown: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    probabilities: NDArray[np.float32]
    seconds: float

    def fill(self, image: MetaTensor, slice_axis: int, empty_value: float) -> MetaTensor:
        """Return the whole heatmap (K, X, Y, Z) on the grid of the network's image."""
        axis = find_slice_axis(image.shape[1:], slice_axis)
        grid = [size for number, size in enumerate(image.shape[1:]) if number != axis]
        slices = torch.full((*self.shown.shape, *grid), float(empty_value))
        slices[torch.from_numpy(self.shown)] = torch.from_numpy(self.maps)
        whole = slices.permute(1, 0, 2, 3).movedim(1, axis + 1)
        return convert_to_dst_type(whole, image, dtype=torch.float32)[0]


class Explanations(Kept[Case]):
    """The heatmaps of one entry.

    Parameters
    ----------
    entry
        What makes them.
    options
        Of the bundle's config: device, ...
    store
        Where they are kept, in half precision; None keeps nothing and rounds nothing.
    """

    def __init__(self, entry: Entry, options: Mapping[str, Any], store: Store | None) -> None:
        self.entry, self.store = entry, store
        chosen = {"method": entry.method} if "method" in read_config(entry.bundle) else {}
        self.parser = read_bundle(entry.bundle, options={**options, **chosen})
        self.parser.update({"dataset": [], "writer": None})
        self.parser.parse()  # So that what it includes is in its content
        self._prepared: tuple[Case | None, dict[str, Any]] = (None, {})

    @cached_property
    def pipeline(self) -> Pipeline:
        """The bundle's, built when it is first needed."""
        pipeline: Pipeline = run_bundle(self.parser, "evaluator")
        control = make_control(pipeline.network, self.entry.control)
        if control is not None:
            pipeline.inferer = show_control(pipeline.inferer, control)
        return pipeline

    @property
    def slice_axis(self) -> int:
        """The axis of the slices in RAS orientation."""
        return self.pipeline.inferer.slice_axis

    @cached_property
    def preparation(self) -> str:
        """Digest of what decides the results whatever the weights: config and code."""
        config = {k: v for k, v in self.parser.get().items() if k not in _NOT_RESULTS}
        return digest([config, digest_code(__name__, *sorted({*list_targets(config)}))])

    @cached_property
    def digest(self) -> str:
        """Digest of what decides the results but for the scan."""
        weights = Path(self._find_weights())
        files = [weights, weights.with_name("calibration.json")]
        found = [digest_file(path) for path in files if path.is_file()]
        method = digest_code(get_method(self.entry.method).function.__module__)
        return digest([self.preparation, found, self.entry.control, method])

    def _find_weights(self) -> str:
        if "options" in self.parser:
            return str(self.parser.get_parsed_content("options")["weights"])
        return str(self.parser.get_parsed_content("weights"))  # of Heatmask 0.1

    def find_key(self, item: Case) -> str:
        """Return what the heatmap of a case is kept under."""
        return digest([self.digest, [digest_file(path) for path in item.scans]])

    def prepare(self, case: Case) -> dict[str, Any]:
        """Return what the bundle's preprocessing makes of a case; the last one is at hand."""
        if self._prepared[0] is not case:
            preprocessing = run_bundle(self.parser, "preprocessing")  # which needs no network
            with reveal_reason():
                self._prepared = case, dict(preprocessing({"image": case.image}))
        return dict(self._prepared[1])

    def explain(self, case: Case) -> Heatmap:
        """Return the heatmap of a case, from the store if it is there."""
        if self.store is None:
            return self._explain(case)
        arrays = self.get(case)
        maps = arrays["maps"].astype(np.float32) * arrays["scale"]
        shown, predicted, probabilities = (arrays[name] for name in _BY_SLICE)
        return Heatmap(maps, shown, predicted, probabilities, float(arrays["seconds"]))

    def _compute(self, item: Case) -> dict[str, NDArray]:
        found = self._explain(item)
        # Half precision, but of a range that is the map's own: gradients may be of any size.
        scale = np.asarray(np.abs(found.maps).max(initial=0.0) / _HALF_MAX or 1.0, np.float32)
        return {
            "maps": (found.maps / scale).astype(np.float16),
            "scale": scale,
            **{name: getattr(found, name) for name in _BY_SLICE},
            "seconds": np.asarray(found.seconds),
        }

    def _explain(self, case: Case) -> Heatmap:
        pipeline, image = self.pipeline, self.prepare(case)["image"]
        with reveal_reason():
            start = time.perf_counter()
            out = pipeline.explain(image)
            seconds = time.perf_counter() - start
        heatmap, shown = torch.as_tensor(out["heatmap"]), out["shown"]
        axis = find_slice_axis(heatmap.shape[1:], self.slice_axis)
        maps = heatmap.movedim(axis + 1, 0)[shown].numpy()
        probabilities = out["slice_probabilities"].float().numpy()
        return Heatmap(maps, shown.numpy(), out["predicted"].numpy(), probabilities, seconds)


class MemoryMeasuring(Kept[Case]):
    """What explaining a case takes at most beside what was there, in 10^9 bytes."""

    def __init__(self, explanations: Explanations) -> None:
        self.explanations, self.store = explanations, explanations.store

    def find_key(self, item: Case) -> str:
        """Return what the figure for a case is kept under."""
        return digest([self.explanations.find_key(item), "memory"])

    def _compute(self, item: Case) -> float:
        pipeline, image = self.explanations.pipeline, self.explanations.prepare(item)["image"]
        with measure_peak(pipeline.device) as read_peak:
            pipeline.explain(image)
        return float(read_peak() / 1e9)


def measure_range(heatmaps: Sequence[Heatmap]) -> tuple[float, float]:
    """Return the range (low, high) of an entry without a calibration: a control's.

    `low` is the median over what is shown, `high` the 99.5th percentile; neither label nor mask is
    looked at. (1.0 apart where the maps are constant.)
    """
    values = np.concatenate([np.zeros(0, np.float32), *(h.maps.ravel() for h in heatmaps)])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values[:: max(1, values.size // 2**24)], (50, 99.5))
    return float(low), float(high if high > low else low + 1.0)
