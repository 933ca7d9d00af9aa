"""A bundle's mask corrected in 3D Slicer: by scribbles, and by the clicks of Smart Edit.

Both begin with the bundle's own mask where the viewer sends none, and both take its heatmap for a
second opinion.
"""

import time
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_dst_type
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from heatmask.data.readers.nifti import read_itk_grid
from heatmask.data.readers.reference import read_label_map
from heatmask.errors import InputError
from heatmask.explained import Explained
from heatmask.geometry import match_voxels
from heatmask.interaction import Correction
from heatmask.progress import Listener
from heatmask.serving.corrections import (
    BACKGROUND,
    FOREGROUND,
    Clicks,
    Corrections,
    Strokes,
    limit_edit,
)
from heatmask.serving.derived import DerivedTask
from heatmask.serving.task import HeatmapInferTask, read_image_path
from heatmask.serving.volume_file import find_shown_grid, read_result_format, write_volume

MAX_VOXELS = 64_000_000
STROKES = {"foreground_scribbles": FOREGROUND, "background_scribbles": BACKGROUND}
"""The segments that 3D Slicer's user paints on, and what they say."""


class CorrectionTask(DerivedTask):
    """Corrects the masks of a bundle.

    Parameters
    ----------
    base
        The bundle's own task.
    corrections
        Where what is under way is kept.
    """

    how: str

    def __init__(self, base: HeatmapInferTask, corrections: Corrections) -> None:
        self._corrections = corrections
        super().__init__(base, f"Corrects the mask by {self.how}.", base.labels)

    def knows(self, request: Mapping[str, Any]) -> bool:
        """Return whether an edit is likely to be answered without the network."""
        return self.base.knows({"image": request["image"]})

    def __call__(
        self,
        request: Mapping[str, Any],
        progress: Listener | None = None,
        folder: Path | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Correct the mask of the scan at ``request["image"]``; see `HeatmapInferTask`.

        Parameters
        ----------
        request
            As the viewer sends it; ``client`` is who asks.

        Returns
        -------
        tuple
            A new file with the one label that was corrected, as 1, and the facts about it.

        Raises
        ------
        HeatmaskError
            As `HeatmapInferTask`; or there is no such label, or an edit lies outside the scan.
        """
        start = time.perf_counter()
        extension, dtype = read_result_format(request)
        path = read_image_path(request)
        explained = self.base.explain({"image": str(path)}, progress)
        if explained.scan.numel() > MAX_VOXELS:
            raise InputError(
                f"A scan to correct must have at most {MAX_VOXELS:,} voxels, this one has "
                f"{explained.scan.numel():,}. Crop it."
            )
        roi = cut_roi(request.get("roi"), explained.scan.shape[1:])
        with limit_edit(progress):
            mask, name, label = self._correct(request, path, explained)
        answer = np.zeros(mask.shape, np.uint8)
        answer[roi] = mask[roi] == label
        volume, *_ = convert_to_dst_type(answer[None], explained.scan, dtype=torch.uint8)
        file = write_volume(volume, explained.scan, extension, dtype, folder)
        seconds = round(time.perf_counter() - start, 4)
        return file, {"label_names": {name: 1}, "seconds": {"total": seconds}}

    def _name_key(self, request: Mapping[str, Any], path: Path, label: str) -> Hashable:
        """Name what a client corrects; an image that was replaced is another one."""
        stat = path.stat()
        return self, request.get("client"), str(path), stat.st_mtime_ns, stat.st_size, label

    @abstractmethod
    def _correct(
        self, request: Mapping[str, Any], path: Path, explained: Explained
    ) -> tuple[NDArray[np.uint8], str, int]:
        """Return the label map (X, Y, Z), and name and value of the label that was corrected."""


class ScribblesTask(CorrectionTask):
    """Corrects a mask by strokes; see `CorrectionTask`."""

    kind, how = InferType.SCRIBBLES, "scribbles"

    def _correct(
        self, request: Mapping[str, Any], path: Path, explained: Explained
    ) -> tuple[NDArray[np.uint8], str, int]:
        segments = read_segments(request)
        name = read_selected(request, segments)
        sent = read_sent(request.get("label"), find_shown_grid(path, explained.scan), segments)
        values = number_labels(self.labels, segments)
        mask, painted = split_segments(sent, segments, values)
        label = values[name]

        def begin() -> Strokes:
            start = fill_empty(mask, label, explained)
            correction = Correction(explained.scan, heatmap=explained.heatmap, mask=start)
            return Strokes(correction, label, np.zeros_like(painted))

        with self._corrections.open(self._name_key(request, path, name), begin) as strokes:
            if (strokes.correction.mask == label).any():  # else it is empty since the last answer
                mask = fill_empty(mask, label, explained)
            return strokes.update(mask, painted), name, label


class ClicksTask(CorrectionTask):
    """Corrects a mask by clicks; see `CorrectionTask`. The viewer sends no mask."""

    kind, how = InferType.DEEPGROW, "clicks"

    def _correct(
        self, request: Mapping[str, Any], path: Path, explained: Explained
    ) -> tuple[NDArray[np.uint8], str, int]:
        labels: dict[str, int] = self.labels
        name = str(request.get("label") or next(iter(labels)))
        label = number_labels(labels, [name])[name]
        foreground, background = (
            read_points(kind, request.get(kind)) for kind in ("foreground", "background")
        )

        def begin() -> Clicks:
            mask = explained.make_mask()
            return Clicks(Correction(explained.scan, heatmap=explained.heatmap, mask=mask), label)

        key = self._name_key(request, path, name)
        if request.get("reset_state"):
            self._corrections.drop(key)
        with self._corrections.open(key, begin) as clicks:
            return clicks.update(foreground, background), name, label


def read_segments(request: Mapping[str, Any]) -> dict[str, int]:
    """Return the segments of the volume that came, by name, with their values.

    Raises
    ------
    InputError
        ``label_info`` is no list of ``{"name": str, "id": int}``.
    """
    given = request.get("label_info")
    try:
        segments = {item["name"]: item["id"] for item in given or ()}
        if segments and all(
            isinstance(name, str) and type(value) is int for name, value in segments.items()
        ):
            return segments
    except (TypeError, KeyError):
        pass
    raise InputError(
        'label_info must list the segments, as in [{"name": "tumour", "id": 1}], got '
        f"{str(given)[:80]!r}."
    )


def read_selected(request: Mapping[str, Any], segments: Mapping[str, int]) -> str:
    """Return the segment that the scribbles correct.

    Raises
    ------
    InputError
        It is none of those that came.
    """
    name, names = request.get("selected_label_name"), [n for n in segments if n not in STROKES]
    if name not in names:
        raise InputError(
            f"selected_label_name must be one of the segments {', '.join(names) or '(none)'}, got "
            f"{str(name)[:40]!r}. Select the segment that the scribbles correct."
        )
    return str(name)


def read_sent(
    file: Any, grid: tuple[tuple[int, ...], NDArray], segments: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return the segments (X, Y, Z) in the order of the scan's voxels, whose grid this is.

    Raises
    ------
    InputError
        There is no file, it lies on another grid, or holds a value without a name.
    """
    if not isinstance(file, str):
        raise InputError(
            "Scribbles must come with the segments that they were painted on, as the file 'label'."
        )
    shape, affine = read_itk_grid(Path(file))
    if sorted(shape) != sorted(grid[0]):
        match_voxels(np.broadcast_to(False, shape), affine, *grid)  # before the voxels are read
    sent = match_voxels(read_label_map(Path(file))[0], affine, *grid)
    unnamed = np.setdiff1d(sent[sent > 0], [*segments.values()])
    if unnamed.size:
        raise InputError(
            f"label_info must name every value of the segments; {', '.join(map(str, unnamed[:8]))} "
            "is not in it."
        )
    return sent


def number_labels(labels: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """Return a value for each name: that of the bundle's label, or one behind them."""
    others = [name for name in names if name not in labels and name not in STROKES]
    return {**labels, **{name: len(labels) + 1 + i for i, name in enumerate(others)}}


def split_segments(
    sent: NDArray[np.int64], segments: Mapping[str, int], values: Mapping[str, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Return the mask (X, Y, Z) with its labels as `values`, and what was painted (X, Y, Z)."""
    mask, painted = np.zeros(sent.shape, np.uint8), np.zeros(sent.shape, np.int8)
    for name, value in segments.items():
        if name in STROKES:
            painted[sent == value] = STROKES[name]
        else:
            mask[sent == value] = values[name]
    return mask, painted


def fill_empty(mask: NDArray[np.uint8], label: int, explained: Explained) -> NDArray[np.uint8]:
    """Return a mask with the bundle's own label where it holds none; other labels stay."""
    if (mask == label).any():
        return mask
    own = explained.make_mask()[0].numpy(force=True)
    return np.where((mask == 0) & (own == label), np.uint8(label), mask)


def read_points(kind: str, given: Any) -> list[tuple[int, ...]]:
    """Return the voxels that were clicked.

    Raises
    ------
    InputError
        They are no list of voxels.
    """
    points = [] if given is None else given
    if isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 3 and all(type(i) is int for i in point)
        for point in points
    ):
        return [tuple(point) for point in points]
    raise InputError(f"{kind} must be a list of voxels, as in [[31, 40, 12]], got {points!r:.80}.")


def cut_roi(given: Any, shape: Sequence[int]) -> tuple[slice, ...]:
    """Return the part of a scan that a region of interest holds: all of it if there is none.

    Parameters
    ----------
    given
        First and last voxel along each axis, in either order, as a list of six; or empty.

    Raises
    ------
    InputError
        It is something else.
    """
    if not given:
        return tuple(map(slice, shape))
    if not (isinstance(given, list) and len(given) == 6 and all(type(i) is int for i in given)):
        raise InputError(f"roi must be six voxel numbers or empty, got {given!r:.80}.")
    pairs = [sorted(given[i : i + 2]) for i in (0, 2, 4)]
    return tuple(slice(max(0, low), max(0, high + 1)) for low, high in pairs)
