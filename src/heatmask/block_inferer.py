"""From a volume to a heatmap with a network in 3D, by blocks of neighbouring slices.

MONAI's `sliding_window_inference` blends maps but not logits, and takes no attribution method.
"""

from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution.batches import classify_in_batches
from heatmask.attribution.explainer import Explanation
from heatmask.device import use_full_float32
from heatmask.errors import InputError
from heatmask.inferer import HeatmapInferer
from heatmask.options import option


@dataclass(eq=False)
class BlockInferer(HeatmapInferer):
    """Explain a 3D classifier's decision on overlapping blocks of slices, and blend.

    A slice's logits and heatmap are the means over the blocks that hold it, each weighted by how
    deep inside of the block the slice lies. Everything else is as in `HeatmapInferer`; a batch is
    one of blocks. All-zero slices at the ends of a volume, or in between, are left out first.

    Volumes of another `slice_spacing_mm`, by their affine, are brought to it, thin slices by their
    mean; each slice of the volume then gets what the nearest of these got.

    Raises
    ------
    InputError
        On call, if a volume is thinner than a block.
    """

    block_slices: int | None = option(
        4, "Slices a block; None for one block with all of them.", low=1, optional=True
    )
    whole_volume: bool = option(
        False, "One block with all slices in place of several.", in_panel=True
    )
    overlap: float = option(
        0.5, "Share of a block that the next one repeats.", low=0.0, high=0.9, in_panel=True
    )
    slice_spacing_mm: float | None = option(
        None,
        "Distance of the slices that the network was trained on; None leaves them as they are.",
        low=1e-3,
        optional=True,
    )

    @use_full_float32()
    def __call__(
        self, inputs: Tensor, network: nn.Module, *args: object, **kwargs: object
    ) -> dict[str, Tensor]:
        """Explain volumes (B, C, X, Y, Z); see `HeatmapInferer`."""
        if self.slice_spacing_mm is None or not isinstance(inputs, MetaTensor) or inputs.ndim != 5:
            return super().__call__(inputs, network)
        axis, count = self.slice_axis + 2, inputs.shape[self.slice_axis + 2]
        spacing_mm = float(np.ravel(inputs.pixdim[..., self.slice_axis])[0])
        wanted = max(1, round(count * spacing_mm / self.slice_spacing_mm))
        if wanted == count:
            return super().__call__(inputs, network)
        out = super().__call__(resample_slices(inputs.as_tensor(), axis, wanted), network)
        nearest = (torch.arange(count, device=inputs.device) + 0.5) * (wanted / count)
        nearest = nearest.long().clamp_max(wanted - 1)
        heatmap = out.pop("heatmap").index_select(axis, nearest)
        by_slice = ("shown", "predicted", "slice_probabilities")
        out |= {name: out[name].index_select(1, nearest) for name in by_slice}
        return {"heatmap": convert_to_dst_type(heatmap, inputs, dtype=torch.float32)[0], **out}

    def _get_image_shape(self, slices: Tensor) -> torch.Size:
        return torch.Size([*slices.shape[1:], self._get_depth(slices)])

    def _classify(self, slices: Tensor, network: nn.Module) -> Tensor:
        blocks, members = self._cut(slices)
        logits = classify_in_batches(network, blocks, self.batch_size, self.max_memory_gb)
        depth = members.shape[1]
        return blend(logits[:, None].expand(-1, depth, -1), members, len(slices))

    def _explain(self, slices: Tensor, network: nn.Module, chosen: Tensor) -> Explanation:
        blocks, members = self._cut(slices)
        needed = chosen[members].any(dim=1)
        blocks, members = blocks[needed], members[needed]
        logits, attribution = self._explain_images(blocks, network)
        depth = members.shape[1]
        return Explanation(
            blend(logits[:, None].expand(-1, depth, -1), members, len(slices))[chosen],
            blend(attribution.movedim(-1, 1), members, len(slices))[chosen],
        )

    def _get_depth(self, slices: Tensor) -> int:
        return len(slices) if self.whole_volume else self.block_slices or len(slices)

    def _cut(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the blocks (M, C, H, W, depth) of slices, and which slices each holds."""
        depth = self._get_depth(slices)
        if len(slices) < depth:
            raise InputError(
                f"A volume must have at least as many slices that are not all zero as a block, "
                f"{depth}; got {len(slices)}. Give the whole volume, or a bundle for single slices."
            )
        step = max(1, round(depth * (1 - self.overlap)))
        starts = [*range(0, len(slices) - depth, step), len(slices) - depth]
        members = torch.tensor(starts, device=slices.device)[:, None]
        members = members + torch.arange(depth, device=slices.device)
        return slices[members].movedim(1, -1), members


def resample_slices(volumes: Tensor, axis: int, count: int) -> Tensor:
    """Return volumes with another number of slices along an axis, of the same extent.

    Fewer are the means of those that they take the place of; more are interpolated linearly.
    """
    lines = volumes.float().movedim(axis, -1)
    flat = lines.flatten(0, -2)[:, None]
    mode = "area" if count < lines.shape[-1] else "linear"
    resampled = F.interpolate(flat, size=count, mode=mode)
    return resampled.view(*lines.shape[:-1], count).movedim(-1, axis)


def blend(values: Tensor, members: Tensor, count: int) -> Tensor:
    """Return the weighted means (count, ...) of values (M, depth, ...) of slices `members`.

    Parameters
    ----------
    values
        What each block says of each of its slices.
    members
        (M, depth), indices of the slices of each block, which lie side by side. The weights rise
        by one from a block's ends to its middle. Slices in no block get 0.
    """
    depth = members.shape[1]
    from_first = torch.arange(1, depth + 1, device=values.device)
    weights = torch.minimum(from_first, from_first.flip(0)).to(values.dtype)
    shape = (1, depth, *[1] * (values.ndim - 2))
    total = values.new_zeros(count, *values.shape[2:])
    total.index_add_(0, members.flatten(), (values * weights.view(shape)).flatten(0, 1))
    mass = values.new_zeros(count).index_add_(0, members.flatten(), weights.repeat(len(members)))
    return total / mass.clamp_min(1).view(-1, *[1] * (values.ndim - 2))
