"""Heads on frozen features, trained on image-level labels: the teachers of self-training.

With the encoder left as it is, what tells the labels apart has to be found in features of
photographs, and the map points into the lesion more often than that of an encoder which was
fine-tuned (docs/explanation/mask-quality.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.utils import convert_tensor
from monai.inferers import SimpleInferer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.networks.pretrained import CHANNELS
from heatmask.networks.self_trained import pool_hottest
from heatmask.training.features import STRIDES, FeatureDataset, View
from heatmask.training.metrics import SliceScore
from heatmask.training.position import (
    PositionOffsetLoss,
    PositionPrior,
    balance_classes,
    make_prior,
)
from heatmask.training.settings import TrainSettings
from heatmask.training.trainer import Objective, ResumableTrainer, get_prediction

Maps = NDArray[np.float32]

NOWHERE = -12.0
"""Logit of what lies beyond the picture."""
_REST = 0.3
"""Weight of what a head is taught where it is not to look."""
_BATCH = 64


class Head(nn.Module):
    """1x1 convolutions of some stages, summed at stride 8, ReLU and one map for each class.

    Parameters
    ----------
    num_classes
        Maps K.
    strides
        Of the stages, among `heatmask.training.features.STRIDES`.
    width
        Channels before the last convolution.
    """

    def __init__(self, num_classes: int, strides: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.stages = [STRIDES.index(stride) for stride in strides]
        channels = [CHANNELS[1 + stage] for stage in self.stages]
        self.project = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.drop, self.norm = nn.Dropout2d(0.2), nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, num_classes, 1)
        for parameter, value in zip(self.out.parameters(), (0.0, -2.0), strict=True):
            nn.init.constant_(parameter, value)  # a flat map that says no

    def forward(self, view: View) -> Tensor:
        """Return the maps (B, K, h, w), `NOWHERE` where it is not inside."""
        size = view.inside.shape[2:]
        parts = [
            F.interpolate(project(self.drop(view.features[stage])), size=size, mode="bilinear")
            for project, stage in zip(self.project, self.stages, strict=True)
        ]
        maps = self.out(F.relu(self.norm(torch.stack(parts).sum(0))))
        return torch.where(view.inside, maps, NOWHERE)


class HottestPooling(nn.Module):
    """`heatmask.networks.self_trained.pool_hottest` as a layer."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits (B, K) of maps (B, K, h, w)."""
        return pool_hottest(maps)


class SearchingHead(nn.Module):
    """A head that tells the classes apart by the places it searches alone.

    Parameters
    ----------
    head
        It makes the maps.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, view: View) -> Any:
        """Return the logits (B, K); in training beside them the maps of all other places (n, K)."""
        maps = self.head(view)
        logits = pool_hottest(torch.where(view.searched, maps, NOWHERE))
        if not self.training:
            return logits
        return logits, maps.movedim(1, 3)[(view.inside & ~view.searched)[:, 0]]


class BinaryLoss(nn.Module):
    """Binary cross-entropy of each class, targets as of `PositionOffsetLoss`.

    The offsets are logarithms of shares, as there are no images without a finding.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits (B, K)."""
        labels = F.one_hot(target[:, 0].long(), logits.shape[1] + 1)[:, 1:].float()
        if target.shape[1] > 1:
            logits = logits + target[:, 1:].exp().logit()  # the odds of each class against the rest
        return F.binary_cross_entropy_with_logits(logits, labels)


class SearchLoss(BinaryLoss):
    """The same of the places searched, and that all others show no class."""

    def forward(self, output: Any, target: Tensor) -> Tensor:
        """Return the mean loss of what `SearchingHead` gives in training."""
        logits, rest = output
        return super().forward(logits, target) + _REST * F.softplus(rest).mean()


def train_heads(
    data: FeatureDataset,
    validation: FeatureDataset,
    strides: Sequence[Sequence[int]],
    classes: int,
    settings: TrainSettings,
    folder: Path,
    record: Mapping[str, Any],
    device: torch.device,
) -> tuple[list[Head], list[float]]:
    """Train heads on stages of these strides; return them with their validation losses.

    Where the data say which places are to be searched, the heads look at these alone.
    """
    objective, heads, losses = make_objective(data, settings, classes), [], []
    for number, own_strides in enumerate(strides):
        own = replace(settings, seed=100 * settings.seed + number)
        torch.manual_seed(own.seed)
        head, place = Head(classes, own_strides), folder / f"head{number}"
        whole = nn.Sequential(head, HottestPooling())
        classifier = (SearchingHead(head) if data.searches else whole).to(device)
        ResumableTrainer(
            classifier, data, validation, objective, own, place, record, SimpleInferer()
        ).run()
        best = torch.load(place / "best.pt", map_location=device, weights_only=True)
        classifier.load_state_dict(best["model"])
        heads.append(head)
        losses.append(float(best["metrics"]["val_loss"]))
    return heads, losses


def choose_heads(losses: Sequence[float], tolerance: float) -> list[int]:
    """Return the heads whose validation loss is at most so much above the median.

    A head may fail altogether and point elsewhere; its classification loss tells.
    """
    most = float(np.median(losses)) + tolerance
    return [number for number, loss in enumerate(losses) if loss <= most]


def make_objective(data: FeatureDataset, settings: TrainSettings, classes: int) -> Objective:
    """Return what a head is to learn: the labels, with the position's odds given to it."""
    negatives, prior = settings.negatives, None
    if settings.position_offset:
        prior = make_prior(data.positions, data.labels, classes, negatives)
    prepare = PrepareFeatures(prior)
    scores = {
        f"val_{name}": SliceScore(name, negatives, get_prediction) for name in ("auroc", "macro_f1")
    }
    if data.searches:
        return Objective(SearchLoss(), prepare, prepare, scores, BinaryLoss())
    weights = balance_classes(data.labels, classes, negatives)
    return Objective(PositionOffsetLoss(weights, negatives), prepare, prepare, scores)


class PrepareFeatures:
    """MONAI's `prepare_batch` for features: views and targets (B, 1 + K) or (B, 1).

    Parameters
    ----------
    prior
        As of `heatmask.training.engine.PrepareSlices`.
    """

    def __init__(self, prior: PositionPrior | None) -> None:
        self.prior = prior

    def __call__(
        self, batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[View, Tensor]:
        """Return views and targets, on the device."""
        targets = batch["label"][:, None]
        if self.prior is not None:
            targets = torch.cat([targets, self.prior(batch["position"])], dim=1)
        return convert_tensor(batch["image"], device, non_blocking), targets.to(device)


def join_maps(heads: Sequence[Head], data: FeatureDataset, merge: bool = False) -> Maps:
    """Return the mean of the heads' maps (N, K, h, w), each over its standard deviation.

    With `merge` the classes become one (N, 1, h, w): the logarithm of the sum of their odds.
    """
    joined: Any = 0.0
    for head in heads:
        maps = run_head(head, data)
        maps = np.logaddexp.reduce(maps, axis=1, keepdims=True) if merge else maps
        joined = joined + maps / (maps.std() * len(heads))
    return joined


@torch.no_grad()
def run_head(head: Head, data: FeatureDataset) -> Maps:
    """Return a head's maps (N, K, h, w) of all images, the mean of both views'."""
    head.eval()
    device = next(head.parameters()).device
    parts = []
    for start in range(0, len(data), _BATCH):
        views = (data.take(mirrored, slice(start, start + _BATCH)) for mirrored in (0, 1))
        seen, mirror = (head(convert_tensor(view, device)).float().cpu() for view in views)
        parts.append((seen + mirror.flip(3)) / 2)
    return torch.cat(parts).numpy()
