"""Train a `heatmask.networks.self_trained.SelfTrainedNet` from image-level labels, in stages.

1. Features of the encoder as ImageNet left it, once.
2. Heads on them, which classify; their mean map is the teacher.
3. Pseudo-masks of the training images: the picture draws the border in the warm part of the map.
4. The network itself, on labels and pseudo-masks at once.
5. That again from its first weights, on the masks that it gave the training images.

What was completed is found again when a run goes on. No mask is read.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heatmask.device import resolve_device
from heatmask.networks.pretrained import PretrainedEncoder, load_imagenet_weights
from heatmask.networks.self_trained import SelfTrainedNet
from heatmask.options import check_options, option, take_part
from heatmask.parts import Options
from heatmask.training.calibrate import list_explainers
from heatmask.training.checkpoints import export_best, load_best, save_whole
from heatmask.training.curve import draw_curves
from heatmask.training.engine import draw_or_copy_weights
from heatmask.training.features import FeatureDataset, FeatureExtractor
from heatmask.training.heads import choose_heads, join_maps, train_heads
from heatmask.training.metrics import classify_slices, score_logits
from heatmask.training.parts import describe_run
from heatmask.training.pseudo_masks import draw_borders, learn_polarity, take_warm_parts
from heatmask.training.settings import LabelSettings, TrainSettings
from heatmask.training.slices import SliceDataset
from heatmask.training.student import PseudoMaskDataset, map_findings, train_student

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelfTrainingSettings:
    """How the teacher learns, on frozen features; the network itself as `TrainSettings` say."""

    pretrained: bool = option(True, "Whether the encoder has learnt on ImageNet.")
    heads: int = option(4, "Classifiers whose maps are averaged.", low=1)
    head_steps: int = option(350, "Steps of a head.", low=1)
    head_batch_size: int = option(32, "Images a step of a head.", low=1)
    head_learning_rate: float = option(0.003, "As `learning_rate`, of a head.", low=0.0)
    head_weight_decay: float = option(0.05, "As `weight_decay`, of a head.", low=0.0)
    head_tolerance: float = option(
        0.05, "How far a head's validation loss may lie above the lowest.", low=0.0
    )
    pseudo_level: float = option(0.35, "As `warm_level`, of pseudo-masks.", low=0.0, high=1.0)
    segment: str = option(
        "", "Name of one segment for all classes; these then teach the heads only."
    )
    rounds: int = option(2, "How often the network is trained, each time on new masks.", low=1)
    round_level: float = option(0.35, "As `pseudo_level`, of later rounds.", low=0.0, high=1.0)
    epoch_steps: int = option(100, "Steps of an epoch of the network itself.", low=1)
    train_side: int = option(192, "Pixels of the squares that it is trained on.", low=32)

    def __post_init__(self) -> None:
        check_options(self)


def run_self_training(
    options: Options, network: SelfTrainedNet, data: SliceDataset, validation: SliceDataset
) -> Path:
    """Train a network in all stages and ship it; see the module.

    Returns
    -------
    Path
        The weights. ``training.json`` in the run's folder says under ``options`` what the bundle's
        inference config is to say: what was learnt beside the weights.
    """
    folder, device = Path(options["output_dir"]), resolve_device(options["device"])
    settings, own = take_part(TrainSettings, options), take_part(SelfTrainingSettings, options)
    side = take_part(LabelSettings, options).image_size[0]
    views, polarity, masks = teach(options, network, data, validation, folder, device)
    record, best = describe_run(options, settings) | asdict(own), folder
    for number in range(1, own.rounds + 1):
        place = folder / f"round{number}"
        if number > 1:
            maps = map_findings(network, data, side)
            masks = take_warm_parts(maps, views, own.round_level, place / "pseudo_masks.npz")
        draw_first_weights(network, settings, own)
        best = train_student(
            network.to(device),
            PseudoMaskDataset(data, masks, side),
            validation,
            settings,
            own.epoch_steps,
            own.train_side,
            place,
            record,
        )
        load_best(best, network)
    whole = join(network, best, validation, settings.negatives, folder / "whole.pt")
    return ship(options, whole, network, data, folder, {"polarity": polarity})


def teach(
    options: Options,
    network: SelfTrainedNet,
    data: SliceDataset,
    validation: SliceDataset,
    folder: Path,
    device: torch.device,
) -> tuple[FeatureDataset, str, NDArray[np.bool_]]:
    """Train the teacher; return the features, the polarity of findings and the pseudo-masks."""
    settings, own = take_part(TrainSettings, options), take_part(SelfTrainingSettings, options)
    side = take_part(LabelSettings, options).image_size[0]
    encoder = PretrainedEncoder()
    if own.pretrained:
        load_imagenet_weights(encoder)
    extractor = FeatureExtractor(encoder).to(device)
    extractor.fit(data, side)
    views = FeatureDataset(data, extractor, folder / "features" / "train", side, mirror=True)
    others = FeatureDataset(validation, extractor, folder / "features" / "val", side)
    batch_size = min(own.head_batch_size, len(data))
    learning = replace(
        settings,
        max_epochs=math.ceil(own.head_steps / (len(data) // batch_size)),
        batch_size=batch_size,
        learning_rate=own.head_learning_rate,
        weight_decay=own.head_weight_decay,
        label_smoothing=0.0,
    )
    record = describe_run(options, learning) | {"pretrained": own.pretrained}
    classes = len(options.get("class_names", "1"))
    heads, losses = train_heads(
        views, others, own.heads, classes, learning, folder / "heads", record, device
    )
    chosen = choose_heads(losses, own.head_tolerance)
    logger.info(
        "Validation losses of the heads: %s; averaged are %s.",
        ", ".join(f"{loss:.3f}" for loss in losses), ", ".join(map(str, chosen)),
    )  # fmt: skip
    merge = bool(own.segment)
    maps = join_maps([heads[number] for number in chosen], views, merge)
    for images in (data, validation, views) if merge else ():
        images.labels = (images.labels > 0).float()
    polarity = learn_polarity(maps, views, settings.seed)
    masks = draw_borders(maps, views, polarity, own.pseudo_level, folder / "pseudo_masks.npz")
    return views, polarity, masks


def draw_first_weights(
    network: SelfTrainedNet, settings: TrainSettings, own: SelfTrainingSettings
) -> None:
    """Draw a network's first weights, the encoder's from ImageNet, or take those to start from."""
    draw_or_copy_weights(network, settings.seed, settings.start_from)
    if settings.start_from is not None:
        return
    if own.pretrained:
        load_imagenet_weights(network.encoder)
    nn.init.zeros_(network.classifier.fc.weight)
    nn.init.constant_(network.decoder.out.bias, -2.0)


def join(
    network: SelfTrainedNet, best: Path, validation: SliceDataset, negatives: bool, path: Path
) -> Path:
    """Let 0 be where validation images are best told apart; write the checkpoint and return it."""
    logits = classify_slices(network, validation, "Classifying validation images")
    if network.num_classes == 1:
        offset = find_threshold(logits[:, 0].numpy(), validation.labels.numpy() > 0)
        network.offset.fill_(offset)
        logits = logits - offset
    content = torch.load(best, map_location="cpu", weights_only=True)
    scores = score_logits(logits, validation.labels, negatives)
    metrics = content["metrics"] | {f"val_{name}": value for name, value in scores.items()}
    save_whole({**content, "model": network.state_dict(), "metrics": metrics}, path)
    return path


def find_threshold(logits: NDArray[np.float32], present: NDArray[np.bool_]) -> float:
    """Return the logit with the fewest wrong images, half way between two of them.

    Of several the middle one.
    """
    ordered = np.sort(np.unique(logits))
    between = (ordered[1:] + ordered[:-1]) / 2
    if between.size == 0:
        return float(ordered[0])
    wrong = np.array([((logits > threshold) != present).sum() for threshold in between])
    best = between[wrong == wrong.min()]
    return float(best[len(best) // 2])


def ship(
    options: Options,
    best: Path,
    network: SelfTrainedNet,
    data: SliceDataset,
    folder: Path,
    learnt: Mapping[str, Any],
) -> Path:
    """Export weights and calibration, and draw the curves."""
    settings = take_part(TrainSettings, options)
    facts = {"seed": settings.seed, "max_epochs": settings.max_epochs, "options": dict(learnt)}
    report = export_best(
        best, options["weights"], network.cpu(), data, list_explainers(["inherent"]),
        folder=folder, **facts,
    )  # fmt: skip
    draw_curves(sorted(folder.glob("round*")), folder / "training.png")
    logger.info("What the bundle's config is to say: %s.", report["options"])
    return Path(options["weights"])
