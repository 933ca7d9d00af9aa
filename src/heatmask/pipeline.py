"""From a scan to a mask: prepare, explain, make the mask.

The command line, `python -m monai.bundle run`, Python and the server all call `Pipeline`. MONAI's
`SupervisedEvaluator` stops at the first scan that cannot be read, which on an archive would cost a
night.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from heatmask.bundle import (
    describe_bundle,
    find_bundle,
    list_overrides,
    read_bundle,
    run_bundle,
)
from heatmask.device import place_network, resolve_device
from heatmask.errors import Failures, raise_failures, reveal_reason
from heatmask.explained import Explained
from heatmask.inferer import HeatmapInferer
from heatmask.parts import Options, resolve_options
from heatmask.progress import Listener, listen
from heatmask.report.writer import CaseWriter
from heatmask.result import Provenance, Result, describe_versions
from heatmask.transforms import HeatmapToMaskd

Data = dict[str, Any]
"""What MONAI's dictionary transforms hand on: the case and, by name, its volumes."""


class Pipeline:
    """An explained classifier with everything around it.

    Parameters
    ----------
    preprocessing
        From ``{"image": path or volume}`` to the network's volume under ``"image"`` and the scan
        on its own grid under ``"scan"``.
    network
        The classifier.
    inferer
        Explains it on the network's grid.
    postprocessing
        From ``"heatmap"`` on the network's grid to ``"heatmap"``, ``"display"`` and ``"mask"`` on
        the scan's, the mask by one `HeatmapToMaskd`.
    device
        See `heatmask.device.resolve_device`.
    dataset
        What `run` works on: a sequence of ``{"case": name, "image": path}``.
    writer
        Where `run` puts the results.
    class_names
        Of the network's classes, in order.
    bundle_root
        Folder of the bundle, for the provenance.
    options
        Of this run, for the provenance.
    """

    def __init__(
        self,
        preprocessing: Callable[[Mapping[str, Any]], Any],
        network: nn.Module,
        inferer: HeatmapInferer,
        postprocessing: Compose,
        device: str | torch.device = "auto",
        dataset: Sequence[Mapping[str, Any]] = (),
        writer: CaseWriter | None = None,
        class_names: Sequence[str] = (),
        bundle_root: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.network = place_network(network, self.device)
        self.preprocessing, self.inferer = preprocessing, inferer
        self.postprocessing, self.dataset, self.writer = postprocessing, dataset, writer
        self.class_names, self.options = tuple(class_names), dict(options or {})
        self.bundle, self.version = describe_bundle(bundle_root)

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path,
        options: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        network: nn.Module | None = None,
    ) -> "Pipeline":
        """Open a bundle by its name or folder, with some of its options set.

        With `network`, one that is loaded already, the bundle's own is not read. Without the
        option ``input`` there is nothing to `run`, and the pipeline is called with scans.

        Raises
        ------
        HeatmaskError
            There is no such bundle, or an option or the weights are not what they must be.
        """
        settings = {"device": str(device), **(options or {})}
        parser = read_bundle(find_bundle(bundle), options=settings)
        if network is not None:
            parser["network"] = network
        if not {"input", "dataset_dir"} & settings.keys():
            parser["dataset"] = []
        return run_bundle(parser, "evaluator")

    def __call__(
        self,
        scan: Any,
        case: str = "scan",
        reference: str | None = None,
        progress: Listener | None = None,
    ) -> Result:
        """Explain one head and make its mask.

        Parameters
        ----------
        scan
            A path, a volume (1, X, Y, Z), or a mapping from sequence to one of these.
        case
            Its name in the result.
        reference
            Sequence of the scan on whose grid the mask is to lie; by default the network's first.
        progress
            Called after each batch with the images done and known to come. What it raises stops
            the run and is raised here.

        Raises
        ------
        HeatmaskError
            The scan is not what it must be.
        """
        return self.explain_scan(scan, case, reference, progress).make_result()

    def explain_scan(
        self,
        scan: Any,
        case: str = "scan",
        reference: str | None = None,
        progress: Listener | None = None,
        explain: Callable[[MetaTensor], dict[str, Tensor]] | None = None,
    ) -> Explained:
        """Explain one head, and leave the mask for later; see `__call__`.

        Parameters
        ----------
        explain
            What to call in place of the method of that name, for those who know its answer.
        """
        seconds: dict[str, float] = {}
        with reveal_reason(), listen(progress):
            with self._time(seconds, "read and prepare"):
                data = self.prepare(scan, reference)
            with self._time(seconds, "explain"):
                said = (explain or self.explain)(data["image"])
                data = self.bring_to_scan(data | said)
        return self._gather(data, case, seconds)

    def prepare(self, scan: Any, reference: str | None = None) -> Data:
        """Return ``image``, what the network gets (C, X, Y, Z), and ``scan``, on its own grid."""
        chosen = {} if reference is None else {"reference": reference}
        return dict(self.preprocessing({"image": scan, **chosen}))

    def explain(self, image: MetaTensor) -> dict[str, Tensor]:
        """Return what `HeatmapInferer` says of one image, on the CPU and without the batch axis."""
        outputs = self.inferer(image[None].to(self.device), self.network)
        return {name: value[0].cpu() for name, value in outputs.items()}

    def bring_to_scan(self, data: Mapping[str, Any]) -> Data:
        """Bring ``heatmap`` to the scan's grid, where the mask is made."""
        steps = self.postprocessing.transforms
        return dict(Compose(steps[: steps.index(self.masker)])(data))

    @property
    def masker(self) -> HeatmapToMaskd:
        """The step of the postprocessing that makes the mask."""
        (step,) = (t for t in self.postprocessing.transforms if isinstance(t, HeatmapToMaskd))
        return step

    def _gather(
        self, data: Mapping[str, Any], case: str, seconds: Mapping[str, float]
    ) -> Explained:
        """Return what is known once ``heatmap`` lies on the scan's grid."""
        steps, count = self.postprocessing.transforms, len(data["probabilities"])
        names = ("scan", "heatmap", "probabilities", "slice_probabilities", "shown", "predicted")
        return Explained(
            case=case,
            **{name: data[name] for name in names},
            class_names=self.class_names or tuple(f"class {k + 1}" for k in range(count)),
            slice_axis=self.inferer.slice_axis,
            finishing=steps[steps.index(self.masker) :],
            seconds=seconds,
            provenance=Provenance(
                self.bundle,
                self.version,
                self.options,
                getattr(self.network, "weights_sha256", None),
                str(self.device),
                describe_versions(),
            ),
        )

    def run(
        self,
        cases: Sequence[Mapping[str, Any]] | None = None,
        writer: CaseWriter | None = None,
        show: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Work through cases, write each result, and return their reports.

        Parameters
        ----------
        cases, writer
            By default the pipeline's own. Without a writer the results themselves are returned.
        show
            Called with each report as it comes.

        Raises
        ------
        HeatmaskError
            After the last case, if any failed, with the reason of each. The results of
            the others are written. The error of a single case is raised as it is.
        """
        cases = self.dataset if cases is None else cases
        writer = writer or self.writer
        if writer is not None:
            writer.prepare()
        if len(cases) == 1:
            return [self._run_case(cases[0], writer, show)]
        reports, failures = [], Failures()
        for case in _track(cases):
            with failures.catch(case["case"]):
                reports.append(self._run_case(case, writer, show))
        raise_failures(failures.reasons, len(cases), "scans")
        return reports

    def _run_case(
        self, case: Mapping[str, Any], writer: CaseWriter | None, show: Callable[[Any], None] | None
    ) -> Any:
        result = self(case["image"], case["case"], case.get("reference"))
        report = writer.write(result) if writer else result
        if show is not None:
            show(report)
        return report

    @contextmanager
    def _time(self, seconds: dict[str, float], stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds[stage] = round(time.perf_counter() - start, 4)


def make_pipeline(
    options: Options,
    preprocessing: Compose,
    network: nn.Module,
    inferer: HeatmapInferer,
    postprocessing: Compose,
    dataset: Sequence[Mapping[str, Any]] = (),
) -> Pipeline:
    """Return the pipeline of the bundle that is being run, with a record of its options."""
    root = options["bundle_root"]
    return Pipeline(
        preprocessing,
        network,
        inferer,
        postprocessing,
        options.get("device", "auto"),
        dataset,
        CaseWriter(options.get("output_dir", "output")),
        options.get("class_names", ()),
        root,
        {**list_overrides(root), **resolve_options(options)},
    )


def _track(cases: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), disable=len(cases) < 2) as progress:
        task = progress.add_task("Segmenting", total=len(cases))
        for case in cases:
            progress.update(task, description=f"Segmenting {case['case']}")
            yield case
            progress.advance(task)
