"""Random geometry and contrast for a whole batch of slices at once.

MONAI's random transforms work sample by sample through MetaTensors, which costs more
than the training step itself on slices of 128 x 128; one `grid_sample` over the batch
costs about a tenth of it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from heatmask.errors import OptionError


@dataclass(frozen=True)
class Augmentation:
    """Augment a batch (B, C, H, W) of non-negative slices whose tissue lies near 1.

    Or of blocks (B, C, H, W, D) of D slices, each moved like the others. A channel of zeros beside
    others is a sequence that is absent, and stays so.

    Attributes
    ----------
    rotation_deg, scale, shift
        Uniform ranges around no change: degrees, factor - 1, share of the field of view.
    flip
        Mirror along the first in-plane axis (left-right after orientation to RAS) at random.
    gamma, gain
        Contrast exponent and factor of each channel, uniform in [1 / (1 + v), 1 + v] on a log
        scale.
    noise
        Upper bound of the standard deviation of added Gaussian noise.
    channel_dropout
        Probability that of the channels an image has only one, drawn evenly, is kept.
    """

    rotation_deg: float = 20.0
    scale: float = 0.15
    shift: float = 0.06
    flip: bool = True
    gamma: float = 0.4
    gain: float = 0.25
    noise: float = 0.05
    channel_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.channel_dropout <= 1:
            raise OptionError(f"channel_dropout must be 0 to 1, got {self.channel_dropout!r}.")

    def __call__(self, images: Tensor) -> Tensor:
        """Return an augmented copy; drawn from torch's global generator."""
        moved = self._move(images)
        exponent = _draw_log_uniform(images, self.gamma)
        gain = _draw_log_uniform(images, self.gain)
        sigma = self.noise * torch.rand(len(images), *[1] * (images.ndim - 1))
        contrasted = gain * moved.clamp_min(0) ** exponent
        noisy = (contrasted + sigma * torch.randn_like(moved)).clamp_min(0)
        kept = self._draw_channels(images)
        return noisy * kept.view(*kept.shape, *[1] * (images.ndim - 2))

    def _move(self, images: Tensor) -> Tensor:
        """Move the slices; those of a block are channels of one image."""
        depth = images.shape[4:]
        flat = images.movedim(4, 2).flatten(1, 2) if depth else images
        grid = F.affine_grid(self._draw_affines(len(flat)), list(flat.shape), False)
        moved = F.grid_sample(flat, grid, align_corners=False)
        return moved.unflatten(1, (-1, *depth)).movedim(2, 4) if depth else moved

    def _draw_channels(self, images: Tensor) -> Tensor:
        """Which channels (B, C) of each image stay."""
        present = images.flatten(2).any(-1)
        present |= ~present.any(1, keepdim=True)  # an empty slice, and no absent sequence
        if self.channel_dropout == 0:
            return present
        # Absent channels draw below all others, so that the highest is one that is there.
        drawn = torch.where(present, torch.rand(present.shape), -1.0).argmax(1)
        alone = F.one_hot(drawn, present.shape[1]).bool()
        dropped = torch.rand(len(images), 1) < self.channel_dropout
        return torch.where(dropped, alone, present)

    def _draw_affines(self, count: int) -> Tensor:
        angle = math.radians(self.rotation_deg) * (2 * torch.rand(count) - 1)
        zoom = 1 + self.scale * (2 * torch.rand(count, 2) - 1)
        # grid_sample's x axis is the last one; the first in-plane axis is its y.
        mirror = torch.where(torch.rand(count) < 0.5 * self.flip, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        rows = torch.stack([cos / zoom[:, 0], -sin, sin, cos / zoom[:, 1]], dim=1).view(-1, 2, 2)
        rows[:, 1] *= mirror[:, None]
        shift = 2 * self.shift * (2 * torch.rand(count, 2, 1) - 1)
        return torch.cat([rows, shift], dim=2)


def _draw_log_uniform(images: Tensor, spread: float) -> Tensor:
    """One factor for each image and channel."""
    exponent = 2 * torch.rand(*images.shape[:2], *[1] * (images.ndim - 2)) - 1
    return torch.as_tensor(1 + spread) ** exponent
