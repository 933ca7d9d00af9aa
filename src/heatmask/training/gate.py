"""Train a network's gate, the finding itself, after its classifier has learnt the kinds."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from monai.transforms import Compose
from sklearn.linear_model import LogisticRegression
from torch import nn

from heatmask.networks.gated_cnn import Gate, GatedCNN
from heatmask.options import check_options, option, take_part
from heatmask.parts import Options
from heatmask.training.checkpoints import save_whole
from heatmask.training.parts import make_objective, read_labels
from heatmask.training.settings import LabelSettings
from heatmask.training.slices import SliceDataset
from heatmask.training.trainer import ResumableTrainer


@dataclass(frozen=True)
class GateSettings:
    """How the gate learns; `gate_dir` holds volumes with slice labels."""

    gate_dir: str | None = None
    gate_epochs: int = option(16, "Passes over the gate's images.", low=1)
    gate_channel_dropout: float = option(0.6, "As `channel_dropout`, for the gate.")

    def __post_init__(self) -> None:
        check_options(self)


def train_gate(
    options: Options, trainer: ResumableTrainer, network: GatedCNN, preprocessing: Compose
) -> Path:
    """Train the gate of a network whose classifier `trainer` has trained.

    Returns
    -------
    Path
        The checkpoint of both; the classifier's alone for a network without a gate.
    """
    folder, best = trainer.folder, trainer.folder / "best.pt"
    if not hasattr(network, "gate"):
        return best
    own = take_part(GateSettings, options)
    size = take_part(LabelSettings, options).image_size
    volumes = read_labels({"dataset_dir": own.gate_dir, "sequences": options["sequences"]})
    data, validation = (SliceDataset(volumes(s), preprocessing, size) for s in ("train", "val"))
    settings = replace(
        trainer.settings,
        max_epochs=own.gate_epochs,
        channel_dropout=own.gate_channel_dropout,
        position_offset=True,
        negatives=True,
    )
    gate, objective = (
        start_gate(network, best).to(trainer.state.device),
        make_objective(settings, data),
    )
    record = {"kinds": trainer.record, **asdict(own)}
    ResumableTrainer(
        gate, data, validation, objective, settings, folder / "gate", record, trainer.inferer
    ).run()
    return join_gate(folder, network, data)


def start_gate(network: GatedCNN, best: str | Path) -> nn.Module:
    """Fill a network with the best checkpoint of its classifier's run; return its gate.

    The gate's CNN for the first sequence alone takes over the classifier's stages, as far as it
    has them. Few training patients may have that sequence with slices without a finding, many
    images of it may show one: what a lesion looks like is learnt from those.
    """
    content = torch.load(best, map_location="cpu", weights_only=True)["model"]
    network.load_state_dict(content)
    alone = network.gate.alone
    stages = {name for name, _ in alone.named_children() if name.startswith("stage")}
    learnt = network.classifier.state_dict()
    alone.load_state_dict(
        {name: value for name, value in learnt.items() if name.split(".")[0] in stages},
        strict=False,
    )
    return network.gate


def join_gate(folder: str | Path, network: GatedCNN, slices: SliceDataset) -> Path:
    """Join the best gate of a run to the best classifier, and fit what no gradient reaches.

    Parameters
    ----------
    folder
        The run's, with the classifier's ``best.pt``, and the gate's in ``gate``.
    network
        Filled with both.
    slices
        The gate's training slices.

    Returns
    -------
    Path
        The checkpoint of the whole. The metrics of the gate are called ``gate_...`` there.
    """
    folder = Path(folder)
    kinds, gate = (
        torch.load(path / "best.pt", map_location="cpu", weights_only=True)
        for path in (folder, folder / "gate")
    )
    network.cpu().load_state_dict(kinds["model"])
    network.gate.load_state_dict(gate["model"])
    fit_alone(network.gate, slices)
    metrics = {f"gate_{name}": value for name, value in gate["metrics"].items()}
    joined = {
        **kinds,
        "model": network.state_dict(),
        "metrics": {**kinds["metrics"], **metrics},
    }
    path = folder / "joined.pt"
    save_whole(joined, path)
    return path


@torch.no_grad()
def fit_alone(gate: Gate, slices: SliceDataset, penalty: float = 1000.0) -> None:
    """Fit the last layer of the gate's CNN for the first sequence alone, in place.

    A logistic regression on the pooled features, both labels weighing the same. It is fitted to the
    slices that have the sequence; without any, or with one label alone, the layer stays as it is.

    Parameters
    ----------
    penalty
        Of the squared weights for features of unit variance. The default ranks best the slices of
        each LGG training or validation patient with T1-Gd by a fit to the other seven.
    """
    first = slices.images[:][:, :1]
    there = first.flatten(1).any(dim=1)
    labels = slices.labels[there].round().int().numpy()
    if len(set(labels.tolist())) < 2:
        return
    alone = gate.alone.cpu().eval()
    pooled = nn.Sequential(*(part for name, part in alone.named_children() if name != "fc"))
    batches = [pooled(batch.float()) for batch in first[there].split(32)]
    features = torch.cat(batches).double()
    scale, centre = features.std(dim=0).clamp_min(1e-6), features.mean(dim=0)
    fit = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=1000)
    fit.fit(((features - centre) / scale).numpy(), labels)
    weights = torch.from_numpy(fit.coef_) / scale
    last = cast(nn.Linear, alone.get_submodule("fc"))
    last.weight.copy_(weights)
    last.bias.copy_(torch.from_numpy(fit.intercept_) - weights @ centre)
