"""Replace regions of images by a baseline and see what that does to the logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.images import fit_baseline
from heatmask.attribution.memory import run_in_parts
from heatmask.attribution.registry import check_count

CPU_BATCH, GPU_BATCH = 8, 64
"""Regions a forward: on a CPU larger batches are slower, on a GPU they hide its latency."""

DrawRegions = Callable[[Tensor, Tensor], Tensor]
"""``draw(owners (J,), regions (J,)) -> (J, 1, *spatial)``, bool: region j of image owners[j]."""


def choose_batch_size(images: Tensor) -> int:
    """Return how many images without a region go into a forward on the device of these."""
    return CPU_BATCH if images.device.type == "cpu" else GPU_BATCH


class Ablation:
    """Images whose regions can be replaced by a baseline, and their logits as they are.

    Pairs of image and region fill the batches, whichever images they come from, so that a
    device is as busy with many images of few regions as with one image of many.

    Parameters
    ----------
    network
        Images (B, C, *spatial) to logits (B, K).
    images
        (B, C, *spatial).
    class_idx
        As in `heatmask.attribution.classes.select_logits`.
    baseline
        As in `heatmask.attribution.images.fit_baseline`.
    batch_size
        Pairs a forward; None for 8 on a CPU and 64 elsewhere. Halved where the GPU's memory
        does not hold that many.

    Attributes
    ----------
    logits : Tensor
        (B, K), of the images as they are.
    changeable : Tensor
        (B, *spatial), bool: where an image differs from the baseline. A region without such a
        pixel changes nothing when it is replaced.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        class_idx: ClassIdx,
        baseline: Tensor | float | None,
        batch_size: int | None,
    ) -> None:
        self.network, self.images = network, images
        if batch_size is None:
            batch_size = choose_batch_size(images)
        self.batch_size = check_count("The number of regions per batch", batch_size)
        self.baseline = fit_baseline(baseline, images).expand(images.shape)
        self.changeable = (images != self.baseline).any(1)
        self.logits: Tensor = network(images)
        self._classes = index_classes(self.logits, class_idx)

    def measure_drops(self, needed: Tensor, draw: DrawRegions) -> Tensor:
        """Return how far each class logit drops when a region is replaced by the baseline.

        Parameters
        ----------
        needed
            (B, *regions), bool: the pairs to run. One forward each, and no other.
        draw
            Makes the masks of pairs; a region's number is its place in the flattened `needed`.

        Returns
        -------
        Tensor
            (B, M, *regions), float64: positive where the region speaks for the class, 0 for
            pairs that were not needed.
        """
        flat = needed.flatten(1)
        owners, regions = flat.nonzero(as_tuple=True)
        scores = self._score_without(owners, regions, draw)
        before = self.logits.gather(1, self._classes).double()
        drops = before.new_zeros(*flat.shape, before.shape[1])
        drops[flat] = before[owners] - scores
        return drops.movedim(-1, 1).reshape(len(drops), -1, *needed.shape[1:])

    def _score_without(self, owners: Tensor, regions: Tensor, draw: DrawRegions) -> Tensor:
        """Return the class logits (J, M) of images without a region each."""
        if len(owners) == 0:
            return self._classes.new_empty(0, self._classes.shape[1], dtype=torch.float64)

        def score(part: slice) -> Tensor:
            images, masks = owners[part], draw(owners[part], regions[part])
            logits = self.network(torch.where(masks, self.baseline[images], self.images[images]))
            return logits.gather(1, self._classes[images]).double()

        return torch.cat(run_in_parts(score, 0, len(owners), self.batch_size))
