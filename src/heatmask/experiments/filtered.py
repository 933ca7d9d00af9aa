"""Retrain a classifier on images filtered by heatmaps: does it need what is hot, or the rest.

Guan and Loew, AIPR 2021 (arXiv 2201.02771), with controls: without them a mask's shape, or
that there is one at all, passes for what it shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.device import autocast_bfloat16, to_channels_last
from heatmask.errors import InputError, OptionError
from heatmask.training.augment import Augmentation
from heatmask.training.engine import seed_network
from heatmask.training.position import PositionOffsetLoss, PositionPrior, balance_classes

Mask = Tensor
BATCH_SIZE, LEARNING_RATE = 32, 2e-3
ABOUT = 0.05
"""Of a stack's height; pictures have none, and draw from all."""


@dataclass(frozen=True)
class Slices:
    """Labelled slices of one split.

    Attributes
    ----------
    images
        (N, C, H, W), float, 0 outside of the head.
    labels
        (N,): 0 for no finding, k + 1 for class k.
    positions
        (N,), relative height in the stack, in [0, 1].
    patients
        (N,), whole numbers that tell patients apart.
    heatmap
        (N, H, W), raw, of the class explained; on tumour-free slices too.
    reference
        (N, H, W) bool, where there are masks.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    patients: Tensor
    heatmap: Tensor
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.heatmap) > 0:
            raise InputError("Slices must come with a label and a heatmap each, and at least one.")

    @property
    def head(self) -> Mask:
        """(N, H, W): the pixels that are not air."""
        return (self.images != 0).any(dim=1)


@dataclass(frozen=True)
class Condition:
    """How images are filtered, for training and for the test alike.

    Attributes
    ----------
    kind
        One of `KINDS`.
    quantile
        The share of the head's pixels that the mask holds; 0 where that is not asked.
    keep
        Keep what the mask holds, or remove it. What goes becomes 0.
    blank
        Paint what is kept in one grey, so that only the mask's shape is left.
    """

    kind: str
    quantile: float = 0.0
    keep: bool = True
    blank: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")

    @property
    def name(self) -> str:
        """As tables show it."""
        if self.kind == "whole":
            return "whole image"
        share = f" {100 * self.quantile:g}%" if self.quantile else ""
        what = {
            "hot": f"the hottest{share}", "random": f"a random blob of{share}",
            "other": f"another patient's hottest{share}", "reference": "the reference mask",
        }[self.kind]  # fmt: skip
        if self.blank:
            return f"only the shape of {what}"
        return f"{'keep' if self.keep else 'remove'} {what}"


def list_conditions(quantiles: tuple[float, ...]) -> list[Condition]:
    """Return the whole image, and every filter and control at each quantile."""
    found = [Condition("whole")]
    for quantile in quantiles:
        for kind in ("hot", "random", "other"):
            found += [Condition(kind, quantile, keep) for keep in (True, False)]
        found.append(Condition("hot", quantile, blank=True))
    return found


def list_reference_conditions() -> list[Condition]:
    """Return the controls with reference masks: there are none of the training patients."""
    return [
        Condition("whole"),
        Condition("reference"),
        Condition("reference", keep=False),
        Condition("reference", blank=True),
    ]


def filter_images(slices: Slices, condition: Condition, seed: int = 0) -> Tensor:
    """Return the images (N, C, H, W) as a condition leaves them."""
    if condition.kind == "whole":
        return slices.images
    mask = KINDS[condition.kind](slices, condition.quantile, seed) & slices.head
    kept = mask if condition.keep else ~mask
    images = torch.where(kept[:, None], slices.images, 0.0)
    return (images != 0).float() if condition.blank else images


def find_hot(slices: Slices, quantile: float, seed: int = 0) -> Mask:
    """Return the hottest share of each head: equal areas, with and without a tumour."""
    return _keep_top(slices.heatmap, slices.head, quantile)


def draw_random(slices: Slices, quantile: float, seed: int) -> Mask:
    """Return a random blob of the same area in each head: smoothed noise, cut at the quantile."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(slices.head.shape, generator=generator)
    width = max(3, slices.head.shape[-1] // 8) | 1
    smooth = noise[:, None]
    for _ in range(3):
        smooth = F.avg_pool2d(smooth, width, stride=1, padding=width // 2, count_include_pad=False)
    return _keep_top(smooth[:, 0], slices.head, quantile)


def borrow_hot(slices: Slices, quantile: float, seed: int = 0) -> Mask:
    """Return the hottest share of another patient's slice of about the same height.

    Whatever its label: a mask that came from a slice of the same label would tell it by its shape.
    """
    return find_hot(slices, quantile)[_draw_others(slices, seed)]


def find_reference(slices: Slices, quantile: float = 0.0, seed: int = 0) -> Mask:
    """Return the reference mask; on tumour-free slices another patient's of like height.

    An empty mask there would tell the label by itself.
    """
    if slices.reference is None:
        raise InputError("The reference condition needs reference masks of every slice.")
    given = slices.reference
    filled = given.flatten(1).any(dim=1)
    lenders = _draw_others(slices, seed, allowed=filled)
    return torch.where(filled[:, None, None], given, given[lenders])


KINDS: Mapping[str, Callable[[Slices, float, int], Mask]] = {
    "whole": lambda slices, quantile, seed: slices.head,
    "hot": find_hot,
    "random": draw_random,
    "other": borrow_hot,
    "reference": find_reference,
}


def train_filtered(
    network: nn.Module,
    images: Tensor,
    slices: Slices,
    epochs: int,
    seed: int,
    num_classes: int = 1,
    negatives: bool = True,
) -> nn.Module:
    """Train a network of fresh weights on filtered images, as the bundles are; take the last epoch.

    Parameters
    ----------
    network
        Its weights are drawn anew from `seed`.
    images
        What `filter_images` returned of `slices`, whose labels are learnt.
    negatives
        Whether slices may show none of several classes; else the position is not offset either.
    """
    network = seed_network(network, seed).train()
    weights = None
    if num_classes > 1:
        weights = balance_classes(slices.labels, num_classes, negatives=negatives)
    loss_function = PositionOffsetLoss(class_weights=weights, negatives=negatives)
    targets = slices.labels[:, None].float()
    if negatives:
        prior = PositionPrior(
            slices.positions, slices.labels, num_classes=num_classes, class_weights=weights
        )
        targets = torch.cat([targets, prior(slices.positions)], dim=1)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH_SIZE or 1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    augment = Augmentation()
    torch.manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH_SIZE)[: len(images) // BATCH_SIZE or 1]:
            batch = to_channels_last(augment(images[chosen].float()).to(device))
            with autocast_bfloat16(device):
                logits = network(batch).float().cpu()
            loss = loss_function(logits, targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return network.eval()


@torch.no_grad()
def classify_filtered(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, K) of images."""
    device = next(network.parameters()).device
    return torch.cat([network(part.float().to(device)).float().cpu() for part in images.split(64)])


def _keep_top(values: Tensor, head: Mask, share: float) -> Mask:
    """Return the pixels of the highest values in each head, so many that they are its share."""
    if not 0 < share < 1:
        raise OptionError(f"quantile must lie between 0 and 1, got {share!r}.")
    flat, inside = values.flatten(1), head.flatten(1)
    ranked = torch.where(inside, flat, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = ranked.argsort(dim=1)
    return ((ranks < (inside.sum(1, keepdim=True) * share).round()) & inside).view(head.shape)


def _draw_others(slices: Slices, seed: int, allowed: Mask | None = None) -> Tensor:
    """Return for each slice one of another patient, drawn from those of about the same height."""
    distance = (slices.positions[:, None] - slices.positions[None]).abs()
    generator = torch.Generator().manual_seed(seed)
    distance += ABOUT * torch.rand(distance.shape, generator=generator)
    distance += (slices.patients[:, None] == slices.patients[None]) * 10.0
    if allowed is not None:
        distance += ~allowed[None] * 100.0
    return distance.argmin(dim=1)


def pool_slices(images: Tensor, side: int) -> Tensor:
    """Return images (N, C, H, W) averaged down to at most `side` pixels a side."""
    factor = max(1, int(np.ceil(max(images.shape[2:]) / side)))
    return F.avg_pool2d(images.float(), factor) if factor > 1 else images.float()
