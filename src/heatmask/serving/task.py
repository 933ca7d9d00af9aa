"""One inference request: options, scan in, pseudo-mask and the facts about it out.

The task implements the host's `InferTask` directly and not its `BundleInferTask`. That one
merges a request's values into the bundle's config unchecked, loads weights loosely, passes
an ``image_path`` that MONAI >= 1.6 trips over, loses the affine of dict outputs, and guards
nothing against threads. What is left after replacing these is short: the `Pipeline` that
`monai.bundle run` uses, built from the bundle's own ``inference.json``.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from torch import Tensor

from heatmask.data.readers.dicom_series import read_only_series
from heatmask.data.recognition import find_clue
from heatmask.device import resolve_device
from heatmask.errors import HeatmaskError, InputError
from heatmask.explained import MASK_OPTIONS, Explained
from heatmask.options import Option
from heatmask.progress import Listener
from heatmask.result import Result
from heatmask.serving.bundle import ServedBundle, measure_file
from heatmask.serving.explained import Explanations, digest, digest_code, digest_scans, place
from heatmask.serving.facts import gather_facts
from heatmask.serving.options import read_options, show_option, to_config
from heatmask.serving.store.links import find_scan, is_study, read_siblings
from heatmask.serving.volume_file import read_result_format, write_volume

logger = logging.getLogger(__name__)

_OPENING = threading.Lock()
"""Held while a bundle's config is read and its network loaded, which threads share."""
_DEVICES: dict[tuple[str, int], threading.Lock] = {}
_PATIENCE_S = 0.2


