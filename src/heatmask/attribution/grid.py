"""Put maps on another grid."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize_to(maps: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return maps (B, M, *any) on a grid of this size, linearly interpolated."""
    if tuple(maps.shape[2:]) == tuple(spatial):
        return maps
    return F.interpolate(maps, size=tuple(spatial), mode=_LINEAR[len(spatial)])
