"""From corrected masks to a bundle that is served, if it does no worse than what is served now."""

import copy
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.device import resolve_device
from heatmask.errors import HeatmaskError, InputError, list_reasons
from heatmask.learning.bundle import (
    LearnedWeights,
    carries_heatmap,
    check_source,
    make_config,
    mean,
    write_learned_bundle,
)
from heatmask.learning.examples import Examples, join_examples
from heatmask.learning.fit import fit, start_segmentation
from heatmask.learning.folds import assign_folds
from heatmask.learning.held_out import score_patients, score_served
from heatmask.learning.reading import ExampleReader
from heatmask.learning.scans import LearnScan, check_names
from heatmask.learning.settings import LearnSettings
from heatmask.learning.status import Training
from heatmask.learning.versions import (
    LearnedRecord,
    LearnedVersions,
    name_bundle,
    number_version,
    read_record,
)
from heatmask.networks.global_pooling import GPNetwork
from heatmask.networks.weights import load_weights
from heatmask.pipeline import Pipeline

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

_ONCE = ("folds", "max_scans", "max_epochs", "start_epochs", "features", "image_size", "way")
"""Settings that the state of a network's training does not depend on beside what it is given."""


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes
    ----------
    dice, served_dice : of each corrected patient, by weights that had not seen it: new, and served
    bundle : the new version's folder; None if it did worse and was not published
    """

    dice: Mapping[str, float]
    served_dice: Mapping[str, float]
    bundle: Path | None


class Learner:
    """One training from corrected masks.

    Parameters
    ----------
    source
        The bundle to begin with, by name or folder. Of a learnt one it is the one that that began
        with.
    scans
        Those with a corrected mask, and others.
    folder
        `heatmask.learning.versions.LearnedVersions`, and what a later training goes on with.
    settings
        How it learns.
    training
        Where it is noted how far it is.
    device
        Where.

    Raises
    ------
    HeatmaskError
        The bundle or the scans are not what they must be.
    """

    def __init__(
        self,
        source: str | Path,
        scans: Sequence[LearnScan],
        folder: Path,
        settings: LearnSettings,
        training: Training,
        device: str = "auto",
    ) -> None:
        self.training, self.device = training, str(resolve_device(device))
        self.versions, self.runs = LearnedVersions(folder), folder / "runs"
        given = find_bundle(source)
        earlier = read_record(given)
        self.source = find_bundle(earlier.source) if earlier is not None else given
        self.name = name_bundle(self.source.resolve().name)
        self.config = read_bundle(self.source).get()
        check_source(self.config, self.source.name, settings.way)
        if settings.way == "auto":
            way = "joint" if carries_heatmap(self.config) else "segmentation"
            settings = replace(settings, way=way)
        self.settings = settings
        self.served = self.versions.find_current(self.name) or self.source
        self.scans = self._check_scans(scans)
        self.corrected = [scan for scan in self.scans if scan.correction is not None]
        self.folds = assign_folds((scan.patient for scan in self.corrected), settings.folds)
        self._used: set[Path] = set()

    def run(self) -> Outcome:
        """Train, compare, and publish.

        Raises
        ------
        HeatmaskError
            No held-out patient has a mask to compare with, or the disk is full.
        """
        begun, epochs, count = time.monotonic(), self.settings.max_epochs, max(self.folds.values())
        status = self.training.status
        first = self.settings.start_epochs if self.settings.way == "segmentation" else 0
        status.total_epochs = first + (count + 2) * epochs
        steps = max(1, self.settings.slices_per_epoch // self.settings.batch_size)
        status.total = status.total_epochs * steps * self.settings.batch_size
        plain, masks = self._read()
        start = self._start(plain, first)
        dice, states = self._hold_out(start, plain, masks)
        if not dice:
            raise InputError(
                "None of the corrected masks marks anything, so that the new weights cannot be "
                "compared. Correct a scan that shows the finding."
            )
        self._stage("Comparing with what is served now")
        served = score_served(self.served, self.corrected, self.device)
        served = {patient: served[patient] for patient in dice}
        compared = (
            f"Dice on {len(dice)} corrected patients, each held out in turn: {mean(dice):.3f}; "
            f"{self.served_name}: {mean(served):.3f}."
        )
        if mean(dice) == 0 or mean(dice) < mean(served):
            self.training.say(f"{compared} The new weights are worse and were not published.")
            self._remove_runs()
            return Outcome(dice, served, None)
        self._stage("Learning from all corrections")
        final = self._fit(start, self._mix(plain, masks, set()), epochs)
        record = LearnedRecord(
            source=self.source.resolve().name,
            settings=asdict(self.settings),
            folds=self.folds,
            dice=dice,
            compared_with=self.served_name,
            compared_dice=served,
            labels={
                scan.name: {"version": mask.version, "sha256": mask.sha256}
                for scan in self.corrected
                if (mask := scan.correction) is not None
            },
            scans=len(self.scans) - len(self.corrected),
            seconds=round(time.monotonic() - begun),
        )
        bundle = self._publish(LearnedWeights(final.state_dict(), states), record)
        status.published = number_version(bundle)
        self.training.say(f"{compared} Published as {self.name}, version {status.published}.")
        self._remove_runs()
        return Outcome(dice, served, bundle)

    @property
    def served_name(self) -> str:
        """What the new weights are compared with."""
        if self.served == self.source:
            return self.source.resolve().name
        return f"{self.name}, version {number_version(self.served)}"

    def _check_scans(self, scans: Sequence[LearnScan]) -> list[LearnScan]:
        """Leave out corrections that do not name the finding; and of other scans all but some."""
        finding = self.config.get("class_names", ["finding"])[0]
        checked, reasons, others = [], {}, 0
        for scan in scans:
            if scan.correction is None:
                others += 1
                if others > self.settings.max_scans:
                    continue
            try:
                for warning in check_names(scan, finding):
                    self.training.say(warning)
            except InputError as error:
                reasons[scan.name] = str(error)
                scan = replace(scan, correction=None)
            checked.append(scan)
        if reasons:
            self.training.say(f"Not learnt from:{list_reasons(reasons)}")
        return checked

    def _read(self) -> tuple[dict[str, Examples], dict[str, Examples]]:
        """Return the examples of each scan, and of corrected ones with their masks too."""
        pipeline = Pipeline.from_bundle(self.source, device=self.device)
        reader = ExampleReader(
            pipeline,
            self.settings.image_size,
            self.versions.folder / "examples",
            self.settings.attribution_augmentation,
        )
        plain: dict[str, Examples] = {}
        masks: dict[str, Examples] = {}
        reasons: dict[str, str] = {}
        for number, scan in enumerate(self.scans, 1):
            self._stage(f"Reading scan {number} of {len(self.scans)}")
            try:
                examples = reader.read(scan)
                if scan.correction is not None:
                    masks[scan.name], warnings = reader.correct(scan, examples)
                    for warning in warnings:
                        self.training.say(warning)
                plain[scan.name] = examples
            except HeatmaskError as error:
                if scan.correction is not None:
                    raise
                reasons[scan.name] = str(error)
        if reasons:
            self.training.say(f"{len(reasons)} scans were left out:{list_reasons(reasons)}")
        return plain, masks

    def _start(self, plain: Mapping[str, Examples], epochs: int) -> GPNetwork:
        """Return the network that all others go on from; it has seen no correction."""
        network: GPNetwork = run_bundle(self._open(), "network_def")
        weights = self.source / "models/model.pt"
        if self.settings.way == "joint":
            return load_weights(network, weights).to(self.device)
        examples = join_examples(list(plain.values()))
        network = start_segmentation(network, weights, examples, self.settings.seed)
        self._stage("Learning the pseudo-masks")
        return self._fit(network.to(self.device), examples, epochs)

    def _hold_out(
        self, start: GPNetwork, plain: Mapping[str, Examples], masks: Mapping[str, Examples]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return each patient's Dice by a network that has not seen it; the networks' weights."""
        dice: dict[str, float] = {}
        states = []
        count = 1 + max(self.folds.values())
        for fold in range(count):
            self._stage(f"Learning without group {fold + 1} of {count}")
            held = {patient for patient, number in self.folds.items() if number == fold}
            network = self._fit(start, self._mix(plain, masks, held), self.settings.max_epochs)
            states.append(network.state_dict())
            pipeline = self._make_pipeline(network)
            dice |= score_patients(pipeline, [s for s in self.corrected if s.patient in held])
            self.training.status.held_out_dice = mean(dice) if dice else None
        return dice, states

    def _mix(
        self, plain: Mapping[str, Examples], masks: Mapping[str, Examples], held: set[str]
    ) -> Examples:
        """Return all examples, with the corrections of all patients but those held out."""
        chosen = [
            masks[scan.name]
            if scan.correction is not None and scan.patient not in held
            else plain[scan.name]
            for scan in self.scans
            if scan.name in plain
        ]
        return join_examples(chosen)

    def _fit(self, network: GPNetwork, examples: Examples, epochs: int) -> GPNetwork:
        """Train a copy of a network; goes on with what an earlier training left of the same."""
        pseudo_masks = self.settings.way == "segmentation"
        kept = {k: v for k, v in asdict(self.settings).items() if k not in _ONCE}
        digest = hashlib.sha256(repr([sorted(kept.items()), epochs, pseudo_masks]).encode())
        parts = [
            *network.state_dict().values(),
            *(getattr(examples, f.name) for f in fields(Examples)),
        ]
        for tensor in parts:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        folder = self.runs / digest.hexdigest()[:16]
        self._used.add(folder)
        return fit(
            copy.deepcopy(network), examples, self.settings, epochs,
            pseudo_masks=pseudo_masks, folder=folder, watch=self.training.tell,
        )  # fmt: skip

    def _make_pipeline(self, network: GPNetwork) -> Pipeline:
        """Return the pipeline of the new bundle with a network."""
        parser = self._open()
        parser["network"] = network
        return run_bundle(parser, "evaluator")

    def _open(self) -> "ConfigParser":
        """Return the config of the new bundle."""
        parser = read_bundle(self.source)
        root = parser["bundle_root"]
        parser.set(make_config(self.config, self.settings))
        parser.update({"bundle_root": root, "dataset": [], "device": self.device})
        return parser

    def _publish(self, weights: LearnedWeights, record: LearnedRecord) -> Path:
        self.versions.remove_drafts()
        number = self.versions.next_number(self.name)

        def write(folder: Path) -> None:
            write_learned_bundle(folder, self.source, weights, record, number)

        return self.versions.publish(self.name, write)

    def _stage(self, text: str) -> None:
        self.training.status.stage = text
        self.training.write()

    def _remove_runs(self) -> None:
        """Delete the states of earlier trainings, with which nothing would go on."""
        for folder in self.runs.iterdir() if self.runs.is_dir() else ():
            if folder not in self._used:
                shutil.rmtree(folder, ignore_errors=True)
