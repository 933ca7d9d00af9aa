"""Attribution as an augmentation of a supervised network."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttributionAugmentation:
    """Fuse images with the attribution of a classifier.

    After Wu et al. (2024), who fuse an image with the Grad-CAM features of a classifier that was
    trained on image-level labels, and let the supervised network see both. Theirs is a fixed copy
    of each image; here the strength is drawn anew each time, and anatomy stays visible because the
    attribution scales the image and does not replace it. At inference nothing is fused.

    Attributes
    ----------
    probability
        How often an image is fused.
    strength
        The highest factor, less 1, where the attribution is 1.
    """

    probability: float = 0.5
    strength: float = 1.0

    def __call__(self, images: Tensor, attributions: Tensor) -> Tensor:
        """Return images (B, C, H, W), some fused with attributions (B, 1, H, W) in [0, 1]."""
        drawn = torch.rand(len(images), 1, 1, 1) < self.probability
        strength = self.strength * torch.rand(len(images), 1, 1, 1) * drawn
        return images * (1 + strength * attributions)
