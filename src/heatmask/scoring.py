"""Score a bundle on patients with reference masks, beside the floors without learning."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from rich.progress import track

from heatmask.data.labels import LabelledVolume
from heatmask.data.paths import is_picture
from heatmask.data.readers.reference import read_reference
from heatmask.errors import Failures, InputError, list_reasons, raise_failures
from heatmask.evaluation.classification import compute_relative_positions
from heatmask.evaluation.protocol import Case, Evaluation, Slices, evaluate_cases
from heatmask.evaluation.report import write_evaluation
from heatmask.evaluation.segmentation import check_same_shape, match_voxels
from heatmask.evaluation.table import Method, ScoreTable
from heatmask.geometry import find_array_axis, order_as_stored
from heatmask.networks.weights import load_weights
from heatmask.pipeline import Pipeline, Result

Item = TypeVar("Item")
Variants = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]


@dataclass
class Scorer:
    """Run a segmenter, and further weights of its network, over patients and score them all.

    Attributes
    ----------
    segmenter
        The bundle's; its mask is the first method.
    name
        What the table calls it.
    volumes
        The patients to score, with their slice labels.
    reference_pattern
        Glob of the reference mask in the folder of a volume; exactly one must match.
    training_volumes
        For the table that knows a slice's position alone; their files are not opened.
    variants
        Name to a transform that makes ``"mask"`` anew from a result: further methods.
    further_weights
        More checkpoints of the same network (other seeds). With them the table gains a row
        for each and one for the mean over all, patient by patient.
    slice_axis
        As given to the segmenter's inferer.
    class_names
        Of a network with several classes: a note says how many volumes were predicted as which.
    notes
        Sentences for under the table.
    """

    segmenter: Pipeline
    name: str
    volumes: Sequence[LabelledVolume]
    reference_pattern: str
    training_volumes: Sequence[LabelledVolume] = ()
    variants: Variants = field(default_factory=dict)
    further_weights: Sequence[str] = ()
    slice_axis: int = 2
    class_names: Sequence[str] = ()
    notes: Sequence[str] = ()

    def run(self, output_dir: str | Path) -> Evaluation:
        """Score, write table, figure and per-patient CSV to `output_dir`, return the scores.

        Raises
        ------
        HeatmaskError
            After all is written, if a patient could not be scored, with the reason of each.
        """
        evaluation = self.score(output_dir)
        raise_failures(evaluation.left_out, evaluation.n_asked, "patients")
        return evaluation

    def score(self, output_dir: str | Path) -> Evaluation:
        """Do what `run` does, and leave those that could not be scored to the caller.

        Raises
        ------
        InputError
            None of the patients can be scored; nothing is written.
        """
        segmenters = list_networks(self.segmenter, self.name, self.further_weights)
        slices = {name: Slices() for name in segmenters}
        predicted: Counter[str] = Counter()
        failures = Failures()
        cases = self._make_cases(segmenters, slices, predicted, failures)
        evaluation = evaluate_cases(
            check_some(cases, failures),
            list_methods(segmenters, self.variants),
            _list_positions(self.training_volumes) if self.training_volumes else None,
            self.notes,
        )
        evaluation.left_out = failures.reasons
        if predicted:
            counts = ", ".join(f"{name} {count}" for name, count in predicted.most_common())
            evaluation.notes += (f"{self.name}: volumes by the class predicted: {counts}.",)
        if len(segmenters) > 1:
            evaluation.notes += tuple(_describe_networks(slices))
            add_means(evaluation, self.name, segmenters, ("", *self.variants))
        write_evaluation(evaluation, Path(output_dir))
        return evaluation

    def _make_cases(
        self,
        segmenters: Mapping[str, Pipeline],
        slices: Mapping[str, Slices],
        predicted: Counter[str],
        failures: Failures,
    ) -> Iterator[Case]:
        for volume in track(self.volumes, "Scoring"):
            cases: list[Case] = []
            with failures.catch(volume.patient):
                cases = self._run_networks(volume, segmenters, predicted)
            for case, record in zip(cases, slices.values(), strict=False):
                record.add(case)
            yield from cases[:1]  # It holds the masks of all

    def _run_networks(
        self, volume: LabelledVolume, segmenters: Mapping[str, Pipeline], predicted: Counter[str]
    ) -> list[Case]:
        """Return the case of a volume for each network."""
        reference = self._find_reference(volume)
        masks: dict[str, np.ndarray] = {}
        cases, names = [], []
        for name, segmenter in segmenters.items():
            result = segmenter(volume.image, volume.patient)
            masks |= make_masks(name, result, self.variants)
            cases.append(self._make_case(volume, result, masks, reference))
            names.append(self._name_predicted(result))
        predicted.update(names[:1] if self.class_names else ())
        return cases

    def _name_predicted(self, result: Result) -> str:
        shown = np.asarray(result.predicted).any(axis=0)
        names = [name for name, one in zip(self.class_names, shown, strict=False) if one]
        return " and ".join(names) or "none"

    def _make_case(
        self,
        volume: LabelledVolume,
        result: Result,
        masks: Mapping[str, np.ndarray],
        reference: Path,
    ) -> Case:
        affine = np.asarray(result.scan.affine)
        # Of any class: they exclude one another.
        probabilities = np.asarray(result.slice_probabilities).sum(axis=1).clip(max=1)
        return Case(
            patient=volume.patient,
            image=np.asarray(result.scan[0]),
            masks=masks,
            reference=load_reference(reference, result.scan),
            affine=affine,
            slice_probabilities=order_as_stored(probabilities, affine, self.slice_axis),
            slice_labels=volume.slice_labels,
            slice_axis=find_array_axis(affine, self.slice_axis),
        )

    def _find_reference(self, volume: LabelledVolume) -> Path:
        found = find_references(volume, self.reference_pattern)
        if len(found) != 1:
            raise InputError(
                f"A patient must have one reference mask {self.reference_pattern!r} beside the "
                f"scan; there are {len(found)} in {volume.path.parent}."
            )
        return found[0]


def find_references(volume: LabelledVolume, pattern: str) -> list[Path]:
    """Return what may be the reference mask of a volume: files beside it that fit a pattern."""
    return sorted(volume.path.parent.glob(pattern))


def load_reference(path: Path, scan: MetaTensor) -> NDArray[np.bool_]:
    """Return a reference mask (X, Y, Z) on the voxels of its scan (1, X, Y, Z).

    Raises
    ------
    InputError
        It is no mask (see `read_reference`), or not one of this scan.
    """
    mask, affine = read_reference(path)
    if not is_picture(path):
        return match_voxels(mask, affine, scan.shape[1:], np.asarray(scan.affine))
    check_same_shape(np.asarray(scan[0]), mask)
    return mask


def check_some(cases: Iterable[Item], failures: Failures) -> Iterator[Item]:
    """Pass cases on, and refuse that there are none because all of them failed.

    Raises
    ------
    InputError
        After the last case.
    """
    empty = True
    for case in cases:
        empty = False
        yield case
    if empty and failures.reasons:
        raise InputError(f"Nothing could be scored:{list_reasons(failures.reasons)}")


def list_networks(
    segmenter: Pipeline, name: str, further_weights: Sequence[str]
) -> dict[str, Pipeline]:
    """Return the segmenter and its twins with other weights, by name."""
    segmenters = {name: segmenter}
    for number, path in enumerate(further_weights, start=2):
        twin = copy.copy(segmenter)
        twin.network = load_weights(copy.deepcopy(segmenter.network).cpu(), path)
        twin.network.to(twin.device)
        segmenters[f"{name}, network {number}"] = twin
    return segmenters


def list_methods(names: Iterable[str], variants: Iterable[str]) -> list[Method]:
    """Return each network's method, then those of each variant."""
    networks = list(names)
    return [Method(join_names(name, variant)) for variant in ("", *variants) for name in networks]


