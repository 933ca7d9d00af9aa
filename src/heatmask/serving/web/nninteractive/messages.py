"""What nnInteractive's clients say, as types; and the edits that it means."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from heatmask.errors import InputError
from heatmask.interaction import Edit
from heatmask.serving.web.messages import Message
from heatmask.serving.web.nninteractive.editor import Change

META_HEADER, LEASE_HEADER = "X-Meta", "X-Lease-Token"

Length = Annotated[float, Field(gt=0, le=1e6)]
Finite = Annotated[float, Field(ge=-1e9, le=1e9)]
Interval = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Row = Annotated[list[Finite], Field(min_length=4, max_length=4)]
Size = Annotated[int, Field(ge=1, le=10**6)]


class ImageProperties(Message):
    """Of an image; clients send the spacing along the array's axes, scripts may send the affine."""

    spacing: Annotated[list[Length], Field(min_length=3, max_length=3)] | None = None
    affine: Annotated[list[Row], Field(min_length=4, max_length=4)] | None = None


class ImageMeta(Message):
    """Beside an image."""

    image_properties: ImageProperties = ImageProperties()


class Buffer(Message):
    """The client's mask, which is empty."""

    shape: Annotated[list[Size], Field(min_length=3, max_length=3)]


class Interaction(Message):
    """What every interaction says."""

    include_interaction: bool
    run_prediction: bool = True


class Point(Interaction):
    """A click."""

    coordinates: Annotated[list[Finite], Field(min_length=3, max_length=3)]

    def make_edit(self) -> Edit:
        """Return the click on the nearest voxel."""
        return Edit.click([round(value) for value in self.coordinates], self.include_interaction)


class Box(Interaction):
    """A box of half-open intervals."""

    bbox_coords: Annotated[list[Interval], Field(min_length=3, max_length=3)]

    def make_edit(self, shape: Sequence[int]) -> Edit:
        """Return the part of the box that lies in an image.

        Raises
        ------
        InputError
            There is none.
        """
        start, stop = np.rint(np.array(self.bbox_coords)).astype(int).T
        start, stop = np.maximum(start, 0), np.minimum(stop, shape)
        if not (start < stop).all():
            raise InputError(
                f"The box {self.bbox_coords} must hold voxels of the image, which has "
                f"{' x '.join(map(str, shape))}."
            )
        return Edit.box(start.tolist(), stop.tolist(), self.include_interaction)


class Painted(Interaction):
    """Beside the voxels of a scribble or a lasso: the box that they fill, by default the image."""

    interaction_bbox: (
        Annotated[list[Annotated[list[int], Field(min_length=2, max_length=2)]],
                  Field(min_length=3, max_length=3)] | None
    ) = None  # fmt: skip

    def make_edit(self, voxels: NDArray[Any], shape: Sequence[int], *, exact: bool) -> Edit:
        """Return the stroke (exact) or the lasso.

        Raises
        ------
        InputError
            It does not fill the box, or not the image; or it is empty.
        """
        start, stop = np.array(self.interaction_bbox or [[0, size] for size in shape]).T
        if voxels.shape != tuple(stop - start):
            raise InputError(
                f"What was painted must have the {' x '.join(map(str, stop - start))} voxels of "
                f"{'its box' if self.interaction_bbox else 'the image'}, got "
                f"{' x '.join(map(str, voxels.shape))}."
            )
        return Edit(np.argwhere(voxels) + start, self.include_interaction, exact=exact)


class Segmentation(Message):
    """Beside a segmentation to begin with."""


def describe_change(change: Change | None, *, ran: bool) -> str:
    """Return the header that says which box the body of an answer holds."""
    meta: dict[str, Any] = {"ran_prediction": ran, "bbox": None}
    if change is not None:
        meta["bbox"] = [[part.start, part.stop] for part in change.box]
        meta |= {"shape": list(change.voxels.shape), "dtype": change.voxels.dtype.name}
    return json.dumps(meta)
