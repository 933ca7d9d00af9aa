"""Baselines without learning: what a mask scores that no classifier was needed for.

A label-free baseline makes one mask from a scan. An upper bound makes one candidate for each level
of a grid; its level is the one that scores best on the very masks it is reported on, so that it is
never a method.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from heatmask.errors import InputError
from heatmask.experiments.cases import Case, Cases, find_slices
from heatmask.experiments.classifier_metrics import compute_relative_positions
from heatmask.experiments.heatmaps import Explanations
from heatmask.experiments.scores import Scores, keep_sizes, score_whole
from heatmask.experiments.store import Kept, digest, digest_code, digest_file
from heatmask.geometry import measure_spacing_mm
from heatmask.training.position import PositionPrior

# Skin, fat and bone over the brain are roughly this thick; set beforehand, tuned on no mask.
SCALP_MM = 8.0
# How thick it is beside a picture's longer side, which a head fills: a picture has no millimetres.
RIM_SHARE = 1 / 32
POSITION = "centre Gaussian where the position speaks for a tumour"
# Standard deviations above the head's mean: one threshold that fits scans of any gain.
ORACLE_DEVIATIONS = tuple(tenths / 10 for tenths in range(5, 26))

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Baseline:
    """A way to make a mask from `(image, head)`, or from `(image, head, level)` for an upper bound.

    Attributes
    ----------
    make_mask
        Called with the scan (X, Y, Z) and its eroded head mask of the same shape.
    levels
        The candidates of an upper bound; empty for a label-free baseline.
    """

    make_mask: Callable[..., Mask]
    levels: tuple[float, ...] = ()

    @property
    def label_free(self) -> bool:
        """Whether no mask was looked at to make this one."""
        return not self.levels

    def make_candidates(self, image: NDArray, head: Mask) -> Iterator[Mask]:
        """Yield the one mask of a label-free baseline, or an upper bound's for each level."""
        if self.label_free:
            yield self.make_mask(image, head)
        for level in self.levels:
            yield self.make_mask(image, head, level)


def find_inner_head(
    image: NDArray,
    spacing_mm: Sequence[float],
    erosion_mm: float = SCALP_MM,
    slice_axis: int = 2,
) -> Mask:
    """Find the head without its scalp: Otsu's foreground, filled and eroded slice by slice.

    Each slice is treated in its plane, for slices are often thicker than the scalp. Beyond the
    image's edge counts as air.

    Parameters
    ----------
    image
        Scan (X, Y, Z), finite, air dark.
    spacing_mm
        Length of a voxel's edge along each axis, in mm.
    erosion_mm
        How far inside the outline a voxel has to lie.
    slice_axis
        The axis along which slices are stacked.

    Returns
    -------
    array
        Boolean, of the image's shape; empty for a constant image.

    Raises
    ------
    InputError
        If the image is not a finite volume of three axes.
    """
    if image.ndim != 3 or not np.isfinite(image).all():
        raise InputError(
            "A baseline needs a scan of three axes without NaN or infinity, got shape "
            f"{image.shape}. Give one channel of a repaired scan."
        )
    in_plane_mm = [float(s) for axis, s in enumerate(spacing_mm) if axis != slice_axis]
    # Flat, for scikit-image takes a volume of three or four slices for a colour picture.
    slices = np.moveaxis(image > threshold_otsu(image.ravel()), slice_axis, 0)
    inner = [_erode_outline(plane, in_plane_mm, erosion_mm) for plane in slices]
    return np.moveaxis(np.stack(inner), 0, slice_axis)


def multi_otsu(image: NDArray, head: Mask) -> Mask:
    """Keep the brightest of three Otsu classes of the whole image; `head` is not used.

    Liao et al., J. Inf. Sci. Eng. 17(5), 2001, by scikit-image. Empty where the image holds
    fewer than three grey values.
    """
    return _keep_top_class(image, np.ones_like(head))


def multi_otsu_in_head(image: NDArray, head: Mask) -> Mask:
    """Keep the brightest of three Otsu classes of the voxels in `head`, as `multi_otsu` does."""
    return _keep_top_class(image, head)


def percentile_in_head(image: NDArray, head: Mask, q: float = 90.0) -> Mask:
    """Keep what is brighter than the `q`-th percentile of `head`, in it; empty without a head."""
    if not head.any():
        return np.zeros_like(head)
    return (image > np.percentile(image[head], q)) & head


def bright_in_head(image: NDArray, head: Mask, n_deviations: float) -> Mask:
    """Keep what is `n_deviations` standard deviations brighter than the mean of `head`, in it.

    Empty without a head.
    """
    if not head.any():
        return np.zeros_like(head)
    values = image[head]
    return (image > values.mean() + n_deviations * values.std()) & head


def largest_bright_in_head(image: NDArray, head: Mask, n_deviations: float) -> Mask:
    """Keep only the largest component (joined by faces) of `bright_in_head`."""
    mask = bright_in_head(image, head, n_deviations)
    if not mask.any():
        return mask
    box = ndimage.find_objects(head.astype(np.uint8))[0]  # a third of the labelling time
    labels, _ = ndimage.label(mask[box])
    mask[box] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return mask


