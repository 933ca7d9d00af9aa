"""The few parts that MONAI's engines need to train a slice classifier."""

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from heatmask.device import autocast_bfloat16, lay_channels_last, to_channels_last
from heatmask.training.augment import Augmentation
from heatmask.training.position import PositionPrior


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
