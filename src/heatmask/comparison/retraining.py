"""The second paper's experiment on a bundle: train anew on filtered images, several seeds each."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.attribution.channels import explain_present_channels
from heatmask.bundle import read_bundle, run_bundle
from heatmask.comparison.entries import CONFIGS, digest_entry
from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.store import Kept, digest, digest_code, digest_file
from heatmask.comparison.subjects import Subject, Subjects, list_subjects
from heatmask.errors import InputError
from heatmask.evaluation.bootstrap import Interval, bootstrap_clusters
from heatmask.evaluation.classification import auroc_within_position_deciles, slice_auroc
from heatmask.picture_scoring import PictureScorer
from heatmask.training.filtered import (
    Condition,
    Slices,
    classify_filtered,
    filter_images,
    list_conditions,
    list_reference_conditions,
    pool_slices,
    train_filtered,
)
from heatmask.training.slices import SliceDataset

SIDE, EPOCHS = 64, 6
"""Pixels of a side and epochs: small, for every condition is trained several times."""
QUANTILES = (0.05, 0.15, 0.4)
METHOD = "grad_cam"
_CODE = ("training/filtered.py", "training/position.py", "training/augment.py",
         "comparison/retraining.py")  # fmt: skip

Volumes = Sequence[Any]


@dataclass(frozen=True)
class Trial:
    """One training: a condition, a seed, and the split that it learns from."""

    condition: Condition
    seed: int
    learns: str = "train"

    @property
    def name(self) -> str:
        """The condition's name, with the split where that is not the usual one."""
        where = "" if self.learns == "train" else ", trained on the validation patients"
        return self.condition.name + where


def list_trials(seeds: Sequence[int], quantiles: Sequence[float] = QUANTILES) -> list[Trial]:
    """Return every training; those with reference masks learn from the validation patients."""
    conditions = list_conditions(tuple(quantiles))
    given = [*list_reference_conditions(), Condition("hot", sorted(quantiles)[0])]
    return [
        *(Trial(condition, seed) for seed in seeds for condition in conditions),
        *(Trial(condition, seed, "val") for seed in seeds for condition in given),
    ]


