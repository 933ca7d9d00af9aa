"""Why a bundle says what it says: its heatmap as a volume, and as segments that viewers show."""

import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferType

from heatmask.explained import MASK_OPTIONS
from heatmask.progress import Listener
from heatmask.serving.derived import DerivedTask
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.volume_file import read_result_format, write_volume

LEVELS = (0.5, 0.7, 0.9)
"""Where segments of the heatmap begin, between the ends of its fixed range, 0 and 1."""


class ViewTask(DerivedTask):
    """Shows the heatmap of a bundle: in [0, 1], of several classes the highest.

    It has those of the bundle's options that reach the network.

    Parameters
    ----------
    base
        The bundle's own task.
    """

    what: str
    segments: ClassVar[Mapping[str, int]] = {}

    def __init__(self, base: HeatmapInferTask) -> None:
        options = {n: value for n, value in base.config().items() if n not in MASK_OPTIONS}
        super().__init__(base, self.what, dict(self.segments), options)

    def __call__(
        self,
        request: Mapping[str, Any],
        progress: Listener | None = None,
        folder: Path | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Show the heatmap of the scan at ``request["image"]``; see `HeatmapInferTask`."""
        start = time.perf_counter()
        extension, dtype = read_result_format(request)
        result, facts = self.base.answer(request, progress)
        volume = self._draw(result.display.amax(dim=0, keepdim=True))
        kind = str(volume.numpy().dtype) if volume.is_floating_point() else dtype
        file = write_volume(volume, result.scan, extension, kind, folder)
        facts["seconds"]["total"] = round(time.perf_counter() - start, 4)
        return file, {**facts, "label_names": self.labels}

    @abstractmethod
    def _draw(self, heatmap: MetaTensor) -> MetaTensor:
        """Return the volume (1, X, Y, Z) for a heatmap (1, X, Y, Z) in [0, 1]."""


class HeatmapTask(ViewTask):
    """The heatmap itself, float32, whatever type a client asks for."""

    kind = InferType.OTHERS  # which the panel of 3D Slicer does not list
    what = "The heatmap in [0, 1] as a volume, for clients that load one."

    def _draw(self, heatmap: MetaTensor) -> MetaTensor:
        return heatmap


class LevelsTask(ViewTask):
    """The heatmap in steps, one segment each."""

    kind = InferType.SEGMENTATION
    what = "The heatmap as segments: at least 50, 70 and 90 % of its range."
    segments: ClassVar[Mapping[str, int]] = {
        f"heatmap {level:.0%}": n for n, level in enumerate(LEVELS, start=1)
    }

    def _draw(self, heatmap: MetaTensor) -> MetaTensor:
        steps: MetaTensor = torch.stack([heatmap >= level for level in LEVELS]).sum(dim=0)
        return steps.to(torch.uint8)
