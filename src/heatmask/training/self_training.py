"""Train a `heatmask.networks.self_trained.SelfTrainedNet` from image-level labels, in stages.

1. Features of the encoder as ImageNet left it, once.
2. Heads on them, which classify; their mean map is the teacher. Where every image has a finding,
   they look at the rarest places alone (`heatmask.training.rarity`).
3. Pseudo-masks of the training images: the picture draws the border in the warm part of the map.
4. The network itself, on labels and pseudo-masks at once.

What was completed is found again when a run goes on. No mask is read.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from heatmask.device import resolve_device
from heatmask.networks.pretrained import PretrainedEncoder, load_imagenet_weights
from heatmask.networks.self_trained import SelfTrainedNet
from heatmask.options import check_options, option, take_part
from heatmask.parts import Options
from heatmask.training.calibrate import list_explainers
from heatmask.training.checkpoints import claim_folder, export_best, load_best, save_whole
from heatmask.training.curve import draw_curves
from heatmask.training.engine import draw_or_copy_weights
from heatmask.training.features import FeatureDataset, FeatureExtractor
from heatmask.training.heads import Head, Maps, choose_heads, join_maps, train_heads
from heatmask.training.metrics import classify_slices, score_logits
from heatmask.training.parts import describe_run, take_settings
from heatmask.training.pseudo_masks import (
    Masks,
    draw_pseudo_masks,
    enlarge,
    learn_polarity,
)
from heatmask.training.rarity import RarityMeter, mark_rarest, weigh_maps
from heatmask.training.settings import LabelSettings, TrainSettings
from heatmask.training.slices import SliceDataset
from heatmask.training.student import PseudoMaskDataset, train_student

logger = logging.getLogger(__name__)

HEADS = ((8, 16), (16, 32), (4, 8, 16, 32))
"""Strides of the stages that a head looks at: fine ones draw small masks, coarse ones large."""
RARE_HEAD = (8, 16, 32)
"""Likewise, of heads that search the rarest places."""
FORGOTTEN = 0.5**3
"""Heat above which the first teacher's places are out of the second's memory."""
WARM = 0.2
"""Heat of either teacher above which a place without a pseudo-mask may hold the finding yet."""
RARE_RULE = {"threshold_rule": "warm", "warm_level": 0.5, "snap": False}
"""How the network that they teach makes its masks."""
KNOWN_RULE = {"threshold_rule": "level_sets", "warm_level": 0.35, "snap": True}
"""Likewise, where there were images without a finding."""
SPARED = 0.995
"""Share of the validation slices without a finding that must not be let through."""


@dataclass(frozen=True)
class SelfTrainingSettings:
    """How the teacher learns, on frozen features; the network itself as `TrainSettings` say."""

    pretrained: bool = option(True, "Whether the encoder has learnt on ImageNet.")
    head_seeds: int = option(2, "Heads for each of `HEADS`; the maps of all are averaged.", low=1)
    head_steps: int = option(350, "Steps of a head.", low=1)
    head_batch_size: int = option(32, "Images a step of a head.", low=1)
    head_learning_rate: float = option(0.003, "As `learning_rate`, of a head.", low=0.0)
    head_weight_decay: float = option(0.05, "As `weight_decay`, of a head.", low=0.0)
    head_tolerance: float = option(
        0.15, "How far a head's validation loss may lie above the median.", low=0.0
    )
    pseudo_level: float = option(0.35, "As `warm_level`, of pseudo-masks.", low=0.0, high=1.0)
    segment: str = option(
        "", "Name of one segment for all classes; these then teach the heads only."
    )
    epoch_steps: int = option(100, "Steps of an epoch of the network itself.", low=1)
    train_side: int = option(192, "Pixels of the squares that it is trained on.", low=32)

    def __post_init__(self) -> None:
        check_options(self)


class Taught(NamedTuple):
    """What the teacher found.

    Attributes
    ----------
    masks
        (N, K, side / 2, side / 2), the pseudo-masks of the training images.
    unsure
        Likewise: where they teach nothing.
    learnt
        What the bundle's inference config is to say.
    """

    masks: Masks
    unsure: Masks
    learnt: dict[str, Any]


class SelfTrainer:
    """Trains a network in all stages and ships it; see the module.

    Parameters
    ----------
    options
        Of the training, see `LabelSettings`, `TrainSettings` and `SelfTrainingSettings`.
    network
        Its weights are drawn anew.
    data, validation
        Labelled images (N, 3, X, Y) in [0, 1].
    inferer
        Of the training steps.
    max_epochs
        Of the network itself.
    """

    def __init__(
        self,
        options: Options,
        network: SelfTrainedNet,
        data: SliceDataset,
        validation: SliceDataset,
        inferer: Inferer,
        max_epochs: int,
    ) -> None:
        self.options, self.network = options, network
        self.data, self.validation, self.inferer = data, validation, inferer
        self.settings = take_settings(options, max_epochs, data)
        self.own = take_part(SelfTrainingSettings, options)
        self.folder, self.device = Path(options["output_dir"]), resolve_device(options["device"])
        self.side = take_part(LabelSettings, options).image_size[0]
        self.record = describe_run(options, self.settings) | asdict(self.own)
        self.has_negatives = bool((data.labels == 0).any())

    def run(self) -> None:
        """Train, and write weights, ``training.json`` and ``training.png``.

        The report says under ``options`` what the bundle's inference config is to say: what was
        learnt beside the weights.
        """
        claim_folder(self.folder, self.record, begun=(self.folder / "run.json").is_file())
        taught = self.teach()
        self.train(taught, self.folder / "student")
        whole, scope = self.join(self.folder / "student" / "best.pt")
        self.ship(whole, {**taught.learnt, "gate_scope": scope})

    def teach(self) -> Taught:
        """Train the teacher, and draw its pseudo-masks."""
        views, others = self._extract_features()
        if self.has_negatives:
            return self._teach_from_negatives(views, others)
        return self._teach_from_rarity(views, others)

    def _extract_features(self) -> tuple[FeatureDataset, FeatureDataset]:
        own = self.own
        encoder = PretrainedEncoder()
        if own.pretrained:
            load_imagenet_weights(encoder)
        extractor = FeatureExtractor(encoder).to(self.device)
        extractor.fit(self.data, self.side)
        place = self.folder / "features"
        views = FeatureDataset(self.data, extractor, place / "train", self.side, mirror=True)
        others = FeatureDataset(self.validation, extractor, place / "val", self.side)
        return views, others

    def _teach_from_negatives(self, views: FeatureDataset, others: FeatureDataset) -> Taught:
        heads, merge = self._train_heads(views, others, HEADS, "heads"), bool(self.own.segment)
        maps = join_maps(heads, views, merge)
        for images in (self.data, self.validation, views) if merge else ():
            images.labels = (images.labels > 0).float()
        polarity = learn_polarity(maps, views, self.settings.seed)
        masks = self._draw_masks(maps, views, polarity, "pseudo_masks")
        return Taught(masks, np.zeros_like(masks), {"polarity": polarity, **KNOWN_RULE})

    def _teach_from_rarity(self, views: FeatureDataset, others: FeatureDataset) -> Taught:
        """Two teachers look; what the first finds is taken out of the second's memory.

        What both draw is to be learnt. Nothing is where only one of them does, or where it is warm.
        """
        if long := int((views.inside.mean((1, 2)) <= 0.5).sum()):
            logger.warning(
                "%d of %d training images are at least twice as long as wide. As every image has "
                "a finding, these may teach wrong places. Crop them, or add images without one.",
                long, len(views),
            )  # fmt: skip
        meter, drawn, heats, polarity = RarityMeter(views), [], [], ""
        shown = np.arange(len(views)), views.labels.long().numpy() - 1
        for name in ("first", "second"):
            rarity = meter.measure(views, self.folder / f"rarity_{name}.npy")
            other = meter.measure(others, self.folder / f"rarity_{name}_val.npy")
            views.search(mark_rarest(rarity, views.inside))
            others.search(mark_rarest(other, others.inside))
            heads = self._train_heads(views, others, [RARE_HEAD], f"heads_{name}")
            maps = weigh_maps(join_maps(heads, views), rarity)
            polarity = polarity or learn_polarity(maps, views, self.settings.seed)
            drawn.append(self._draw_masks(maps, views, polarity, f"pseudo_masks_{name}"))
            heats.append(maps[shown])
            meter.forget(heats[-1] > FORGOTTEN)
        masks, unsure = drawn[0] & drawn[1], np.zeros_like(drawn[0])
        warm = enlarge(np.maximum(*heats), masks.shape[2:]) > WARM
        unsure[shown] = warm & ~masks[shown]
        return Taught(masks, unsure, {"polarity": polarity, **RARE_RULE})

    def _train_heads(
        self,
        views: FeatureDataset,
        others: FeatureDataset,
        strides: Sequence[Sequence[int]],
        name: str,
    ) -> list[Head]:
        """Return the heads that learn the labels well enough."""
        heads, losses = train_heads(
            views,
            others,
            self.own.head_seeds * [*strides],
            len(self.options.get("class_names", "1")),
            self._plan_heads(),
            self.folder / name,
            self.record,
            self.device,
        )
        chosen = choose_heads(losses, self.own.head_tolerance)
        logger.info(
            "Validation losses of the heads: %s; averaged are %s.",
            ", ".join(f"{loss:.3f}" for loss in losses), ", ".join(map(str, chosen)),
        )  # fmt: skip
        return [heads[number] for number in chosen]

    def _draw_masks(self, maps: Maps, views: FeatureDataset, polarity: str, name: str) -> Masks:
        path = self.folder / f"{name}.npz"
        return draw_pseudo_masks(maps, views, polarity, self.own.pseudo_level, path)

    def _plan_heads(self) -> TrainSettings:
        own, count = self.own, len(self.data)
        batch_size = min(own.head_batch_size, count)
        return replace(
            self.settings,
            max_epochs=math.ceil(own.head_steps / (count // batch_size)),
            batch_size=batch_size,
            learning_rate=own.head_learning_rate,
            weight_decay=own.head_weight_decay,
            label_smoothing=0.0,
        )

    def train(self, taught: Taught, place: Path) -> None:
        """Train the network from its first weights on pseudo-masks, in place."""
        draw_first_weights(self.network, self.settings, self.own.pretrained)
        train_student(
            self.network.to(self.device),
            PseudoMaskDataset(self.data, taught.masks, taught.unsure, self.side),
            self.validation,
            self.settings,
            self.own.epoch_steps,
            self.own.train_side,
            place,
            self.record,
            self.inferer,
            maps_tell=self.has_negatives,
        )
        load_best(place / "best.pt", self.network)

    def join(self, best: Path) -> tuple[Path, str]:
        """Let 0 be where validation images are best separated; write the checkpoint.

        A volume of one class is let through as a whole by a single one of its slices, and so hardly
        any slice without the finding may pass.

        Returns
        -------
        Path
            The checkpoint.
        str
            The gate's scope that this boundary is for.
        """
        network, labels, scope = self.network, self.validation.labels, "slice"
        logits = classify_slices(network, self.validation, "Classifying validation images")
        if network.num_classes == 1:
            values, present = logits[:, 0].numpy(), labels.numpy() > 0
            if (self.validation.places[:, 1] > 0).any():
                offset, scope = float(np.quantile(values[~present], SPARED)), "volume"
            else:
                offset = find_boundary(values, present)
            network.offset.fill_(offset)
            logits = logits - offset
        content = torch.load(best, map_location="cpu", weights_only=True)
        scores = score_logits(logits, labels, self.settings.negatives)
        metrics = content["metrics"] | {f"val_{name}": value for name, value in scores.items()}
        path = self.folder / "whole.pt"
        save_whole({**content, "model": network.state_dict(), "metrics": metrics}, path)
        return path, scope

    def ship(self, whole: Path, learnt: Mapping[str, Any]) -> None:
        """Export weights and calibration, and draw the curves."""
        facts = {"seed": self.settings.seed, "max_epochs": self.settings.max_epochs}
        report = export_best(
            whole, self.options["weights"], self.network.cpu(), self.data,
            list_explainers(["inherent"]), **facts, options=dict(learnt),
        )  # fmt: skip
        draw_curves([self.folder / "student"], self.folder / "training.png")
        logger.info("What the bundle's config is to say: %s.", report["options"])


def draw_first_weights(network: SelfTrainedNet, settings: TrainSettings, pretrained: bool) -> None:
    """Draw a network's first weights, the encoder's from ImageNet, or take those to start from."""
    draw_or_copy_weights(network, settings.seed, settings.start_from)
    network.offset.zero_()  # a boundary of other labels
    if settings.start_from is not None:
        return
    if pretrained:
        load_imagenet_weights(network.encoder)
    nn.init.zeros_(network.classifier.fc.weight)
    _, bias = network.decoder.out.parameters()
    nn.init.constant_(bias, -2.0)


def find_boundary(logits: NDArray[np.float32], present: NDArray[np.bool_]) -> float:
    """Return the logit that parts images with a finding from those without.

    By a logistic regression in which both weigh the same. All images have a say in it; the logit
    with the fewest wrong images depends on two or three of them.
    """
    fit = LogisticRegression(C=1000.0, class_weight="balanced").fit(logits[:, None], present)
    slope, level = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        logger.warning(
            "On the validation images the network does not tell a finding from none. It needs "
            "more training images, or labels that can be seen in them."
        )
        return float(np.median(logits))
    return float(np.clip(-level / slope, logits.min(), logits.max()))
