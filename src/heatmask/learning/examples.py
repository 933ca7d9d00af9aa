"""What is learnt from: slices with their masks, as far as these are known, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Examples:
    """Slices of one scan or of many.

    Attributes
    ----------
    images
        (N, C, H, W), float16.
    masks
        (N, 1, H, W), bool: a person's correction, or a pseudo-mask. Empty where the label says so.
    attributions
        (N, 1, H, W), float16 in [0, 1]: where the classifier looks, 0 where the label is 0.
    labels
        (N,), float: 1 where the slice holds the finding.
    labelled
        (N,), bool: the label is a person's, and not what the bundle predicts.
    positions
        (N,), float in [0, 1]: height in the stack.
    corrected
        (N,), bool: the mask is a person's.
    """

    images: Tensor
    masks: Tensor
    attributions: Tensor
    labels: Tensor
    labelled: Tensor
    positions: Tensor
    corrected: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def certain(self) -> Tensor:
        """(N,), bool: the mask is known: a person's, or none by the label."""
        return self.corrected | (self.labelled & (self.labels == 0))

    def select(self, chosen: Tensor) -> "Examples":
        """Return the slices at some indices, or where a mask (N,) is true."""
        return Examples(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def weigh(self, corrected_share: float) -> Tensor:
        """Return how often each slice is drawn, (N,): corrected ones with a share of all."""
        corrected = self.corrected.float()
        if corrected.all() or not corrected.any():
            return torch.ones(len(self))
        other = 1 - corrected
        return corrected_share * corrected / corrected.sum() + (1 - corrected_share) * (
            other / other.sum()
        )


def join_examples(parts: Sequence[Examples]) -> Examples:
    """Return the slices of several scans as one."""
    return Examples(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Examples)))
