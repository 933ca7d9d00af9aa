"""Intensities on a scale that means the same on every scan."""

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import Tensor

from heatmask.data.background import zero_channels
from heatmask.percentile import find_percentile
from heatmask.transforms.each import EachVolumed


class ZeroBackgroundd(EachVolumed):
    """Shift each channel of a volume (C, X, Y, Z) so that air is 0, as in most MR images.

    `heatmask.data.load.LoadSequencesd` does it by itself; bundles that were trained with Heatmask
    0.1 name the step.
    """

    def change(self, volume: MetaTensor) -> MetaTensor:
        """Return the shifted volume."""
        return zero_channels(volume)


class NormalizeHeadd(EachVolumed):
    """Scale intensities so that the head's median is 1, the background 0 and the top 4.

    The head is what lies above a fifth of the 99th percentile of the non-zero voxels. A
    scan with negative values (z-normalised) is first shifted so that its lowest voxel is 0,
    and exact zeros, its background, stay 0. A scan without any signal stays zero.
    """

    top = 4.0

    def change(self, volume: Tensor) -> Tensor:
        """Return the normalised volume (C, X, Y, Z), each channel on its own."""
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        scaled = torch.stack([self._normalize_channel(channel) for channel in plain.float()])
        return convert_to_dst_type(scaled, volume, dtype=torch.float32)[0]

    def _normalize_channel(self, channel: Tensor) -> Tensor:
        if channel.min() < 0:
            channel = torch.where(channel != 0, channel - channel.min(), 0.0)
        sample = channel.numpy(force=True)
        sample = sample[sample > 0]  # several times faster than torch's selection
        if sample.size == 0:
            return channel
        head = sample[sample > 0.2 * find_percentile(sample, 99)]
        return (channel / float(np.median(head))).clamp_(0, self.top)


class ScaleByPercentilesd(EachVolumed):
    """Scale intensities so that the 1st percentile becomes 0 and the 99.5th 1, and clip.

    For images of anything, and a volume as a whole. `monai.transforms` has
    ``ScaleIntensityRangePercentilesd``, which leaves a channel unscaled where the two percentiles
    are one number. Here what is brighter than it becomes 1.
    """

    low, high = 1.0, 99.5

    def change(self, volume: Tensor) -> Tensor:
        """Return the scaled volume (C, X, Y, Z), each channel on its own."""
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        scaled = torch.stack([self._scale_channel(channel) for channel in plain.float()])
        return convert_to_dst_type(scaled, volume, dtype=torch.float32)[0]

    def _scale_channel(self, channel: Tensor) -> Tensor:
        values = channel.flatten().numpy(force=True)
        low, high = (find_percentile(values, percent) for percent in (self.low, self.high))
        span = max(high - low, 1e-6 * max(abs(high), 1e-6))
        return ((channel - low) / span).clamp_(0, 1)
