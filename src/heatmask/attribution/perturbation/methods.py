"""Methods that replace parts of the image by a baseline and watch the logits.

They need forward passes only, so any network will do, and their unit is plain: how far the
logit drops without the part. All classes come from the same forwards: Captum's give the same
numbers where windows end at the border, but run each class apart, 2 to 3 times as long for
three classes (`benchmarks/beside_captum.py`), and windows in which there is nothing too. Through
`heatmask.attribution.captum_methods`, from the same forwards for all classes, feature ablation
takes 1.1 times as long.

References
----------
Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.perturbation.ablation import Ablation
from heatmask.attribution.perturbation.superpixels import find_superpixels
from heatmask.attribution.perturbation.windows import WindowGrid, check_window
from heatmask.attribution.registry import Explained, register
from heatmask.errors import OptionError
from heatmask.options import Option


@register(
    "occlusion",
    family="perturbation",
    needs=("baseline",),
    cost="1 forward for each window that is not empty",
    paper="Zeiler and Fergus 2014, arXiv 1311.2901",
    source="Heatmask: Captum's runs each class apart, and empty windows too",
    size_power=1,  # a window of so many pixels is a smaller part of a larger image
)
@torch.no_grad()
def explain_by_occlusion(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    window: int | Sequence[int] = 16,
    stride: int | Sequence[int] | None = None,
    baseline: Tensor | float | None = None,
    windows_per_batch: int | None = None,
) -> Explained:
    """Drop of the logit when a window is replaced, averaged over the windows over a pixel.

    `window` and `stride` (default: half the window) are pixels of the image as the network
    gets it, one number or one an axis; for the border see
    `heatmask.attribution.perturbation.windows.WindowGrid`. Windows in which the image equals the
    baseline are not run: their drop is 0.
    """
    windows, strides = check_window(window, stride, images.ndim - 2)
    ablation = Ablation(network, images, class_idx, baseline, windows_per_batch)
    grid = WindowGrid(images.shape[2:], windows, strides, images.device)
    drops = ablation.measure_drops(grid.find_touched(ablation.changeable), grid.draw)
    return ablation.logits, grid.spread(drops)


@register(
    "occlusion_coarse_to_fine",
    family="perturbation",
    needs=("baseline",),
    cost="1 forward for each window tried",
    paper="after Zeiler and Fergus 2014, arXiv 1311.2901",
    size_power=1,  # as occlusion
)
@torch.no_grad()
def explain_by_coarse_occlusion(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    window: int | Sequence[int] = 8,
    stride: int | Sequence[int] | None = None,
    halvings: int = 2,
    fraction: float = 0.15,
    baseline: Tensor | float | None = None,
    windows_per_batch: int | None = None,
) -> Explained:
    """Occlusion with large windows, and with smaller ones only where the logit dropped most.

    `window` and `stride` are those of the finest level, as in occlusion. The search begins with
    windows and strides 2 ** `halvings` times as large, or with the largest that do not cover
    the image. After each level the image is divided into blocks as large as the level's stride,
    and the next level looks at the `fraction` of them with the largest mean drop, at least at
    one, for each class apart.

    Where the finest level looked, the map is that of occlusion, exactly. Elsewhere it holds the
    drop of the last level that did, divided by how many of the finest windows would fill its
    window: what each of them would take away if the evidence lay evenly. So one threshold
    serves the whole map, which is lower, not higher, where it is coarse. Evidence against the
    class stays coarse.
    """
    windows, strides = check_window(window, stride, images.ndim - 2)
    _check_search(halvings, fraction)
    spatial = images.shape[2:]
    ablation = Ablation(network, images, class_idx, baseline, windows_per_batch)
    everywhere = torch.ones_like(ablation.changeable)[:, None]
    region, density = everywhere, torch.zeros((), dtype=torch.float64, device=images.device)
    # A window over the whole image does not tell where to look on.
    while halvings and all(w << halvings >= n for w, n in zip(windows, spatial, strict=True)):
        halvings -= 1
    for level in range(halvings, -1, -1):
        steps = [s << level for s in strides]
        grid = WindowGrid(spatial, [w << level for w in windows], steps, images.device)
        wanted = grid.find_touched(region).any(1) & grid.find_touched(ablation.changeable)
        drops = ablation.measure_drops(wanted, grid.draw)
        density = torch.where(region, grid.spread(drops) / grid.pixels, density)
        if level:
            seen = region & ablation.changeable[:, None]
            region = _choose_blocks(density, seen, steps, fraction)
    return ablation.logits, density * grid.pixels


@register(
    "feature_ablation", family="perturbation", needs=("baseline",),
    cost="1 forward for each superpixel",
    paper="Zeiler and Fergus 2014, arXiv 1311.2901; superpixels: Achanta et al. 2012",
    source="Heatmask: Captum's runs each class apart, and empty superpixels too",
)  # fmt: skip
@torch.no_grad()
def explain_by_feature_ablation(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    segments: int = 64,
    compactness: float = 0.1,
    baseline: Tensor | float | None = None,
    segments_per_batch: int | None = None,
) -> Explained:
    """Drop of the logit when a superpixel, or supervoxel in 3D, is replaced by the baseline.

    `segments` is how many to aim at in an image and `compactness` how compact they are to be
    (see `heatmask.attribution.perturbation.superpixels`). Each pixel gets the whole drop of its
    superpixel, as in Captum; pixels of zeros belong to none and get 0, whatever the baseline.
    """
    labels = find_superpixels(images, segments, compactness)
    ablation = Ablation(network, images, class_idx, baseline, segments_per_batch)
    # How many changeable pixels each superpixel has; 0 for the pixels that belong to none.
    filled = labels.new_zeros(len(labels), int(labels.max()) + 1)
    filled.scatter_add_(1, labels.flatten(1), ablation.changeable.flatten(1).long())
    filled[:, 0] = 0
    drops = ablation.measure_drops(
        filled > 0,
        lambda owners, regions: (labels[owners] == regions.view(-1, *[1] * (labels.ndim - 1)))[
            :, None
        ],
    )
    places = labels.flatten(1)[:, None].expand(-1, drops.shape[1], -1)
    return ablation.logits, drops.gather(2, places).reshape(*drops.shape[:2], *labels.shape[1:])


def _check_search(halvings: int, fraction: float) -> None:
    Option("halvings", 2, low=0, high=16).check(halvings)
    if not 0 < fraction <= 1:
        raise OptionError(f"fraction must be greater than 0 and at most 1, got {fraction!r}.")


def _choose_blocks(density: Tensor, region: Tensor, size: Sequence[int], fraction: float) -> Tensor:
    """Return the union (B, M, *spatial) of the blocks of highest mean density.

    Ranked are the blocks that hold a pixel of the region, image by image and class by class,
    so that neither depends on what else was asked for.
    """
    blocks = WindowGrid(density.shape[2:], size, size, density.device)
    candidates = blocks.find_touched(region.expand_as(density)).flatten(2)
    means = blocks.average(density).flatten(2).masked_fill(~candidates, -torch.inf)
    counts = (candidates.sum(2, keepdim=True) * fraction).ceil()
    order = means.argsort(dim=2, descending=True, stable=True)
    chosen = order.argsort(dim=2) < counts
    return blocks.join(chosen.reshape(*density.shape[:2], *blocks.shape))