def centre_gaussian(image: NDArray, head: Mask) -> Mask:
    """Keep the half-maximum ellipsoid of a Gaussian in the middle of `head`, whatever is there.

    Along each axis its standard deviation is an eighth of the head's extent, so that it spans
    about 0.3 of it. Empty without a head; `image` is not used.
    """
    where = np.argwhere(head)
    if where.size == 0:
        return np.zeros_like(head)
    deviation = (np.ptp(where, axis=0) + 1) / 8
    offsets = np.indices(head.shape, sparse=True)
    centre = where.mean(axis=0)
    squared = sum(((x - c) / s) ** 2 for x, c, s in zip(offsets, centre, deviation, strict=True))
    return (np.exp(-0.5 * squared) >= 0.5) & head


BASELINES: dict[str, Baseline] = {
    "multi-Otsu": Baseline(multi_otsu),
    "multi-Otsu in the head": Baseline(multi_otsu_in_head),
    "90th percentile in the head": Baseline(percentile_in_head),
    "centre Gaussian": Baseline(centre_gaussian),
    "best threshold": Baseline(bright_in_head, ORACLE_DEVIATIONS),
    "best threshold, largest component": Baseline(largest_bright_in_head, ORACLE_DEVIATIONS),
}


def _keep_top_class(image: NDArray, region: Mask) -> Mask:
    values = image[region]
    if np.unique(values).size < 3:
        return np.zeros_like(region)
    return (image > threshold_multiotsu(values, classes=3)[-1]) & region


def _erode_outline(plane: Mask, spacing_mm: Sequence[float], erosion_mm: float) -> Mask:
    filled = np.pad(ndimage.binary_fill_holes(plane), 1)
    depth_mm = ndimage.distance_transform_edt(filled, sampling=spacing_mm)
    return depth_mm[1:-1, 1:-1] > erosion_mm


class BaselineScoring(Kept[Case]):
    """Scores of the baselines on the cases of one split.

    Parameters
    ----------
    explanations
        Of any entry: its preprocessing reads the scans.
    cases
        With the training volumes' slice labels, if these are volumes.
    brief
        Overlap alone: no outlines, and no baseline that knows the position.
    """

    def __init__(self, explanations: Explanations, cases: Cases, brief: bool = False) -> None:
        self.explanations, self.cases, self.brief = explanations, cases, brief
        self.store = explanations.store

    def find_key(self, item: Case) -> str:
        """Return what the scores of a case are kept under."""
        files = [digest_file(path) for path in item.files]
        reading = self.explanations.preparation
        labels = [item.labels, self.cases.training_labels]
        return digest([files, reading, labels, digest_code(__name__)])

    def _compute(self, item: Case) -> dict[str, list[Scores]]:
        """Return the scores of each baseline's candidates: one but for the upper bounds."""
        scan = self.explanations.prepare(item)["scan"]
        image, affine = scan[0].numpy(), np.asarray(scan.affine)
        pictures, axis = self.cases.pictures, find_slices(scan)
        reference = item.load_reference(scan)

        def score(mask: Mask, outline: bool = True) -> Scores:
            outline &= not self.brief
            scores = score_whole(mask, reference, affine, axis, pictures, outline)
            return keep_sizes(scores) if self.cases.shows_nothing(item) else scores

        found = score_baselines(image, affine, axis, pictures, score)
        if self.cases.training_labels and not self.brief:
            head = find_inner_head(image, measure_spacing_mm(affine).tolist(), slice_axis=axis)
            mask = centre_gaussian(image, head)
            np.moveaxis(mask, axis, 0)[~self._find_likely(len(item.labels))] = False
            found[POSITION] = [score(mask)]
        return found

    def _find_likely(self, n_slices: int) -> Mask:
        """Return which slices hold a tumour more often than not, by their position alone."""
        labels = self.cases.training_labels
        positions = np.concatenate([compute_relative_positions(len(stack)) for stack in labels])
        prior = PositionPrior(positions.tolist(), np.concatenate(labels).tolist())
        return prior(compute_relative_positions(n_slices).tolist())[:, 0].numpy() > 0


def score_baselines(
    image: NDArray,
    affine: NDArray,
    slice_axis: int,
    pictures: bool,
    score: Callable[[Mask, bool], Scores],
) -> dict[str, list[Scores]]:
    """Score every candidate of each baseline on one scan (X, Y, Z).

    `score` is called with each mask, and whether its outline counts.
    """
    edges: Sequence[float] = measure_spacing_mm(affine).tolist()
    if pictures:
        edges = [SCALP_MM / (RIM_SHARE * max(image.shape))] * 3
    head = find_inner_head(image, edges, slice_axis=slice_axis)
    return {
        name: [score(m, baseline.label_free) for m in baseline.make_candidates(image, head)]
        for name, baseline in BASELINES.items()
    }


def choose_candidates(
    by_case: Sequence[Mapping[str, list[Scores]]],
) -> dict[str, tuple[int, list[Scores]]]:
    """Return for each baseline the number of its best candidate over all cases, and its scores.

    The highest mean Dice of what is counted; of equal ones the first.
    """
    chosen = {}
    for name in by_case[0]:
        dice = np.array([[one["dice"] for one in scores[name]] for scores in by_case])
        counted = [column[~np.isnan(column)] for column in dice.T]
        best = int(np.argmax([part.mean() if part.size else -1.0 for part in counted]))
        chosen[name] = (best, [scores[name][best] for scores in by_case])
    return chosen
