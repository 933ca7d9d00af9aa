"""MONAI's trainer as bundles are trained: optimiser, schedule, average, validation, checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch.distributed as dist
from ignite.handlers import EMAHandler, ProgressBar
from ignite.metrics import Loss, Metric
from monai.data import DataLoader, DistributedSampler
from monai.engines import SupervisedEvaluator, SupervisedTrainer, default_prepare_batch
from monai.handlers import (
    LrScheduleHandler,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
    from_engine,
)
from monai.inferers import Inferer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset, Sampler

from heatmask.training.checkpoints import KeepBest, resume
from heatmask.training.engine import SeedEpochs
from heatmask.training.settings import TrainSettings


@dataclass(frozen=True)
class Objective:
    """What a network is to learn.

    Attributes
    ----------
    loss
        Of the network's output and a target.
    prepare, prepare_validation
        From a batch to images and target: MONAI's `prepare_batch`.
    scores
        What else is measured in validation, by name.
    validation_loss
        Where it is another.
    """

    loss: nn.Module
    prepare: Callable[..., Any] = default_prepare_batch
    prepare_validation: Callable[..., Any] = default_prepare_batch
    scores: Mapping[str, Metric] = field(default_factory=dict)
    validation_loss: nn.Module | None = None


class ResumableTrainer(SupervisedTrainer):
    """Trains with a checkpoint after each epoch, and goes on from the last one.

    AdamW in one cycle. What is validated after each epoch and kept in ``best.pt`` is the moving
    average of the weights; with an `averaging` of 1 the weights themselves. Of several processes
    (`torch.distributed`) each sees its share of the data, and the first one writes.

    Parameters
    ----------
    network
        On its device.
    data, validation
        Data sets.
    objective, settings
        What is learnt, and how.
    folder
        Of checkpoints, the best network and TensorBoard's log.
    record
        What makes this run: see `heatmask.training.checkpoints.resume`.
    inferer
        Of training steps.
    handlers
        Further ones, attached first.
    sampler
        Draws the images of an epoch; None for all of them in random order.
    slower
        Parts of the network that learn at a share of the rate, by the share.
    keep_last
        Keep the last epoch in ``best.pt``, whatever its validation loss.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Dataset[Any],
        validation: Dataset[Any],
        objective: Objective,
        settings: TrainSettings,
        folder: Path,
        record: Mapping[str, Any],
        inferer: Inferer,
        handlers: Sequence[Any] = (),
        sampler: Sampler[int] | None = None,
        slower: Mapping[float, nn.Module] = MappingProxyType({}),
        keep_last: bool = False,
    ) -> None:
        self.folder, self.record, self.settings = folder, record, settings
        trained = network
        if dist.is_initialized():
            # A second stage may train what this one leaves out.
            trained = DistributedDataParallel(network, find_unused_parameters=True)
            sampler = DistributedSampler(data, shuffle=True, seed=settings.seed)
        order: dict[str, Any] = {"sampler": sampler} if sampler else {"shuffle": True}
        loader = DataLoader(data, batch_size=settings.batch_size, drop_last=True, **order)
        rate, steps = settings.learning_rate, settings.max_epochs * len(loader)
        groups = group_parameters(network, rate, slower)
        optimizer = AdamW(groups, rate, weight_decay=settings.weight_decay)
        rates = [group["lr"] for group in groups]
        scheduler = OneCycleLR(optimizer, rates, total_steps=steps)
        seeds = SeedEpochs(settings.seed + 1000 * find_rank())
        own, averaged = [*handlers, seeds], network
        if settings.averaging < 1:
            average = EMAHandler(trained, settings.averaging, handle_buffers="update")
            own, averaged = [*own, average], average.ema_model
        validator = make_validator(averaged, validation, objective, settings, folder, keep_last)
        own += [LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)]
        own += [ValidationHandler(1, validator)]
        if find_rank() == 0:
            loss = from_engine(["loss"], first=True)
            own += [
                TensorBoardStatsHandler(
                    log_dir=str(folder), tag_name="train_loss", output_transform=loss
                )
            ]
            own += [ProgressBar()]
        super().__init__(
            validator.state.device, settings.max_epochs, loader, trained, optimizer, objective.loss,
            inferer=inferer, prepare_batch=objective.prepare, train_handlers=own,
        )  # fmt: skip
        self.kept = {
            "network": network,
            "averaged": averaged,
            "optimizer": optimizer,
            "lr_scheduler": scheduler,
        }

    def run(self) -> None:
        """Train, unless the run had finished."""
        if resume(self, self.kept, self.folder, self.record, writes=find_rank() == 0):
            super().run()


def group_parameters(
    network: nn.Module, rate: float, slower: Mapping[float, nn.Module]
) -> list[dict[str, Any]]:
    """Return the trained parameters with their learning rates, as an optimiser takes them."""
    groups, left = [], {id(p): p for p in network.parameters() if p.requires_grad}
    for share, part in slower.items():
        own = [left.pop(id(p)) for p in part.parameters() if id(p) in left]
        groups.append({"params": own, "lr": share * rate})
    return [{"params": list(left.values()), "lr": rate}, *groups]


def make_validator(
    network: nn.Module,
    data: Dataset[Any],
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    keep_last: bool = False,
) -> SupervisedEvaluator:
    """Return what validates a network and keeps the best of it, or the last, in ``best.pt``."""
    writers: list[Any] = [
        KeepBest(network, folder / "best.pt", keep_last=keep_last),
        TensorBoardStatsHandler(log_dir=str(folder), iteration_log=False),
        StatsHandler(iteration_log=False),
    ]
    return SupervisedEvaluator(
        device=next(network.parameters()).device,
        val_data_loader=DataLoader(data, batch_size=settings.batch_size),
        network=network,
        decollate=False,
        metric_cmp_fn=lambda current, best: current < best,
        prepare_batch=objective.prepare_validation,
        key_val_metric={
            "val_loss": Loss(objective.validation_loss or objective.loss, get_prediction)
        },
        additional_metrics=dict(objective.scores),
        val_handlers=writers if find_rank() == 0 else [],
    )


def get_prediction(output: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return prediction and target of an engine's output."""
    return output["pred"], output["label"]


def find_rank() -> int:
    """Return the number of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0
