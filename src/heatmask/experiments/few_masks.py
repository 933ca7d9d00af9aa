"""A supervised U-Net on a handful of masks: what drawing them would have bought instead."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type
from rich.progress import track
from torch import Tensor, nn

from heatmask.device import autocast_bfloat16, to_channels_last
from heatmask.experiments.cases import Case, Cases, find_slices
from heatmask.experiments.heatmaps import Explanations
from heatmask.experiments.scores import Scores, keep_sizes, score_whole
from heatmask.experiments.store import Kept, digest, digest_code, digest_file
from heatmask.networks.gp_unet import GPUNet
from heatmask.training.augment import Augmentation
from heatmask.training.engine import seed_network

MOVE = Augmentation(gamma=0, gain=0, noise=0)
FEW_MASKS_SLICES = 15_000
"""Slices that the U-Net sees in training, however few there are."""
RECOLOUR = Augmentation(rotation_deg=0, scale=0, shift=0, flip=False)


def train_unet(
    images: Tensor,
    masks: Tensor,
    epochs: int,
    seed: int = 0,
    batch_size: int = 16,
    learning_rate: float = 5e-3,
) -> GPUNet:
    """Train a U-Net on slices with masks; nothing is held out, the last epoch is taken.

    Parameters
    ----------
    images
        (N, C, H, W), float; sides that 8 divides.
    masks
        (N, 1, H, W), 0 or 1.
    epochs, seed, batch_size, learning_rate
        AdamW with a one-cycle schedule; rotation, scaling, flips, gamma and gain.

    Returns
    -------
    torch.nn.Module
        The U-Net of GP-UNet, in eval mode: its heatmap (B, 1, H, W) holds the mask's logits.
    """
    network = GPUNet(2, images.shape[1], 1, (16, 32, 64, 128), "batch")
    seed_network(network, seed)
    share = masks.float().mean().clamp(1e-4, 1 - 1e-4)
    nn.init.constant_(
        network.get_parameter("head.bias"), float(share.logit())
    )  # else hundreds of steps go by
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(images) // batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    loss_function = DiceCELoss(sigmoid=True, batch=True)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network.train()
    for _ in track(range(epochs), "Training a U-Net on the validation masks"):
        for chosen in torch.randperm(len(images), generator=generator).split(batch_size):
            # The mask moves along as a further channel, and keeps its grey values.
            moved = MOVE(torch.cat([images[chosen], masks[chosen]], 1).float())
            pictures, truth = RECOLOUR(moved[:, :-1]), (moved[:, -1:] > 0.5).float()
            with autocast_bfloat16(pictures.device):
                logits = network.forward_heatmap(to_channels_last(pictures))[1].float()
            loss = loss_function(logits, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    network.eval()
    return network


@torch.no_grad()
def predict_masks(network: GPUNet, slices: Tensor, batch_size: int = 32) -> Tensor:
    """Return the probabilities (N, H, W) of slices (N, C, H, W) of any size; padded inside."""
    height, width = slices.shape[2:]
    padded = nn.functional.pad(slices, (0, -width % 8, 0, -height % 8))
    parts = [network.forward_heatmap(x)[1].sigmoid()[:, 0] for x in padded.split(batch_size)]
    return torch.cat(parts)[:, :height, :width]


class FewMasks(Kept[Case]):
    """A U-Net that is trained on the validation masks and nothing else.

    Parameters
    ----------
    explanations
        Of any entry: its preprocessing prepares the scans, its postprocessing brings masks back.
    given
        The cases whose masks it is trained on.
    cases
        Those it is scored on.
    """

    def __init__(self, explanations: Explanations, given: Cases, cases: Cases) -> None:
        self.explanations, self.given, self.cases = explanations, given, cases
        self.store = explanations.store

    def find_key(self, item: Case) -> str:
        """Return what the scores of a case are kept under."""
        return digest([self._learnt, [digest_file(path) for path in item.files]])

    @cached_property
    def _learnt(self) -> str:
        """Digest of what decides the network."""
        files = [digest_file(path) for case in self.given.cases for path in case.files]
        reading = self.explanations.preparation
        return digest([files, reading, FEW_MASKS_SLICES, digest_code(__name__)])

    def _compute(self, item: Case) -> Scores:
        """Return what `score_whole` says of the mask at probability 0.5."""
        data = self.explanations.prepare(item)
        image = data["image"]
        inside = predict_masks(self._network, image.as_tensor().movedim(-1, 0))
        heatmap = convert_to_dst_type(inside.movedim(0, -1)[None], image, dtype=torch.float32)[0]
        result = self.explanations.pipeline.bring_to_scan({**data, "heatmap": heatmap})
        mask = np.asarray(result["heatmap"][0]) > 0.5
        scan, pictures = result["scan"], self.cases.pictures
        affine, axis = np.asarray(scan.affine), find_slices(scan)
        scores = score_whole(mask, item.load_reference(scan), affine, axis, pictures)
        return keep_sizes(scores) if self.cases.shows_nothing(item) else scores

    @cached_property
    def _network(self) -> GPUNet:
        images, masks = self._load_slices()
        return train_unet(images, masks, max(1, FEW_MASKS_SLICES // len(images)))

    def _load_slices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slices (N, C, H, W) of the given cases with their masks (N, 1, H, W)."""
        pairs = [self._load(case) for case in track(self.given.cases, "Reading masks")]
        sides = [max(pair.shape[axis] for pair in pairs) for axis in (1, 2)]
        fit = ResizeWithPadOrCrop((*(side + -side % 8 for side in sides), -1))
        slices = torch.cat([torch.as_tensor(fit(pair)).movedim(-1, 0) for pair in pairs]).half()
        return slices[:, :-1], slices[:, -1:]

    def _load(self, case: Case) -> torch.Tensor:
        """Return the image with its mask as a further channel, on the network's grid."""
        data: Mapping[str, Any] = self.explanations.prepare(case)
        reference = case.load_reference(data["scan"])[None].astype(np.float32)
        mask = convert_to_dst_type(torch.from_numpy(reference), data["scan"])[0]
        moved = ResampleToMatch(mode="nearest")(mask, data["image"])
        return torch.cat([torch.as_tensor(data["image"]), torch.as_tensor(moved)])
