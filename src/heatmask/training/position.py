"""Keep a slice classifier from learning where in the stack a slice lies.

In most volumes tumours sit in the middle slices, so that position alone predicts the
label well, and a network that learns position points nowhere. During training the
log-odds of each class at this height of the stack is added to the network's logit, so that
the network has only the rest to explain. At inference nothing is added.

Labels are those of the mask: 0 for no finding, k + 1 for class k. No finding has no logit of
its own: its logit is 0, as it is for one class and a sigmoid, which is the softmax over 0 and
that class's logit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionPrior:
    """Log-odds of each class at each relative height of the stack.

    Parameters
    ----------
    positions, labels
        Relative positions in [0, 1] and labels (0 for no finding, k + 1 for class k) of the
        training slices. With one class a label may be a share, such as one half.
    bins
        Number of equal bins over [0, 1].
    num_classes
        Number of logits K.
    negatives
        Whether there are slices without finding. The odds are against them; without them,
        against all classes together.
    class_weights
        Of the labels, as in `PositionOffsetLoss`: a slice counts as many times.

    Notes
    -----
    Each bin counts half a slice of each label more than it holds (Jeffreys' prior), so that
    empty and one-sided bins stay finite.
    """

    def __init__(
        self,
        positions: Sequence[float] | Tensor,
        labels: Sequence[float] | Tensor,
        bins: int = 20,
        num_classes: int = 1,
        negatives: bool = True,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        at = torch.as_tensor(positions, dtype=torch.float32)
        label = torch.as_tensor(labels, dtype=torch.float32)
        self.bins = bins
        shares = _share_labels(label, num_classes)
        counts = torch.zeros(bins, num_classes + 1).index_add_(0, self._to_bin(at), shares) + 0.5
        if class_weights is not None:
            counts[:, 0 if negatives else 1 :] *= torch.as_tensor(class_weights)
        present = counts[:, 1:]
        self.log_odds = (present / (counts[:, :1] if negatives else present.sum(1, True))).log()

    def __call__(self, positions: Tensor | Sequence[float]) -> Tensor:
        """Return the log-odds (..., K), float32, of positions (...)."""
        return self.log_odds[self._to_bin(torch.as_tensor(positions, dtype=torch.float32))]

    def _to_bin(self, positions: Tensor) -> Tensor:
        return (positions * self.bins).long().clamp(0, self.bins - 1)


def make_prior(
    positions: Tensor, labels: Tensor, num_classes: int = 1, negatives: bool = True
) -> PositionPrior:
    """Return the log-odds of training slices, each label weighing the same in total."""
    weights = balance_classes(labels, num_classes, negatives)
    return PositionPrior(
        positions, labels, num_classes=num_classes, negatives=negatives, class_weights=weights
    )


def _share_labels(label: Tensor, num_classes: int) -> Tensor:
    """What each label counts for no finding and for each class: (N, K + 1)."""
    if num_classes == 1:
        return torch.stack([1 - label, label], dim=1)
    return F.one_hot(label.long(), num_classes + 1).float()


class PositionOffsetLoss(nn.Module):
    """Cross-entropy on ``logit + offset``: binary for one class, weighted for several.

    The target is (B, 1 + K): the label (0 for no finding, k + 1 for class k) and the offset of
    each class, as one tensor because MONAI's trainer hands a loss one target. A target (B, 1)
    has no offsets.

    Parameters
    ----------
    class_weights
        For several classes: weight of a slice by its label, that of no finding first where
        there are `negatives`. The loss is the mean over the slices, not over the weights, so
        that a mean over batches is that over all slices. None weighs all alike.
    negatives
        For several classes: whether a slice may show none of them; that has the logit 0.
    label_smoothing
        Share of a label that all of them have in equal parts.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        negatives: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.as_tensor(class_weights).float()
        self.negatives = negatives
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits (B, K) against target (B, 1) or (B, 1 + K)."""
        label, offset = target[:, :1], target[:, 1:]
        shifted = logits.float() + offset if offset.shape[1] else logits.float()
        if logits.shape[1] == 1:
            label = label * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(shifted, label)
        scores = add_none_logit(shifted) if self.negatives else shifted
        index = label[:, 0].long() - int(not self.negatives)
        losses = F.cross_entropy(
            scores, index, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.class_weights is not None:
            losses = losses * self.class_weights.to(losses.device)[index]
        return losses.mean()


def add_none_logit(logits: Tensor) -> Tensor:
    """Return logits (B, K + 1): 0 for no finding, then those of the classes."""
    return F.pad(logits, (1, 0))


def balance_classes(
    labels: Tensor, num_classes: int, negatives: bool = True
) -> tuple[float, ...] | None:
    """Return the class weights that make each label count the same in total.

    Parameters
    ----------
    labels
        Of the training slices: 0 for no finding, k + 1 for class k.
    num_classes, negatives
        As in `PositionPrior`. One class has no weights.

    Returns
    -------
    tuple of float or None
        The mean over the training slices is 1.
    """
    if num_classes == 1:
        return None
    counts = torch.bincount(labels.long(), minlength=num_classes + 1)[0 if negatives else 1 :]
    weights = len(labels) / (counts.clamp_min(1) * counts.count_nonzero())
    return tuple(weights.tolist())
