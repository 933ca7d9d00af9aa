"""How well a slice classifier of one class or several does, on all slices of an epoch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.metrics import EpochMetric
from numpy.typing import NDArray
from rich.progress import track
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from heatmask.errors import OptionError
from heatmask.training.position import add_none_logit
from heatmask.training.slices import SliceDataset

Labels = NDArray[np.int64]


class SliceScore(EpochMetric):
    """A score of logits (N, K) against labels, over all slices of an epoch.

    Parameters
    ----------
    score
        ``"auroc"``: the mean over the classes of one class against all other slices, by its
        probability; classes that no slice has, or all, are left out. ``"macro_f1"``: the mean
        over the labels that occur, no finding included. ``"accuracy"``.
    negatives
        Whether a slice may show none of several classes (see `heatmask.training.position`).
    output_transform
        From the engine's output to logits (B, K) and targets (B, ...), whose first column is
        the label: 0 for no finding, k + 1 for class k. A share of one class counts as 1.
    """

    def __init__(
        self, score: str, negatives: bool = True, output_transform: Callable[[Any], Any] = tuple
    ) -> None:
        if score not in _SCORES:
            raise OptionError(f"score must be one of {', '.join(_SCORES)}, got {score!r}.")
        compute = partial(_score, _SCORES[score], negatives)
        super().__init__(compute, output_transform, check_compute_fn=False)


def score_slices(
    network: nn.Module, slices: SliceDataset, negatives: bool = True, batch_size: int = 32
) -> dict[str, float]:
    """Return every score of a classifier on labelled slices, by name.

    The network is used as it is, on the device where it is; its mode is left in evaluation.
    """
    logits = classify_slices(network, slices, "Scoring test images", batch_size)
    return score_logits(logits, slices.labels, negatives)


def classify_slices(
    network: nn.Module, slices: SliceDataset, title: str, batch_size: int = 32
) -> Tensor:
    """Return a classifier's logits (N, K) of slices; see `score_slices`."""
    network.eval()
    device = next(network.parameters()).device
    batches = DataLoader(slices, batch_size=batch_size)
    with torch.no_grad():
        logits = [
            network(batch["image"].to(device)).float().cpu()
            for batch in track(batches, title, total=len(batches))
        ]
    return torch.cat(logits)


def score_logits(logits: Tensor, labels: Tensor, negatives: bool = True) -> dict[str, float]:
    """Return every score of logits (N, K) against labels (N), by name."""
    found = logits, labels[:, None]
    return {name: _score(score, negatives, *found) for name, score in _SCORES.items()}


def compute_probabilities(logits: Tensor, negatives: bool = True) -> Tensor:
    """Return the probabilities (N, K + 1) of no finding and of each class.

    Without `negatives` that of no finding is 0. One class always has negatives.
    """
    if negatives or logits.shape[1] == 1:
        return add_none_logit(logits).softmax(1)
    return nn.functional.pad(logits.softmax(1), (1, 0))


def _score(
    score: Callable[[Tensor, Labels], float], negatives: bool, logits: Tensor, target: Tensor
) -> float:
    # ignite drops an axis of length 1.
    logits, target = (t.reshape(len(t), -1).cpu() for t in (logits, target))
    probabilities = compute_probabilities(logits.float(), negatives)
    return float(score(probabilities, target[:, 0].ceil().long().numpy()))


def _score_auroc(probabilities: Tensor, labels: Labels) -> float:
    ranked = [k for k in range(1, probabilities.shape[1]) if 0 < (labels == k).mean() < 1]
    values = [roc_auc_score(labels == k, probabilities[:, k].numpy()) for k in ranked]
    return float(np.mean(values)) if values else float("nan")


def _score_macro_f1(probabilities: Tensor, labels: Labels) -> float:
    predicted = probabilities.argmax(1).numpy()
    return f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)


def _score_accuracy(probabilities: Tensor, labels: Labels) -> float:
    return accuracy_score(labels, probabilities.argmax(1).numpy())


_SCORES: dict[str, Callable[[Tensor, Labels], float]] = {
    "auroc": _score_auroc,
    "macro_f1": _score_macro_f1,
    "accuracy": _score_accuracy,
}
