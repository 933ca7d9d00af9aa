"""A supervised U-Net on a handful of masks: what drawing them would have bought instead."""

import torch
from monai.losses import DiceCELoss
from rich.progress import track
from torch import Tensor, nn

from heatmask.device import autocast_bfloat16, to_channels_last
from heatmask.networks.gp_unet import GPUNet
from heatmask.training.augment import Augmentation
from heatmask.training.engine import seed_network

MOVE = Augmentation(gamma=0, gain=0, noise=0)
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
