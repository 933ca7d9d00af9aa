"""Keep a slice classifier from learning where in the stack a slice lies.

In most volumes tumours sit in the middle slices, so that position alone predicts the
label well, and a network that learns position points nowhere. During training the
log-odds of "tumour at this height of the stack" is added to the network's logit, so that
the network has only the rest to explain. At inference nothing is added.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.errors import InputError


class PositionPrior:
    """Log-odds of a positive slice at each relative height of the stack.

    Parameters
    ----------
    positions, labels
        Relative positions in [0, 1] and labels (0 or 1) of the training slices.
    bins
        Number of equal bins over [0, 1].

    Notes
    -----
    Each bin counts half a positive and half a negative slice more than it holds (Jeffreys'
    prior), so that empty and one-sided bins stay finite.
    """

    def __init__(self, positions: Sequence[float], labels: Sequence[int], bins: int = 20) -> None:
        at = torch.as_tensor(positions, dtype=torch.float32)
        label = torch.as_tensor(labels, dtype=torch.float32)
        if at.shape != label.shape or at.numel() == 0:
            raise InputError(
                "The position prior needs one label for each position and at least one, "
                f"got {tuple(at.shape)} positions and {tuple(label.shape)} labels."
            )
        self.bins = bins
        index = self._to_bin(at)
        positive = torch.bincount(index, label, bins) + 0.5
        negative = torch.bincount(index, 1 - label, bins) + 0.5
        self.log_odds = (positive / negative).log()

    def __call__(self, positions: Tensor | Sequence[float]) -> Tensor:
        """Return the log-odds, float32, in the shape of `positions`."""
        return self.log_odds[self._to_bin(torch.as_tensor(positions, dtype=torch.float32))]

    def _to_bin(self, positions: Tensor) -> Tensor:
        return (positions * self.bins).long().clamp(0, self.bins - 1)


class PositionOffsetLoss(nn.Module):
    """Binary cross-entropy on ``logit + offset``.

    The target is (B, 2): the label and the offset of each slice, as one tensor because
    MONAI's trainer hands a loss one target. Without offset (zeros) it is the plain loss.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits (B, 1) against target (B, 2)."""
        label, offset = target[:, :1], target[:, 1:]
        return F.binary_cross_entropy_with_logits(logits.float() + offset, label)
