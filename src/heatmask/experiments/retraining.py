"""The second paper's experiment on a bundle: train anew on filtered images, several seeds each."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.attribution.batches import explain_present_channels
from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume
from heatmask.errors import OptionError
from heatmask.experiments.cases import Case, Cases, Volumes
from heatmask.experiments.entries import read_config
from heatmask.experiments.filtered import (
    Condition,
    Slices,
    classify_filtered,
    filter_images,
    list_conditions,
    list_reference_conditions,
    pool_slices,
    train_filtered,
)
from heatmask.experiments.heatmaps import Explanations
from heatmask.experiments.store import Kept, digest, digest_code, digest_file
from heatmask.training.slices import SliceDataset

SIDE, EPOCHS = 64, 6
"""Pixels of a side and epochs: small, for every condition is trained several times."""
QUANTILES = (0.05, 0.15, 0.4)
METHOD = "grad_cam"
WHOLE = Condition("whole")
TRAIN = "train"
"""The split that has labels and no masks."""


@dataclass(frozen=True)
class Trial:
    """One training: a condition, a seed, and the split that it learns from."""

    condition: Condition
    seed: int
    learns: str = TRAIN


def list_trials(
    seeds: Sequence[int], quantiles: Sequence[float] = QUANTILES, given: str = "val"
) -> list[Trial]:
    """Return every training; those with reference masks learn from the split `given`.

    Raises
    ------
    OptionError
        A quantile is not a share, or comes twice.
    """
    if not all(0 < quantile < 1 for quantile in quantiles) or len({*quantiles}) < len(quantiles):
        raise OptionError(
            "Quantiles must be different shares of the head, between 0 and 1, got "
            f"{', '.join(f'{quantile:g}' for quantile in quantiles)}."
        )
    conditions = list_conditions(tuple(quantiles))
    known = [*list_reference_conditions(), Condition("hot", min(quantiles))]
    return [
        *(Trial(condition, seed) for seed in seeds for condition in conditions),
        *(Trial(condition, seed, given) for seed in seeds for condition in known),
    ]


class Retraining(Kept[Trial]):
    """Trains a bundle's network on filtered images and asks it about images filtered alike.

    Parameters
    ----------
    explanations
        Of the bundle, whose trained network and Grad-CAM make the masks of every slice.
    volumes
        By split, those learnt from and those asked about.
    given, cases
        The validation and the test cases, with reference masks.
    """

    def __init__(
        self,
        explanations: Explanations,
        volumes: Mapping[str, Volumes],
        given: Cases,
        cases: Cases,
    ) -> None:
        self.explanations, self.volumes, self.store = explanations, volumes, explanations.store
        self.masked = {part.split: part for part in (given, cases)}
        self.test, self.num_classes = cases, max(1, len(cases.classes))
        self.image_size = tuple(read_config(explanations.entry.bundle, "train")["image_size"])
        masks = {
            split: [digest_file(file) for case in part.cases for file in case.files]
            for split, part in self.masked.items()
        }
        every = {split: [_digest_volume(v) for v in part] for split, part in volumes.items()}
        own = (SIDE, EPOCHS, METHOD, self.image_size, digest_code(__name__))
        self.digest = digest([explanations.digest, every, masks, own])
        self._slices: dict[str, Slices] = {}

    def find_key(self, item: Trial) -> str:
        """Return what a trial's result is kept under."""
        return digest([self.digest, asdict(item)])

    def _compute(self, item: Trial) -> dict[str, Any]:
        """Return the ``logits`` (N, K) of the test slices, with their labels and patients."""
        learnt, test = self._load(item.learns), self._load(self.test.split)
        network = copy.deepcopy(self._network)
        images = filter_images(learnt, item.condition, seed=0)
        network = train_filtered(
            network, images, learnt, EPOCHS, item.seed, self.num_classes, self.num_classes == 1
        )
        logits = classify_filtered(network, filter_images(test, item.condition, seed=1))
        return {
            "logits": logits.tolist(),
            "labels": test.labels.long().tolist(),
            "positions": test.positions.tolist(),
            "patients": [self._patients[int(number)] for number in test.patients],
        }

    @property
    def _network(self) -> nn.Module:
        return self.explanations.pipeline.network

    @cached_property
    def _patients(self) -> list[str]:
        return list(dict.fromkeys(self.test.clusters))

    def _load(self, split: str) -> Slices:
        """Return the slices of a split; where masks may be used, of what has one."""
        if split not in self._slices:
            masked = self.masked.get(split)
            masks = masked.cases if masked else None
            self._slices[split] = self._make_slices(self.volumes[split], masks)
        return self._slices[split]

    def _make_slices(self, volumes: Volumes, masks: Sequence[Case] | None) -> Slices:
        size, device = self.image_size, self.explanations.pipeline.device
        data = SliceDataset(volumes, self.explanations.pipeline.preprocessing, size)
        images = data.images[:]
        explanation = [
            explain_present_channels(Explainer(METHOD), self._network, part.float().to(device))
            for part in images.split(64)
        ]
        logits = torch.cat([part.logits.cpu() for part in explanation])
        maps = torch.cat([part.attribution.cpu() for part in explanation])
        shown = maps[torch.arange(len(maps)), logits.argmax(dim=1)]
        reference = None if masks is None else self._load_masks(masks, size)
        patients = [volume.patient for volume in volumes]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(patients))}
        owners = torch.tensor([numbers[name] for name in patients])
        return Slices(
            images=pool_slices(images, SIDE),
            labels=data.labels.long(),
            positions=data.positions,
            patients=owners[data.places[:, 0]],
            heatmap=pool_slices(shown[:, None], SIDE)[:, 0],
            reference=None if reference is None else pool_slices(reference, SIDE)[:, 0] > 0.5,
        )

    def _load_masks(self, cases: Sequence[Case], size: tuple[int, ...]) -> Tensor:
        """Return the reference masks (N, 1, H, W) of all slices, as `SliceDataset` orders them."""
        fit, move = ResizeWithPadOrCrop((*size, -1)), ResampleToMatch(mode="nearest")
        stacks = []
        for case in cases:
            data = self.explanations.prepare(case)
            mask = torch.from_numpy(case.load_reference(data["scan"])[None].astype(np.float32))
            moved = move(convert_to_dst_type(mask, data["scan"])[0], data["image"])
            stacks.append(torch.as_tensor(fit(moved)).movedim(-1, 0))
        return torch.cat(stacks)


def _digest_volume(volume: LabelledVolume | LabelledImage) -> str:
    paths = [volume.image] if isinstance(volume.image, str) else volume.image.values()
    labels = volume.labels.items() if isinstance(volume, LabelledImage) else volume.slice_labels
    return digest([volume.patient, [*labels], [digest_file(Path(path)) for path in paths]])