def make_masks(name: str, result: Result, variants: Variants) -> dict[str, np.ndarray]:
    """Return the mask of a result and those that the variants make of it, by method's name."""
    masks = {name: np.asarray(result.mask[0])}
    for variant, transform in variants.items():
        masks[join_names(name, variant)] = np.asarray(transform(vars(result))["mask"][0])
    return masks


def add_means(
    table: ScoreTable, name: str, networks: Collection[str], variants: Sequence[str]
) -> None:
    """Put the means over the networks first of all, one for each variant, in their order."""
    for variant in reversed(variants):
        names = [join_names(network, variant) for network in networks]
        mean = join_names(f"{name}, mean of {len(names)} networks", variant)
        table.add_mean(Method(mean), names)


def join_names(name: str, variant: str) -> str:
    """Return the name of a network's variant; the empty one is the network's own method."""
    return f"{name}, {variant}" if variant else name


def _list_positions(volumes: Sequence[LabelledVolume]) -> tuple[np.ndarray, np.ndarray]:
    positions = [compute_relative_positions(len(v.slice_labels)) for v in volumes]
    return np.concatenate(positions), np.concatenate([v.slice_labels for v in volumes])


def _describe_networks(slices: Mapping[str, Slices]) -> Iterator[str]:
    """Say how well each network classifies slices."""
    for name, record in slices.items():
        single = Evaluation([], {}, [], record)
        yield (
            f"{name}: slice AUROC {single.slice_scores['auroc']:.3f}, "
            f"within position deciles {single.deciles.mean:.3f}."
        )
