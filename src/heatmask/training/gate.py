"""Train a network's gate, the finding itself, after its classifier has learnt the kinds."""

from pathlib import Path

import torch

from heatmask.networks.gated_cnn import GatedCNN


def start_gate(network: GatedCNN, best: str | Path) -> torch.nn.Module:
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


def join_gate(folder: str | Path) -> Path:
    """Put the best gate of a run into the best classifier; return the checkpoint of both.

    Parameters
    ----------
    folder
        The run's, with the classifier's ``best.pt``, and the gate's in ``gate``. The metrics of the
        gate are called ``gate_...``.
    """
    folder = Path(folder)
    kinds, gate = (
        torch.load(path / "best.pt", map_location="cpu", weights_only=True)
        for path in (folder, folder / "gate")
    )
    kinds["model"] |= {f"gate.{name}": value for name, value in gate["model"].items()}
    kinds["metrics"] |= {f"gate_{name}": value for name, value in gate["metrics"].items()}
    path = folder / "joined.pt"
    torch.save(kinds, path)
    return path
