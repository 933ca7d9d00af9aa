"""Run a bundle over scans: read, explain, make the mask, write; one failing scan stops no other.

MONAI's `SupervisedEvaluator` stops at the first scan that cannot be read and times
nothing; on an archive either would cost a night. Everything else in the chain is MONAI's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from heatmask.device import place_network, resolve_device
from heatmask.errors import Failures, raise_failures, reveal_reason

Result = dict[str, Any]


class Writer(Protocol):
    """Puts the result of one case on disk."""

    def prepare(self) -> None:
        """Fail early where nothing can be written."""

    def write(self, result: Result) -> Any:
        """Write one result."""


class Segmenter:
    """The explained classifier with everything around it.

    Parameters
    ----------
    preprocessing
        From ``{"image": path or volume}`` to the network's volume under ``"image"`` and the
        scan on its own grid under ``"scan"``.
    network
        An explained classifier (see `heatmask.attribution.explained`).
    inferer
        `heatmask.inferer.HeatmapInferer` or one like it.
    postprocessing
        From ``"heatmap"`` on the network's grid to ``"heatmap"`` and ``"mask"`` on the scan's.
    device
        See `heatmask.device.resolve_device`.
    dataset
        What `run` works on: a sequence of ``{"image": path, "case": name}``.
    writer
        Where `run` puts the results.
    """

    def __init__(
        self,
        preprocessing: Callable[[Mapping[str, Any]], Any],
        network: nn.Module,
        inferer: Callable[..., Any],
        postprocessing: Callable[[Mapping[str, Any]], Any],
        device: str | torch.device = "auto",
        dataset: Sequence[Mapping[str, Any]] = (),
        writer: Writer | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.network = place_network(network, self.device)
        self.preprocessing, self.inferer = preprocessing, inferer
        self.postprocessing, self.dataset, self.writer = postprocessing, dataset, writer

    def segment(self, case: Mapping[str, Any]) -> Result:
        """Return one case with its results.

        Added are ``scan``, ``heatmap`` (K, X, Y, Z; raw), ``mask`` (1, X, Y, Z; uint8), all
        on the scan's grid; ``probabilities`` (K,); ``slice_probabilities`` (slices, K);
        ``seconds`` by stage, ``device`` and ``weights_sha256`` of the file that the network
        was loaded from (None for another network).

        Raises
        ------
        HeatmaskError
            The scan or an option is not what it must be.
        """
        with reveal_reason():
            return self._segment(case)

    def _segment(self, case: Mapping[str, Any]) -> Result:
        seconds: dict[str, float] = {}
        with self._time(seconds, "read and prepare"):
            data = dict(self.preprocessing(case))
        with self._time(seconds, "explain"):
            outputs = self.inferer(data["image"][None].to(self.device), self.network)
            data.update({name: value[0].cpu() for name, value in outputs.items()})
        with self._time(seconds, "make mask"):
            data = dict(self.postprocessing(data))
        sha256 = getattr(self.network, "weights_sha256", None)
        device = str(self.device)
        return {**data, "seconds": seconds, "device": device, "weights_sha256": sha256}

    def run(self, show: Callable[[Any], None] | None = None) -> list[Any]:
        """Segment and write the whole data set; return what the writer returned for each.

        Parameters
        ----------
        show
            Called with each of these as it comes.

        Raises
        ------
        HeatmaskError
            After the last case, if any failed, with the reason of each. The results of
            the others are written. The error of a single case is raised as it is.
        """
        if self.writer is not None:
            self.writer.prepare()
        if len(self.dataset) == 1:
            (case,) = self.dataset
            return [self._segment_and_write(case, show)]
        written, failures = [], Failures()
        for case in self._track(self.dataset):
            with failures.catch(case["case"]):
                written.append(self._segment_and_write(case, show))
        raise_failures(failures.reasons, len(self.dataset), "scans")
        return written

    def _segment_and_write(
        self, case: Mapping[str, Any], show: Callable[[Any], None] | None
    ) -> Any:
        result = self.segment(case)
        written = self.writer.write(result) if self.writer else result
        if show is not None:
            show(written)
        return written

    @contextmanager
    def _time(self, seconds: dict[str, float], stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds[stage] = round(time.perf_counter() - start, 4)

    @staticmethod
    def _track(cases: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, TimeElapsedColumn(), disable=len(cases) < 2) as progress:
            task = progress.add_task("Segmenting", total=len(cases))
            for case in cases:
                progress.update(task, description=f"Segmenting {case['case']}")
                yield case
                progress.advance(task)
