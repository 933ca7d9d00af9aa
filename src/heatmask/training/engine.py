"""The few parts that MONAI's engines need to train a slice classifier."""

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer
from monai.networks.utils import copy_model_state
from torch import Tensor, nn

from heatmask.device import autocast_bfloat16, lay_channels_last, to_channels_last
from heatmask.errors import WeightsError
from heatmask.training.augment import Augmentation
from heatmask.training.position import PositionPrior

logger = logging.getLogger(__name__)


class PrepareSlices:
    """MONAI's `prepare_batch`: a batch of slices or blocks of them to images and targets.

    Parameters
    ----------
    prior
        The position's log-odds; they become the further columns of the targets (see
        `heatmask.training.position.PositionOffsetLoss`). None where images have no position.
    augmentation
        Applied to the images; None for validation.
    """

    def __init__(
        self, prior: PositionPrior | None, augmentation: Augmentation | None = None
    ) -> None:
        self.prior, self.augmentation = prior, augmentation

    def __call__(
        self,
        batch: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, C, *spatial) and targets (B, 1 + K) or (B, 1).

        The images are channels last in memory.
        """
        images = batch["image"]
        if self.augmentation is not None:
            images = self.augmentation(images)
        targets = batch["label"][:, None]
        if self.prior is not None:
            targets = torch.cat([targets, self.prior(batch["position"])], dim=1)
        images = to_channels_last(images)
        return images.to(device, non_blocking=non_blocking), targets.to(device)


class AutocastInferer(SimpleInferer):
    """`SimpleInferer` in bfloat16, also on a CPU that can, where MONAI's `amp` does nothing."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's float32 output."""
        with autocast_bfloat16(inputs.device):
            return network(inputs, *args, **kwargs).float()


class SeedEpochs:
    """Seed torch at the start of every epoch.

    A run that was killed and resumed then draws what it would have drawn, and ends with
    the weights of a run that was not.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed from the run's seed and the epoch."""
        torch.manual_seed(self.seed * 10_000 + engine.state.epoch)


def seed_network(network: nn.Module, seed: int) -> nn.Module:
    """Draw the initial weights of `network` from `seed` and return it, channels last.

    A bundle builds its network before any expression could set the seed.
    """
    torch.manual_seed(seed)
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return lay_channels_last(network)


def draw_or_copy_weights(
    network: nn.Module, seed: int, weights: str | Path | None = None
) -> nn.Module:
    """Draw the initial weights of a network, or take them from a checkpoint.

    Parameters
    ----------
    network
        Filled in place and returned, channels last in memory.
    seed
        What is not in the checkpoint is drawn from it; see `seed_network`.
    weights
        Tensors of the same name and shape are taken over; others, such as the last layer of a
        network for other classes, are drawn. What is left out is logged.

    Raises
    ------
    WeightsError
        The checkpoint is missing or damaged, or nothing in it fits.
    """
    seed_network(network, seed)
    if weights is None:
        return network
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
        _, taken, drawn = copy_model_state(network, content.get("model", content))
    except Exception as error:  # torch.load raises whatever the file's bytes lead to
        raise WeightsError(
            f"The weights to start from, {weights}, cannot be read: {error}. Give those of a "
            "bundle, or train from scratch."
        ) from error
    if not any(network.state_dict()[name].ndim > 1 for name in taken):
        raise WeightsError(
            f"Nothing in {weights} fits {type(network).__name__}. Give the weights of a bundle "
            "with this network."
        )
    logger.info("%d tensors are from %s; drawn anew: %s", len(taken), weights, ", ".join(drawn))
    return network