class Retraining(Kept[Trial]):
    """Trains a bundle's network on filtered images and asks it about images filtered alike.

    Parameters
    ----------
    explanations
        Of the bundle, whose trained network and Grad-CAM make the masks of every slice.
    knobs
        The data, as for `explanations`.
    given, subjects
        The validation and the test subjects, with reference masks.
    """

    def __init__(
        self,
        explanations: Explanations,
        knobs: Mapping[str, Any],
        given: Subjects,
        subjects: Subjects,
    ) -> None:
        self.explanations, self.knobs, self.store = explanations, knobs, explanations.store
        self.parts = {given.split: given, subjects.split: subjects}
        self.test, self.num_classes = subjects, max(1, len(subjects.classes))
        files = [
            digest_file(path)
            for part in self.parts.values()
            for subject in part.subjects
            for path in subject.files
        ]
        entry = digest_entry(explanations.entry, explanations.parser)
        own = (SIDE, EPOCHS, METHOD, digest_code(_CODE))
        self.digest = digest([files, entry, own, subjects.training_labels])
        self._slices: dict[str, Slices] = {}

    def find_key(self, trial: Trial) -> str:
        """Return what a trial's result is kept under."""
        return digest([self.digest, asdict(trial)])

    def _compute(self, trial: Trial) -> dict[str, Any]:
        """Return the ``logits`` (N, K) of the test slices, with their labels and patients."""
        learnt, test = self._load("train" if trial.learns == "train" else "val"), self._load("test")
        network = copy.deepcopy(self._network)
        images = filter_images(learnt, trial.condition, seed=0)
        network = train_filtered(
            network, images, learnt, EPOCHS, trial.seed, self.num_classes, self.num_classes == 1
        )
        logits = classify_filtered(network, filter_images(test, trial.condition, seed=1))
        return {
            "logits": logits.tolist(),
            "labels": test.labels.long().tolist(),
            "positions": test.positions.tolist(),
            "patients": [self._patients[int(number)] for number in test.patients],
        }

    @property
    def _network(self) -> nn.Module:
        return self.explanations.segmenter.network

    @cached_property
    def _patients(self) -> list[str]:
        return list(dict.fromkeys(self.test.clusters))

    def _load(self, role: str) -> Slices:
        """Return the slices of ``train``, or of the validation or test subjects."""
        if role not in self._slices:
            splits = list(self.parts)
            split = {"train": "train", "val": splits[0], "test": splits[1]}[role]
            knobs = {**self.knobs, "split": split}
            scorer = run_bundle(
                read_bundle(self.explanations.entry.bundle, CONFIGS, knobs), "scorer"
            )
            pictures = isinstance(scorer, PictureScorer)
            volumes: Volumes = scorer.table.select(split) if pictures else scorer.volumes
            masks = None
            if role != "train":
                found = list_subjects(scorer, split)
                if found.missing:
                    raise InputError(
                        f"Retraining needs a reference mask of each of {split}; missing: "
                        f"{', '.join(found.missing)}."
                    )
                masks = found.subjects
            self._slices[role] = self._make_slices(volumes, masks)
        return self._slices[role]

    def _make_slices(self, volumes: Volumes, masks: Sequence[Subject] | None) -> Slices:
        config = read_bundle(self.explanations.entry.bundle, ("train",)).get()
        size = tuple(config["image_size"])
        data = SliceDataset(volumes, self.explanations.segmenter.preprocessing, size)
        explanation = [
            explain_present_channels(Explainer(METHOD), self._network, part.float())
            for part in data.images.split(64)
        ]
        logits = torch.cat([part.logits for part in explanation])
        maps = torch.cat([part.attribution for part in explanation])
        told = maps[torch.arange(len(maps)), logits.argmax(dim=1)]
        reference = None if masks is None else self._load_masks(masks, size)
        patients = [volume.patient for volume in volumes]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(patients))}
        owners = torch.tensor([numbers[name] for name in patients])
        return Slices(
            images=pool_slices(data.images, SIDE),
            labels=data.labels.long(),
            positions=data.positions,
            patients=owners[data.places[:, 0]],
            heatmap=pool_slices(told[:, None], SIDE)[:, 0],
            reference=None if reference is None else pool_slices(reference, SIDE)[:, 0] > 0.5,
        )

    def _load_masks(self, subjects: Sequence[Subject], size: tuple[int, ...]) -> Tensor:
        """Return the reference masks (N, 1, H, W) of all slices, as `SliceDataset` orders them."""
        fit, move = ResizeWithPadOrCrop((*size, -1)), ResampleToMatch(mode="nearest")
        stacks = []
        for subject in subjects:
            data = self.explanations.prepare(subject)
            mask = torch.from_numpy(subject.load_reference()[None].astype(np.float32))
            moved = move(convert_to_dst_type(mask, data["scan"])[0], data["image"])
            stacks.append(torch.as_tensor(fit(moved)).movedim(-1, 0))
        return torch.cat(stacks)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a condition gave, over seeds.

    Attributes
    ----------
    name
        The trial's.
    score
        Mean over the seeds, with an interval over patients: AUROC, or macro F1 of several classes.
    seeds
        The score of each seed.
    within_deciles
        AUROC within tenths of the stack, mean over the seeds; NaN for several classes.
    """

    name: str
    score: Interval
    seeds: tuple[float, ...]
    within_deciles: float


def summarise_trials(results: Mapping[Trial, Mapping[str, Any]]) -> list[Outcome]:
    """Return one outcome for each condition, in the order of the trials."""
    outcomes = []
    for name in dict.fromkeys(trial.name for trial in results):
        runs = [result for trial, result in results.items() if trial.name == name]
        labels, patients = np.array(runs[0]["labels"]), runs[0]["patients"]
        positions = np.array(runs[0]["positions"])
        logits = [np.array(run["logits"]) for run in runs]
        several = logits[0].shape[1] > 1

        def measure(
            told: NDArray, chosen: NDArray, labels: NDArray = labels, several: bool = several
        ) -> float:
            if not several:
                return slice_auroc(labels[chosen], told[chosen, 0])
            said = told[chosen].argmax(axis=1) + 1
            return float(f1_score(labels[chosen], said, average="macro", zero_division=0))

        def measure_mean(
            chosen: NDArray, logits: list[NDArray] = logits, measure: Any = measure
        ) -> float:
            return float(np.mean([measure(told, chosen) for told in logits]))

        everyone = np.arange(labels.size)
        deciles = [
            auroc_within_position_deciles(labels, told[:, 0], positions).mean
            for told in logits
            if not several
        ]
        outcomes.append(
            Outcome(
                name,
                bootstrap_clusters(measure_mean, patients, n=300),
                tuple(measure(told, everyone) for told in logits),
                float(np.mean(deciles)) if deciles else float("nan"),
            )
        )
    return outcomes
