"""A pretrained classifier with a decoder that learns from the network's own pseudo-masks.

One encoder, two ends: class logits, and a map of where each class is. How both are trained from
image-level labels alone: `heatmask.training.self_training`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.errors import OptionError
from heatmask.networks.blocks import make_norm, stack_convolutions
from heatmask.networks.global_pooling import pool_top
from heatmask.networks.pretrained import CHANNELS, STRIDE, PretrainedEncoder


class SelfTrainedNet(nn.Module):
    """EfficientNet-Lite0 with class logits and a heatmap.

    Parameters
    ----------
    num_classes
        Class logits K (K = 1: present or absent, with a sigmoid).
    side
        Pixels that the longer side of an image is scaled to inside, a multiple of 32. With several
        the image is read at each, and logits and heatmaps are averaged. More than the training had
        (`heatmask.training.self_training`): what augmentation cuts out of an image looks larger in
        training than the same thing looks later.
    width, picture_width
        Channels of the decoder, for the features and for the picture itself.

    Notes
    -----
    Images are (B, 3, X, Y) in [0, 1] and in RAS order: a grey picture three times, or a slice
    between its neighbours. Inside they are shown upright in the middle of a black square. A
    heatmap value is a logit. Those of an image are the mean of two, a linear layer's on the pooled
    features and the hottest values of the heatmap, less `offset`: so that 0 is where images with
    and without the class are best separated.
    """

    offset: Tensor

    def __init__(
        self,
        num_classes: int = 1,
        side: int | Sequence[int] = (256, 320),
        width: int = 32,
        picture_width: int = 16,
    ) -> None:
        super().__init__()
        self.sides = [side] if isinstance(side, int) else list(side)
        if not self.sides or any(n < STRIDE or n % STRIDE for n in self.sides):
            raise OptionError(f"side must be a multiple of {STRIDE}, or several, got {side}.")
        self.num_classes = num_classes
        self.encoder = PretrainedEncoder()
        self.register_buffer("offset", torch.zeros(num_classes))
        self.classifier = PooledClassifier(num_classes)
        self.decoder = Decoder(num_classes, width, picture_width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, 3, X, Y)."""
        return torch.stack([self.read(x, side)[0] for side in self.sides]).mean(0)

    def forward_heatmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the heatmap (B, K, X, Y)."""
        looks = [self.read(x, side) for side in self.sides]
        heatmaps = [turn_back(maps, x.shape[2:]) for _, maps in looks]
        return torch.stack([logits for logits, _ in looks]).mean(0), torch.stack(heatmaps).mean(0)

    def read(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) of images and their maps (B, K, side / 2, side / 2), upright."""
        linear, maps = self.forward_upright(show_upright(x, side))
        return (linear + pool_hottest(maps)) / 2 - self.offset, maps

    def forward_upright(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """Return the linear layer's logits (B, K) and the maps (B, K, side / 2, side / 2).

        Of what `show_upright` returns, of any side that is a multiple of 32.
        """
        features = self.encoder(square)
        return self.classifier(features), self.decoder(features, square)


class PooledClassifier(nn.Module):
    """Mean and maximum of the features at the strides 16 and 32, dropout and a linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(2 * sum(CHANNELS[3:]), num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the logits (B, K) of the encoder's features."""
        pooled: list[Tensor] = []
        for stage in features[3:]:
            pooled += [stage.mean((2, 3)), stage.amax((2, 3))]
        return self.fc(self.drop(torch.cat(pooled, dim=1)))


class Decoder(nn.Module):
    """The features of all stages, summed from the coarsest to stride 4; finer ones at stride 2.

    Parameters
    ----------
    num_classes, width, picture_width
        As of `SelfTrainedNet`.
    """

    def __init__(self, num_classes: int, width: int, picture_width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in CHANNELS)
        self.norm = nn.BatchNorm2d(width)
        self.mix = stack_convolutions(2, (width, width), "batch")
        self.picture = nn.Sequential(
            nn.Conv2d(3, picture_width, 3, stride=2, padding=1, bias=False),
            *make_norm(2, picture_width, "batch"),
            nn.ReLU(),
        )
        self.join = stack_convolutions(2, (width + picture_width, width), "batch")
        self.out = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        """Return the maps (B, K, H / 2, W / 2) of an image (B, 3, H, W)."""
        stages = [project(features[i]) for i, project in enumerate(self.project)]
        coarse = stages[4]
        for finer in stages[3:0:-1]:
            coarse = enlarge(coarse, finer) + finer
        coarse = self.mix(F.relu(self.norm(coarse)))
        fine = enlarge(coarse, stages[0]) + stages[0]
        return self.out(self.join(torch.cat([fine, self.picture(image)], dim=1)))


def pool_hottest(maps: Tensor) -> Tensor:
    """Return the logits (B, K) of maps (B, K, H, W): the mean of the hottest 1, 4 and 16 %."""
    return torch.stack([pool_top(maps, share) for share in [0.01, 0.04, 0.16]]).mean(0)


def enlarge(coarse: Tensor, fine: Tensor) -> Tensor:
    """Interpolate features (B, C, h, w) to the grid of finer ones."""
    return F.interpolate(coarse, size=fine.shape[2:], mode="bilinear")


def show_upright(images: Tensor, side: int) -> Tensor:
    """Show images (B, C, X, Y) in RAS order as a viewer does, in a black square of `side` pixels.

    Rows run down and columns to the patient's left, as in the photographs that the encoder has
    seen. The longer side of the image fills the square, the shorter one lies in its middle.
    """
    upright = images.flip(2, 3).transpose(2, 3)
    longest = max(upright.shape[2:])
    size = [max(1, int(round(n * side / longest))) for n in upright.shape[2:]]  # noqa: RUF046 for TorchScript
    if longest != side:
        upright = F.interpolate(upright, size=size, mode="bilinear", antialias=longest > side)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    return F.pad(upright, [left, side - size[1] - left, top, side - size[0] - top])


def turn_back(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (B, K, n, n) of upright images on the grid of these, `size` (X, Y)."""
    longest = max(size)
    square = F.interpolate(maps, size=[longest, longest], mode="bilinear")
    width, height = size
    top, left = (longest - height) // 2, (longest - width) // 2
    return square[:, :, top : top + height, left : left + width].transpose(2, 3).flip(2, 3)
