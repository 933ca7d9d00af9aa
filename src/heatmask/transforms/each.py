"""What changes every volume of a dictionary in the same way."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor


class EachVolumed(MapTransform):
    """Changes the volume of every key in the same way."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every key."""
        return {**data, **{k: self.change(data[k]) for k in self.key_iterator(data)}}

    @abstractmethod
    def change(self, volume: MetaTensor) -> Tensor:
        """Return the changed volume (C, X, Y, Z)."""
