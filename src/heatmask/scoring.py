"""Score a bundle on patients with reference masks, beside the floors without learning."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.progress import track

from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError
from heatmask.evaluation.classification import compute_relative_positions
from heatmask.evaluation.protocol import Case, Evaluation, Slices, evaluate_cases
from heatmask.evaluation.report import write_evaluation
from heatmask.evaluation.table import Method, ScoreTable
from heatmask.geometry import find_array_axis, order_as_stored
from heatmask.networks.weights import load_weights
from heatmask.segmenter import Segmenter

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
        Of a network with several classes: a note says how many volumes were called which.
    notes
        Sentences for under the table.
    """

    segmenter: Segmenter
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
        """Score, write table, figure and per-patient CSV to `output_dir`, return the scores."""
        segmenters = list_networks(self.segmenter, self.name, self.further_weights)
        slices = {name: Slices() for name in segmenters}
        called: Counter[str] = Counter()
        evaluation = evaluate_cases(
            self._make_cases(segmenters, slices, called),
            list_methods(segmenters, self.variants),
            _list_positions(self.training_volumes) if self.training_volumes else None,
            self.notes,
        )
        if called:
            counts = ", ".join(f"{name} {count}" for name, count in called.most_common())
            evaluation.notes += (f"{self.name}: volumes by the class predicted: {counts}.",)
        if len(segmenters) > 1:
            evaluation.notes += tuple(_describe_networks(slices))
            add_means(evaluation, self.name, segmenters, ("", *self.variants))
        write_evaluation(evaluation, Path(output_dir))
        return evaluation

    def _make_cases(
        self,
        segmenters: Mapping[str, Segmenter],
        slices: Mapping[str, Slices],
        called: Counter[str],
    ) -> Iterator[Case]:
        for volume in track(self.volumes, "Scoring"):
            reference = self._load_reference(volume)
            masks: dict[str, np.ndarray] = {}
            cases = []
            for name, segmenter in segmenters.items():
                result = segmenter.segment({"case": volume.patient, "image": volume.image})
                masks |= make_masks(name, result, self.variants)
                if name == self.name and self.class_names:
                    shown = np.asarray(result["predicted"]).any(axis=0)
                    names = np.asarray(self.class_names)[shown]
                    called.update([" and ".join(names) or "none"])
                cases.append(self._make_case(volume, result, masks, reference))
            for case, record in zip(cases, slices.values(), strict=True):
                record.add(case)
            yield cases[0]

    def _make_case(
        self,
        volume: LabelledVolume,
        result: Mapping[str, Any],
        masks: Mapping[str, np.ndarray],
        reference: Any,
    ) -> Case:
        affine = np.asarray(result["scan"].affine)
        # Of any class: they exclude one another.
        probabilities = np.asarray(result["slice_probabilities"]).sum(axis=1).clip(max=1)
        return Case(
            patient=volume.patient,
            image=np.asarray(result["scan"][0]),
            masks=masks,
            reference=np.asarray(reference.dataobj),
            affine=affine,
            reference_affine=reference.affine,
            slice_probabilities=order_as_stored(probabilities, affine, self.slice_axis),
            slice_labels=volume.slice_labels,
            slice_axis=find_array_axis(affine, self.slice_axis),
        )

    def _load_reference(self, volume: LabelledVolume) -> Any:
        found = sorted(volume.path.parent.glob(self.reference_pattern))
        if len(found) != 1:
            raise InputError(
                f"Every patient must have one reference mask {self.reference_pattern!r} beside the "
                f"scan; {volume.patient} has {len(found)} in {volume.path.parent}."
            )
        return nib.load(found[0])


def list_networks(
    segmenter: Segmenter, name: str, further_weights: Sequence[str]
) -> dict[str, Segmenter]:
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


def make_masks(name: str, result: Mapping[str, Any], variants: Variants) -> dict[str, np.ndarray]:
    """Return the mask of a result and those that the variants make of it, by method's name."""
    masks = {name: np.asarray(result["mask"][0])}
    for variant, transform in variants.items():
        masks[join_names(name, variant)] = np.asarray(transform(result)["mask"][0])
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