class HeatmapInferTask(InferTask):
    """A bundle as a segmentation model of the host.

    Parameters
    ----------
    bundle
        The bundle to serve.
    device
        First choice of the options panel: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    explanations
        What is kept for the next request; by default in memory only.
    """

    def __init__(
        self,
        bundle: ServedBundle,
        device: str = "auto",
        explanations: Explanations | None = None,
    ) -> None:
        self._bundle = bundle
        self._explanations = explanations or Explanations()
        self._panel = {**bundle.panel, "device": build_device_option(device)}
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=bundle.labels,
            dimension=3,
            description=bundle.description,
            config={name: show_option(option) for name, option in self._panel.items()},
        )

    def info(self) -> dict[str, Any]:
        """Describe the model to clients, the bundle's version included."""
        return {**super().info(), "version": self._bundle.version}

    @property
    def license_text(self) -> str:
        """What the weights may be used for."""
        return self._bundle.license_text

    @property
    def folder(self) -> Path:
        """The bundle's folder."""
        return self._bundle.folder

    @property
    def can_learn(self) -> bool:
        """Whether corrected masks can be learnt with it."""
        return self._bundle.can_learn

    def is_valid(self) -> bool:
        """Return True: an incomplete bundle does not get this far."""
        return True

    def load(self) -> None:
        """Load the network now, so that wrong weights are known before a request comes."""
        with _OPENING:
            self._bundle.load_network(resolve_device(str(self._panel["device"].default)))

    def digest(self) -> list[str]:
        """Return digests of what decides what it says of a scan."""
        return self._bundle.digest()

    def has_made(self, facts: Any) -> bool:
        """Whether the facts that came with a mask are of this version, with these weights."""
        made = facts if isinstance(facts, dict) else {}
        ours = self._bundle.version, measure_file(self._bundle.folder / "models/model.pt")
        return (made.get("version"), made.get("weights_sha256")) == ours

    def __call__(
        self,
        request: Mapping[str, Any],
        progress: Listener | None = None,
        folder: Path | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Run the bundle on the scan at ``request["image"]``.

        Requests for one device wait for one another: its memory is shared.

        Parameters
        ----------
        request
            What the client sent, and the scan's path.
        progress
            See `Pipeline`; also called while the request waits, to give it a chance to stop.
        folder
            Where the mask is written; by default the machine's folder for temporary files.

        Returns
        -------
        tuple
            A new file with the mask on the scan's own grid, which the caller removes, and the
            facts that go to the client as params.

        Raises
        ------
        HeatmaskError
            The scan, an option or the weights are not what they must be.
        """
        start = time.perf_counter()
        extension, dtype = read_result_format(request)
        result, facts = self.answer(request, progress)
        file = write_volume(result.mask, result.scan, extension, dtype, folder)
        facts["seconds"]["total"] = round(time.perf_counter() - start, 4)
        logger.info("%s: %s s", self._bundle.name, facts["seconds"])
        return file, {**facts, "label_names": self._bundle.labels}

    def answer(
        self, request: Mapping[str, Any], progress: Listener | None = None
    ) -> tuple[Result, dict[str, Any]]:
        """Return what comes out of the scan at ``request["image"]``, and the facts about it.

        Parameters
        ----------
        request, progress
            As `__call__`, which see for the errors too.
        """
        values, warnings = read_options(self._panel, request)
        explained = self.explain(request, progress)
        mask_options = {n: v for n, v in values.items() if n in MASK_OPTIONS}
        result = explained.make_result(mask_options)
        facts = gather_facts(explained, result, mask_options)
        return result, {
            **facts,
            "warnings": facts["warnings"] + warnings,
            "options": values,
            "model": self._bundle.name,
            "version": self._bundle.version,
        }

    def explain(self, request: Mapping[str, Any], progress: Listener | None = None) -> Explained:
        """Explain the scan at ``request["image"]``, or return what is known of it.

        What was asked before with the same scan and options is not asked of the network again;
        those of the mask do not count, and it has them as the bundle sets them.

        Parameters
        ----------
        request, progress
            As `__call__`.

        Raises
        ------
        HeatmaskError
            As `__call__`, and if the scan changes while it is read.
        """
        image = read_image_path(request)
        asked, device = self._read_question(request)
        scans, name, sequence = list_scans(image)
        content = digest_scans(scans)
        key = digest([content, self._bundle.digest(), asked, str(device), digest_code()])

        def ask(prepared: MetaTensor) -> dict[str, Tensor]:
            if digest_scans(scans) != content:
                raise InputError("The scan was replaced while it was read. Ask again.")
            kept = self._explanations.read(key, prepared)
            said = kept or pipeline.explain(prepared)
            if not kept and is_study(image):
                self._explanations.write(key, said)
            return said

        known = self._explanations.find(key)
        if known is None:
            with hold_device(device, progress):
                known = self._explanations.find(key)  # Somebody else has asked the same meanwhile
                if known is None:
                    with _OPENING:
                        pipeline = self._bundle.open(asked, device)
                    known = pipeline.explain_scan(scans, name, sequence, progress, ask)
                    self._explanations.keep(key, known)
        self._explanations.note(digest([str(image), asked, str(device)]), key)
        return place(known, name, str(find_scan(image)))

    def knows(self, request: Mapping[str, Any]) -> bool:
        """Return whether a request is likely to be answered without the network.

        For the queue alone: a scan that was replaced since then is explained all the same.
        """
        try:
            asked, device = self._read_question(request)
            question = digest([str(read_image_path(request)), asked, str(device)])
        except HeatmaskError:  # whoever runs it says why
            return False
        return self._explanations.has_noted(question)

    def _read_question(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], torch.device]:
        """Return what of a request's options reaches the network, and where it is to run."""
        values, _ = read_options(self._panel, request)
        asked = {n: v for n, v in to_config(values).items() if n not in MASK_OPTIONS}
        return asked, resolve_device(str(values["device"]))


@contextmanager
def hold_device(device: torch.device, progress: Listener | None = None) -> Iterator[None]:
    """Keep a device to oneself, whichever bundle runs on it."""
    lock = _DEVICES.setdefault((device.type, device.index or 0), threading.Lock())
    while not lock.acquire(timeout=_PATIENCE_S):
        if progress is not None:
            progress(0, 0)
    try:
        yield
    finally:
        lock.release()


def build_device_option(default: str) -> Option:
    """Return the panel's choice of devices: those that are there, the default first."""
    choices = ["auto", "cpu"]
    if torch.cuda.is_available():
        choices += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    resolve_device(default)  # Says clearly what is wrong with a device that is not there
    others = tuple(choice for choice in choices if choice != default)
    return Option("device", default, "Where the network runs.", (default, *others))


def read_image_path(request: Mapping[str, Any]) -> Path:
    """Return the path of a request's scan.

    Raises
    ------
    InputError
        The request holds no path: no image was named, or pixels were sent in place of one.
    """
    image = request.get("image")
    if not isinstance(image, str) or not image:
        raise InputError(
            f"A request must name a scan, got {image!r:.40}. "
            "Name an image of the server's list, send a file, or open a new session if yours has "
            "expired."
        )
    return Path(image)


def list_scans(image: Path) -> tuple[str | dict[str, str], str, str | None]:
    """Return a scan, alone or with those of its study, its name, and its sequence among them.

    The mask lies on the grid of this scan, which is what the viewer shows, whatever the model
    takes.
    """
    siblings, path = read_siblings(image), find_scan(image)
    if not siblings:
        return str(path), path.name, None
    header = read_only_series(path).header if path.is_dir() else None
    sequence = find_clue(path, header).sequence
    return {**siblings, sequence: str(path)}, path.name, sequence
