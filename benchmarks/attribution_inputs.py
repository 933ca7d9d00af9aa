"""What the attribution benchmarks run on: networks, images, and how many of them where."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from heatmask.networks.resnet import make_resnet


@dataclass(frozen=True)
class Plan:
    """How much is measured on a device; ratios hardly depend on it, time and memory do.

    Attributes
    ----------
    repeats : int
        Pairs of measurements a row.
    slices, side : int
        Slices of side x side pixels for the rows beside their lower bound.
    volume_side : int
        Voxels along each axis of the one volume for the rows in 3D.
    many_side : int
        The same, for the rows that run the network dozens of times.
    scan_slices, empty_slices : int
        Of the volume explained beside the usual way, slice by slice.
    steps : int
        Of integrated gradients and SmoothGrad.
    windows_per_batch : int
        Of occlusion.
    widen_factor : float
        Of the networks; 1 is the full width.
    """

    device: str
    repeats: int
    slices: int
    side: int = 240
    volume_side: int = 96
    many_side: int = 96
    scan_slices: int = 155
    empty_slices: int = 17
    steps: int = 8
    windows_per_batch: int = 32
    widen_factor: float = 1.0


CPU = Plan(
    "cpu", 3, slices=4, many_side=48, scan_slices=9, empty_slices=1, windows_per_batch=8
)  # fmt: skip
CUDA = Plan("cuda", 11, slices=64)
QUICK = replace(
    CPU, repeats=1, slices=2, side=32, volume_side=32, many_side=32, scan_slices=3, steps=2,
    widen_factor=0.0625,
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """An untrained ResNet-18 and synthetic heads for it.

    Attributes
    ----------
    network : nn.Module
        As a user has it: its parameters want gradients.
    images : Tensor
        (B, 1, *spatial).
    """

    network: nn.Module
    images: Tensor

    @property
    def name(self) -> str:
        """Network, images and device, for the table's title."""
        size = " x ".join(map(str, self.images.shape[2:]))
        count, dims = len(self.images), self.images.ndim - 2
        what = "volume" if dims == 3 else "slice"
        plural = "s" if count > 1 else ""
        return f"ResNet-18 {dims}D, {count} {what}{plural} of {size}, {self.images.device.type}"

    @cached_property
    def frozen(self) -> nn.Module:
        """A copy whose parameters want no gradients, for the lower bound."""
        return copy.deepcopy(self.network).requires_grad_(False)


def make_subject(plan: Plan, count: int, side: int, dims: int, num_classes: int = 3) -> Subject:
    """Return a network and `count` images of side^dims, on the plan's device."""
    torch.manual_seed(0)
    network = make_resnet(
        18, spatial_dims=dims, num_classes=num_classes, widen_factor=plan.widen_factor
    )
    return Subject(network.to(plan.device).eval(), draw_heads(count, side, dims).to(plan.device))


def draw_heads(count: int, side: int, dims: int) -> Tensor:
    """Return textured ellipsoids (count, 1, *spatial) on a background of zeros."""
    axis = torch.linspace(-1, 1, side)
    grid = torch.meshgrid([axis / radius for radius in (0.9, 0.7, 0.8)[:dims]], indexing="ij")
    head = torch.stack(grid).square().sum(0) < 1
    generator = torch.Generator().manual_seed(0)
    return head * (0.5 + torch.rand(count, 1, *head.shape, generator=generator))
