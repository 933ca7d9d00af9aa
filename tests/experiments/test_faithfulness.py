"""Deletion contrast: it rewards what the classifier looks at, not size."""

import pytest
import torch
from torch import Tensor

from heatmask.experiments.faithfulness import measure_deletion_contrast

IMAGES = torch.ones(3, 1, 20, 30)
IMAGES[:, :, :, 26:] = 0  # outside of the head
LESION = torch.zeros(20, 30, dtype=torch.bool)
LESION[2:6, 4:9] = True  # 20 of 520 pixels, left of the middle
IMAGES[:, :, LESION] = 3


def classify(images: Tensor) -> Tensor:
    """Share of the lesion's pixels that are still bright."""
    return (images[:, 0, LESION] > 2).float().mean(1)


def test_the_right_heatmap_gets_everything() -> None:
    heatmap = LESION.float().expand(3, -1, -1) + torch.linspace(0, 0.1, 30)
    assert measure_deletion_contrast(classify, IMAGES, heatmap, [0.1]) == pytest.approx(1)


def test_half_the_lesion_counts_half() -> None:
    heatmap = LESION.float().clone()
    heatmap[4:6] = 0
    heatmap = heatmap.expand(3, -1, -1) + 0.01 * torch.rand(3, 20, 30)
    found = measure_deletion_contrast(classify, IMAGES, heatmap, [10.5 / 520])
    assert found == pytest.approx(0.5, abs=0.05)


def test_the_mirrored_heatmap_gets_the_opposite() -> None:
    heatmap = LESION.flip(0).float().expand(3, -1, -1) + 0.01 * torch.rand(3, 20, 30)
    found = measure_deletion_contrast(classify, IMAGES, heatmap, [20.5 / 520])
    assert found == pytest.approx(-1, abs=0.05)


def test_the_whole_head_earns_nothing() -> None:
    heatmaps = torch.randperm(1800).reshape(3, 20, 30).float()
    assert measure_deletion_contrast(classify, IMAGES, heatmaps, [1.0]) == 0


def test_no_images_no_contrast() -> None:
    assert measure_deletion_contrast(classify, IMAGES[:0], torch.rand(0, 20, 30)) == 0.0
