"""The training of one network, with a checkpoint after each epoch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from heatmask.device import autocast_bfloat16, to_channels_last
from heatmask.errors import WeightsError
from heatmask.learning.attribution_augmentation import AttributionAugmentation
from heatmask.learning.examples import Examples
from heatmask.learning.settings import LearnSettings
from heatmask.networks.global_pooling import GPNetwork
from heatmask.networks.weights import load_weights
from heatmask.training.augment import Augmentation
from heatmask.training.checkpoints import save_whole
from heatmask.training.engine import seed_network
from heatmask.training.position import PositionOffsetLoss, PositionPrior

Watch = Callable[[int, float | None], None]
"""Called after each step with the slices that were shown and their loss; it may raise."""
_MOVE = Augmentation(gamma=0, gain=0, noise=0)
_RECOLOUR = Augmentation(rotation_deg=0, scale=0, shift=0, flip=False)
_FUSE = AttributionAugmentation()


class MaskAndLabelLoss(nn.Module):
    """Dice and cross-entropy of the heatmap on masks, cross-entropy of the logits on labels.

    Parameters
    ----------
    prior
        The position's log-odds, which the logits need not explain.
    label_weight
        Of the labels' loss.
    """

    def __init__(self, prior: PositionPrior, label_weight: float) -> None:
        super().__init__()
        self.prior, self.label_weight = prior, label_weight
        self.of_masks, self.of_labels = DiceCELoss(sigmoid=True, batch=True), PositionOffsetLoss()

    def forward(
        self, logits: Tensor, heatmap: Tensor, batch: Examples, masks: Tensor, masked: Tensor
    ) -> Tensor:
        """Return the loss of a batch; `masked` (B,) says whose masks (B, 1, H, W) count."""
        loss = 0 * logits.sum()  # of a batch of which nothing is known
        known = batch.labelled
        if known.any():
            target = torch.cat([batch.labels[:, None], self.prior(batch.positions)], 1)[known]
            loss = loss + self.label_weight * self.of_labels(
                logits[known], target.to(logits.device)
            )
        if masked.any():
            loss = loss + self.of_masks(heatmap[masked], masks[masked])
        return loss


def start_segmentation(
    network: GPNetwork, weights: Path, examples: Examples, seed: int
) -> GPNetwork:
    """Give a network its first weights: a bundle's if they are of the same network, or else drawn.

    Parameters
    ----------
    network
        Filled in place and returned.
    weights
        The bundle's.
    examples
        What share of them is marked decides the bias of drawn weights: else hundreds of steps go
        by until the background is empty.
    """
    seed_network(network, seed)
    try:
        return load_weights(network, weights)
    except WeightsError:
        share = examples.masks.float().mean().clamp(1e-4, 0.5)
        nn.init.constant_(network.get_parameter("head.bias"), float(share.logit()))
        return network


def fit(
    network: GPNetwork,
    examples: Examples,
    settings: LearnSettings,
    epochs: int,
    *,
    pseudo_masks: bool,
    folder: Path | None = None,
    watch: Watch = lambda slices, loss: None,
) -> GPNetwork:
    """Train a network whose heatmap is a mask's logits, and return its averaged weights.

    Training goes on after the last epoch that `folder` holds, and ends with the same weights as
    one that was never stopped.

    Parameters
    ----------
    network
        With its first weights, on the device of the training; it is changed.
    examples
        The last epoch is taken: nothing of them is held out.
    epochs
        Of ``settings.slices_per_epoch`` slices each, drawn with replacement.
    pseudo_masks
        Whether masks that nobody has corrected count.
    folder
        Of the checkpoint; without one none is written.
    watch
        Called with all progress, also with that before a stop.

    Returns
    -------
    GPNetwork
        A copy in eval mode.
    """
    steps = max(1, settings.slices_per_epoch // settings.batch_size)
    rate = settings.learning_rate
    optimizer = AdamW(network.parameters(), rate, weight_decay=settings.weight_decay)
    scheduler = OneCycleLR(optimizer, rate, total_steps=max(1, epochs * steps))
    keep = get_ema_multi_avg_fn(1 - settings.averaging)
    averaged = AveragedModel(network, multi_avg_fn=keep, use_buffers=True)
    state = {
        "network": network, "averaged": averaged, "optimizer": optimizer, "scheduler": scheduler
    }  # fmt: skip
    done = _resume(state, folder)
    watch(done * steps * settings.batch_size, None)
    prior = PositionPrior(examples.positions, examples.labels)
    loss_function = MaskAndLabelLoss(prior, settings.label_weight)
    weights = examples.weigh(settings.corrected_share)
    network.train()
    for epoch in range(done, epochs):
        torch.manual_seed(settings.seed * 10_000 + epoch)
        drawn = weights.multinomial(steps * settings.batch_size, replacement=True)
        for chosen in drawn.split(settings.batch_size):
            batch = examples.select(chosen)
            loss = _compute_loss(network, batch, loss_function, settings, pseudo_masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            averaged.update_parameters(network)
            watch(len(chosen), loss.item())
        if folder is not None:
            save_whole({"epoch": epoch + 1, **_gather(state)}, folder / "checkpoint.pt")
    return cast(GPNetwork, averaged.module).eval()


def _compute_loss(
    network: GPNetwork,
    batch: Examples,
    loss_function: MaskAndLabelLoss,
    settings: LearnSettings,
    pseudo_masks: bool,
) -> Tensor:
    images = batch.images.float()
    if settings.attribution_augmentation:
        images = _FUSE(images, batch.attributions.float())
    # The mask moves along as a further channel, and keeps its grey values.
    moved = _MOVE(torch.cat([images, batch.masks.float()], 1))
    images, masks = _RECOLOUR(moved[:, :-1]), (moved[:, -1:] > 0.5).float()
    device = next(network.parameters()).device
    with autocast_bfloat16(device):
        logits, heatmap = network.forward_heatmap(to_channels_last(images).to(device))
    masked = batch.certain | pseudo_masks
    return loss_function(logits.float(), heatmap.float(), batch, masks.to(device), masked)


def _resume(state: Mapping[str, Any], folder: Path | None) -> int:
    """Fill the state from a checkpoint and return how many epochs are done."""
    path = folder / "checkpoint.pt" if folder is not None else None
    if path is None or not path.is_file():
        return 0
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, item in state.items():
        item.load_state_dict(content[name])
    return content["epoch"]


def _gather(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item.state_dict() for name, item in state.items()}
