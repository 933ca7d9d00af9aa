"""Raw heatmaps of an entry on every subject, each computed once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray

from heatmask.comparison.controls import make_control
from heatmask.comparison.entries import Entry, digest_entry, read_entry
from heatmask.comparison.store import Store, digest, digest_code, digest_file
from heatmask.comparison.subjects import Subject
from heatmask.errors import reveal_reason
from heatmask.geometry import find_slice_axis
from heatmask.pipeline import Pipeline

_CODE = digest_code((
    "attribution", "networks", "data", "inferer.py", "block_inferer.py", "transforms.py",
    "geometry.py", "training/engine.py", "comparison/controls.py", "comparison/heatmaps.py",
))  # fmt: skip
_HALF_MAX = 60_000.0


@dataclass(frozen=True)
class Heatmap:
    """The attribution of one subject where a class is shown, on the network's grid.

    Attributes
    ----------
    maps
        (n, H, W), float32, of the n slices and classes that are shown, in the order of `shown`.
    shown
        (slices, K), bool, as `heatmask.inferer.HeatmapInferer` returns it.
    probabilities
        (slices, K).
    seconds
        What it took to classify all slices and explain those shown.
    """

    maps: NDArray[np.float32]
    shown: NDArray[np.bool_]
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


class Explanations:
    """The heatmaps of one entry.

    Parameters
    ----------
    entry
        What makes them.
    options
        Of the bundle's config: data, device, pattern, ...
    store
        Where they are kept.
    """

    def __init__(self, entry: Entry, options: Mapping[str, Any], store: Store) -> None:
        self.entry, self.store = entry, store
        self.parser = read_entry(entry, options)
        self.digest = digest([digest_entry(entry, self.parser), _CODE])
        self._segmenter: Pipeline | None = None

    @property
    def segmenter(self) -> Pipeline:
        """The bundle's, built when it is first needed."""
        if self._segmenter is None:
            with reveal_reason():
                self._segmenter = self.parser.get_parsed_content("evaluator")
            inferer: Any = self._segmenter.inferer
            inferer.control = make_control(self._segmenter.network, self.entry.control)
        return self._segmenter

    @property
    def slice_axis(self) -> int:
        """The axis of the slices in RAS orientation."""
        return int(self.parser.get_parsed_content("options").get("slice_axis", 2))

    def find_key(self, subject: Subject) -> str:
        """Return what the heatmap of a subject is kept under."""
        return digest([self.digest, [digest_file(path) for path in subject.files[:-1]]])

    def is_done(self, subject: Subject) -> bool:
        """Whether it need not be computed."""
        return self.store.find(self.find_key(subject), ".npz") is not None

    def prepare(self, subject: Subject) -> dict[str, Any]:
        """Return what the bundle's preprocessing makes of a subject."""
        with reveal_reason():
            preprocessing = self.parser.get_parsed_content("preprocessing")
            return dict(preprocessing({"image": subject.image}))

    def explain(self, subject: Subject, data: Mapping[str, Any] | None = None) -> Heatmap:
        """Return the heatmap of a subject, from the store if it is there.

        `data` is what `prepare` returned, where that is at hand.
        """
        key = self.find_key(subject)
        kept = self.store.read_arrays(key)
        if kept is None:
            self.store.write_arrays(key, self._compute(data or self.prepare(subject)))
            kept = self.store.read_arrays(key)
        arrays = kept or {}
        maps = arrays["maps"].astype(np.float32) * arrays["scale"]
        return Heatmap(maps, arrays["shown"], arrays["probabilities"], float(arrays["seconds"]))

    def _compute(self, data: Mapping[str, Any]) -> dict[str, Any]:
        segmenter = self.segmenter
        image = data["image"][None].to(segmenter.device)
        with reveal_reason():
            start = time.perf_counter()
            out = segmenter.inferer(image, segmenter.network)
            shown = out["shown"][0].cpu()
            seconds = time.perf_counter() - start
        heatmap = torch.as_tensor(out["heatmap"][0].cpu())
        axis = find_slice_axis(heatmap.shape[1:], self.slice_axis)
        maps = heatmap.movedim(axis + 1, 0)[shown].numpy()
        # Half precision, but of a range that is the map's own: gradients may be of any size.
        scale = np.float32(np.abs(maps).max(initial=0.0) / _HALF_MAX or 1.0)
        return {
            "maps": (maps / scale).astype(np.float16),
            "scale": scale,
            "shown": shown.numpy(),
            "probabilities": out["slice_probabilities"][0].float().cpu().numpy(),
            "seconds": np.float64(seconds),
        }


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
