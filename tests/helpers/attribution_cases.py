"""Networks, images and comparisons that the tests of the attribution methods share."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from heatmask import attribution
from heatmask.attribution.frozen import copy_frozen

explain = partial(attribution.explain, check=False)  # the checks have tests of their own

SIZES = {1: (11,), 2: (5, 6), 3: (3, 4, 2)}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def attribute(
    network: nn.Module, images: Tensor, name: str, class_idx: Any = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Call a method as the explainer does, but keep its resolution and float64."""
    return attribution.get_method(name).function(copy_frozen(network), images, class_idx, **options)


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-9) -> None:
    """Within this share of the largest magnitude, which is not zero."""
    largest = expected.abs().max().item()
    assert found.shape == expected.shape
    assert largest > 0
    assert (found - expected).abs().max().item() <= relative * largest


def draw_images(dims: int, count: int = 3, channels: int = 2, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, *SIZES[dims])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def randomise(network: nn.Module, seed: int = 1) -> nn.Module:
    """Give every batch norm statistics and weights of its own, as training would."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


class Hidden(nn.Module):
    """One hidden layer: ``V f(U x + c) + d``, all in float64, with three classes."""

    def __init__(self, dims: int, activation: nn.Module, channels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(dims)
        count = channels * torch.Size(SIZES[dims]).numel()
        self.first = nn.Linear(count, 7).double()
        self.activation = activation
        self.last = nn.Linear(7, 3).double()
        self.eval()

    def find_levels(self, images: Tensor) -> Tensor:
        """What the activation gets (B, 7)."""
        return self.first(images.flatten(1)).detach()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.activation(self.first(images.flatten(1))))

    def pull_back(self, slopes: Tensor, images: Tensor) -> Tensor:
        """From slopes at the hidden units (B, K, 7) to gradients (B, K, C, *spatial)."""
        flat = slopes @ self.first.weight.detach()
        return flat.unflatten(2, images.shape[1:])

    @property
    def weight(self) -> Tensor:
        """V (K, 7)."""
        return self.last.weight.detach()
