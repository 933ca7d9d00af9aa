"""Train the U-Net of a `heatmask.networks.relevance_net.RelevanceNet`, its classifier held fixed.

Rajapaksa and Khalvati, "Relevance maps: A weakly supervised segmentation method for 3D brain
tumours in MRIs", Frontiers in Radiology 2:1061402, 2022. Supervoxels are taken away one by one, and
what the classifier loses is the U-Net's first target; the second is to take away, in one go, what
the decision rests on and no more. No mask is read.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from heatmask.attribution.batches import explain_present_channels
from heatmask.attribution.explainer import Explainer
from heatmask.attribution.frozen import copy_frozen
from heatmask.networks.relevance_net import RelevanceNet
from heatmask.options import check_options, option, take_part
from heatmask.parts import Options
from heatmask.training.blocks import BlockDataset
from heatmask.training.checkpoints import load_best, save_whole
from heatmask.training.trainer import Objective, ResumableTrainer

TISSUE = 1.0
"""What takes the place of a voxel: the level that preprocessing gives to plain tissue."""


class RelevanceDataset(Dataset[dict[str, Tensor]]):
    """Blocks with the share of the decision that each supervoxel carries.

    Parameters
    ----------
    blocks
        Labelled blocks.
    classifier
        Trained: images (B, C, *spatial) to one logit (B, 1).
    segments
        Supervoxels to aim at in a block.

    Notes
    -----
    A supervoxel's score is the drop of the logit without it over the largest drop in its block,
    and at least 0. Blocks without the finding have none. Scores are held as float16.
    """

    def __init__(self, blocks: BlockDataset, classifier: nn.Module, segments: int = 128) -> None:
        self.blocks = blocks
        explainer = Explainer("feature_ablation", segments=segments, baseline=TISSUE)
        classifier.eval()
        self.scores = [
            self._score(blocks[index], classifier, explainer)
            for index in track(range(len(blocks)), "Taking supervoxels away")
        ]

    @staticmethod
    def _score(item: dict[str, Tensor], classifier: nn.Module, explainer: Explainer) -> Tensor:
        image = item["image"][None]
        if item["label"] == 0 or not image.any():
            return torch.zeros_like(image[0, :1], dtype=torch.float16)
        drops = explain_present_channels(explainer, classifier, image).attribution[0].clamp_min(0)
        return (drops / drops.max().clamp_min(1e-6)).half()

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (C, *spatial), ``label`` (1 + C, *spatial): scores and image."""
        image = self.blocks[index]["image"]
        return {"image": image, "label": torch.cat([self.scores[index].float(), image])}


class PerturbationLoss(nn.Module):
    """What is left of the decision without the voxels that the map points to, and the map's cost.

    Of a map m = sigmoid(relevance), and the image with every voxel mixed with plain tissue by m:

    ``share * softplus(logit of the mixed image) + agreement * BCE(m, scores) + area * mean(m)``,

    the area within the head, and `share` the probability of the finding in the whole image: where
    there is nothing to lose only the area counts.

    Parameters
    ----------
    classifier
        As of `RelevanceDataset`; a frozen copy is kept.
    agreement
        Weight of the supervoxels' scores.
    area
        Weight of the map's mean within the head.
    """

    def __init__(self, classifier: nn.Module, agreement: float = 1.0, area: float = 1.0) -> None:
        super().__init__()
        self.classifier = copy_frozen(classifier)
        self.agreement, self.area = agreement, area

    def forward(self, relevance: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of maps (B, 1, *spatial) against `RelevanceDataset`'s labels."""
        scores, image = target[:, :1], target[:, 1:]
        part = relevance.float().sigmoid()
        mixed = image + part * (TISSUE - image) * (image > 0)  # the background stays empty
        with torch.no_grad():
            share = self.classifier(image).float().sigmoid()
        left = F.softplus(self.classifier(mixed).float())
        head = (image > 0).any(dim=1, keepdim=True)
        mean = (part * head).flatten(1).sum(1) / head.flatten(1).sum(1).clamp_min(1)
        differs = F.binary_cross_entropy_with_logits(relevance.float(), scores)
        return (share * left).mean() + self.agreement * differs + self.area * mean.mean()


@dataclass(frozen=True)
class LocaliserSettings:
    """How the U-Net learns."""

    segments: int = option(96, "Supervoxels to aim at in a block.", low=1)
    localiser_epochs: int = option(8, "Passes over the blocks.", low=1)
    localiser_learning_rate: float = option(0.002, "As `learning_rate`, for the U-Net.", low=0.0)
    agreement: float = option(1.0, "Weight of the supervoxels' scores.", low=0.0)
    area: float = option(1.0, "Weight of the map's mean within the head.", low=0.0)

    def __post_init__(self) -> None:
        check_options(self)


def train_localiser(
    options: Options,
    trainer: ResumableTrainer,
    network: RelevanceNet,
    data: BlockDataset,
    validation: BlockDataset,
) -> Path:
    """Train the U-Net of a network whose classifier `trainer` has trained.

    Returns
    -------
    Path
        The checkpoint of both.
    """
    own, folder = take_part(LocaliserSettings, options), trainer.folder / "localiser"
    load_best(trainer.folder / "best.pt", network)
    scored, validation_scored = (
        RelevanceDataset(blocks, network.classifier, own.segments) for blocks in (data, validation)
    )
    objective = Objective(PerturbationLoss(network.classifier, own.agreement, own.area))
    settings = replace(
        trainer.settings,
        max_epochs=own.localiser_epochs,
        learning_rate=own.localiser_learning_rate,
        averaging=1.0,
    )
    record = {"classifier": trainer.record, **asdict(own)}
    ResumableTrainer(
        network.localiser,
        scored,
        validation_scored,
        objective,
        settings,
        folder,
        record,
        trainer.inferer,
    ).run()
    best = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)
    network.localiser.load_state_dict(best["model"])
    path = trainer.folder / "relevance.pt"
    save_whole({**best, "model": network.state_dict()}, path)
    return path
