"""Checkpoints of a run: resume after a kill, keep the best, ship it."""

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from torch import nn

from heatmask.attribution.calibration import write_calibration
from heatmask.attribution.explainer import Explainer
from heatmask.errors import OptionError, WeightsError
from heatmask.files import write_atomically
from heatmask.networks.weights import load_weights, save_weights
from heatmask.training.blocks import BlockDataset
from heatmask.training.calibrate import measure_ranges
from heatmask.training.slices import SliceDataset

logger = logging.getLogger(__name__)


class KeepBest:
    """Keep the state dict of the network with the lowest validation loss, in ``best.pt``.

    MONAI's saver forgets across a resume what the best was, and would overwrite it. Here
    the file itself remembers.

    Parameters
    ----------
    network
        The network that is validated (the averaged one).
    path
        Where the best goes, as ``{"model": state dict, "epoch": n, "metrics": {...}}``.
    keep_last
        Keep the latest instead.
    """

    def __init__(self, network: nn.Module, path: str | Path, keep_last: bool = False) -> None:
        self.network, self.path, self.keep_last = network, Path(path), keep_last

    def attach(self, engine: Engine) -> None:
        """Attach to a validator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare and save; the first epoch of a run replaces what an older run left."""
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        loss = metrics["val_loss"]
        if self.path.is_file() and engine.state.epoch > 1 and not self.keep_last:
            best = torch.load(self.path, weights_only=True)["metrics"]["val_loss"]
            if math.isnan(loss) or loss >= best:
                return
        state = self.network.state_dict()
        save_whole({"model": state, "epoch": engine.state.epoch, "metrics": metrics}, self.path)


def resume(
    trainer: Engine,
    state: Mapping[str, Any],
    folder: str | Path,
    settings: Mapping[str, Any],
    writes: bool = True,
) -> bool:
    """Let a trainer keep a checkpoint after each epoch and go on from the last one, if any.

    Parameters
    ----------
    trainer
        The trainer; its own state is saved beside the rest.
    state
        What a checkpoint holds: network, averaged network, optimizer, scheduler.
    folder
        Where the checkpoints are.
    settings
        What makes this run: data, seed, epochs, ... They are kept in ``run.json``, with a digest
        of the network's structure.
    writes
        Whether this process writes the files: one of those that train together does.

    Returns
    -------
    bool
        Whether there is anything left to train.

    Raises
    ------
    OptionError
        The folder holds a run of other settings: going on with it would mix the two.
    """
    everything = {**state, "trainer": trainer}
    structure = hashlib.sha256(str(state["network"]).encode()).hexdigest()[:12]
    settings = {**settings, "network structure": structure}
    last = sorted(Path(folder).glob("checkpoint_epoch=*.pt"), key=os.path.getmtime)
    if writes:
        claim_folder(Path(folder), settings, begun=bool(last))
    if last:
        content = torch.load(last[-1], map_location="cpu", weights_only=True)
        done = content["trainer"]["iteration"] // content["trainer"]["epoch_length"]
        if done >= trainer.state.max_epochs:
            logger.info("The run in %s had finished; nothing is trained.", folder)
            return False
        CheckpointLoader(str(last[-1]), everything, map_location="cpu").attach(trainer)
    if writes:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, _save_epoch, everything, Path(folder))
    return True


def _save_epoch(trainer: Engine, state: Mapping[str, Any], folder: Path) -> None:
    """Write a checkpoint, and only then remove the one before.

    MONAI's saver removes first and writes in place, so that a kill in between leaves
    nothing to resume from.
    """
    path = folder / f"checkpoint_epoch={trainer.state.epoch}.pt"
    save_whole({name: item.state_dict() for name, item in state.items()}, path)
    for older in folder.glob("checkpoint_epoch=*.pt"):
        if older != path:
            older.unlink()


def claim_folder(folder: Path, settings: Mapping[str, Any], begun: bool) -> None:
    """Write what makes a run into its folder, or compare it with what stands there.

    Raises
    ------
    OptionError
        A run that was begun there is another one.
    """
    record = folder / "run.json"
    wanted = json.loads(json.dumps(settings))
    if begun:
        found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        names = [*wanted, *(name for name in found if name not in wanted)]
        other = [name for name in names if found.get(name) != wanted.get(name)]
        if other:
            changes = "; ".join(f"{n}: {found.get(n)} there, {wanted.get(n)} now" for n in other)
            raise OptionError(
                f"{folder} holds a run with other settings ({changes}). Give another folder "
                "(--run-dir), or remove that one."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "best.pt").unlink(missing_ok=True)
    with write_atomically(record) as draft:
        draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def export_best(
    best: str | Path,
    weights: str | Path,
    network: nn.Module,
    slices: SliceDataset | BlockDataset,
    explainers: Mapping[str, Explainer],
    **facts: Any,
) -> Mapping[str, Any]:
    """Ship the best checkpoint of a run, and what belongs to it.

    Parameters
    ----------
    best, weights
        The run's ``best.pt`` and the bundle's checkpoint that is written from it, tensors
        only and in half precision; ``calibration.json`` is written beside it.
    network
        A network of the bundle's structure; filled with the weights.
    slices
        Training slices, for the heatmaps' ranges.
    explainers
        The methods whose heatmap's range is measured, by name.
    facts
        What else goes into ``training.json`` in the run's folder: seed, epochs, ...
    """
    best = Path(best)
    if not best.is_file():
        raise WeightsError(f"The run has left no best checkpoint: {best} is missing.")
    content = torch.load(best, map_location="cpu", weights_only=True)
    save_weights(content["model"], weights)
    load_weights(network, weights)
    ranges = measure_ranges(network.cpu(), slices, explainers)
    write_calibration(ranges, weights)
    report = {
        **facts,
        "best_epoch": content["epoch"],
        "validation": content["metrics"],
        "calibration": {name: list(ends) for name, ends in ranges.items()},
    }
    text = json.dumps(report, indent=2) + "\n"
    with write_atomically(best.with_name("training.json")) as draft:
        draft.write_text(text, encoding="utf-8")
    print(f"{text}Weights: {weights}")
    return report


def load_best(best: str | Path, network: nn.Module) -> nn.Module:
    """Fill a network with the best checkpoint of its run, and return it."""
    network.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["model"])
    return network


def save_whole(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint first beside its place, then in place."""
    written = io.BytesIO()  # torch.save reports a full disk as any RuntimeError, a file does not
    torch.save(content, written)
    with write_atomically(path) as draft:
        draft.write_bytes(written.getbuffer())
