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


@dataclass(frozen=True)
class Augmentation:
    """Augment a batch (B, C, H, W) of non-negative slices whose tissue lies near 1.

    Attributes
    ----------
    rotation_deg, scale, shift
        Uniform ranges around no change: degrees, factor - 1, share of the field of view.
    flip
        Mirror along the first in-plane axis (left-right after orientation to RAS) at random.
    gamma, gain
        Contrast exponent and factor, uniform in [1 / (1 + v), 1 + v] on a log scale.
    noise
        Upper bound of the standard deviation of added Gaussian noise.
    """

    rotation_deg: float = 20.0
    scale: float = 0.15
    shift: float = 0.06
    flip: bool = True
    gamma: float = 0.4
    gain: float = 0.25
    noise: float = 0.05

    def __call__(self, images: Tensor) -> Tensor:
        """Return an augmented copy; drawn from torch's global generator."""
        grid = F.affine_grid(self._draw_affines(len(images)), list(images.shape), False)
        moved = F.grid_sample(images, grid, align_corners=False)
        exponent = _draw_log_uniform(len(images), self.gamma)
        gain = _draw_log_uniform(len(images), self.gain)
        sigma = self.noise * torch.rand(len(images), 1, 1, 1)
        contrasted = gain * moved.clamp_min(0) ** exponent
        return (contrasted + sigma * torch.randn_like(moved)).clamp_min(0)

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


def _draw_log_uniform(count: int, spread: float) -> Tensor:
    exponent = 2 * torch.rand(count, 1, 1, 1) - 1
    return torch.as_tensor(1 + spread) ** exponent
