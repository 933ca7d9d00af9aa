"""Random geometry, contrast and drawn marks for upright pictures with their masks.

Beside `heatmask.training.augment`, which moves no masks. Screen captures of ultrasound carry
calipers and text, mostly on lesions, and a network that learns these points at nothing; so they are
drawn at random on images of every label.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_ROTATION, _SCALE, _ASPECT, _SHIFT = 0.14, 0.12, 0.06, 0.05  # radians; logarithms; of the side
_GAMMA, _GAIN, _OFFSET, _NOISE = 0.25, 0.15, 0.05, 0.03
_BLURRED, _CALIPERS, _LINES, _TEXTS = 0.2, 0.5, 0.5, 0.3  # how often
_BRIGHTEST = 1.2
_GLYPH = (7, 5)
"""Rows and columns of a letter."""


class PictureAugmentation:
    """Augments images (B, C, H, W) in [0, 1] and moves their masks with them.

    Parameters
    ----------
    side
        Pixels of the square that comes out; masks come out half as large.

    Notes
    -----
    Drawn from torch's global generator.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, C, side, side) and masks (B, K, side / 2, side / 2)."""
        moves = draw_moves(len(images))
        images, masks = _move(images, moves, self.side), _move(masks, moves, self.side // 2)
        gamma, gain = (_normal(images, spread).exp() for spread in (_GAMMA, _GAIN))
        changed = gain * images.clamp(0, 1) ** gamma + _normal(images, _OFFSET) * (images > 0)
        for image in changed:
            draw_marks(image)
        strength = _NOISE * torch.rand(len(images), 1, 1, 1)
        noisy = changed + strength * torch.randn_like(changed)
        blurred = F.avg_pool2d(noisy, 3, 1, 1)
        chosen = torch.rand(len(images), 1, 1, 1) < _BLURRED
        return torch.where(chosen, blurred, noisy).clamp(0, _BRIGHTEST), masks


def draw_moves(count: int) -> Tensor:
    """Draw rotation, scale, aspect, mirroring and shift (N, 2, 3), as `affine_grid` takes them."""
    angle = _ROTATION * torch.randn(count)
    scale, aspect = (spread * torch.randn(count) for spread in (_SCALE, _ASPECT))
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    across, down = (aspect - scale).exp(), (-aspect - scale).exp()
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * across * mirror, -sin * down, sin * across * mirror, cos * down]
    turns = torch.stack(rows, dim=1).view(-1, 2, 2)
    return torch.cat([turns, _SHIFT * torch.randn(count, 2, 1)], dim=2)


def draw_marks(image: Tensor) -> None:
    """Draw calipers, a dotted line and letters on an image (C, H, W), each by chance, in place."""
    height, width = image.shape[1:]
    level = 0.6 + 0.4 * float(torch.rand(()))
    if torch.rand(()) < _CALIPERS:
        for _ in range(_integer(1, 5)):
            row, column, arm = _integer(0, height), _integer(0, width), _integer(2, 5)
            image[:, row, max(0, column - arm) : column + arm + 1] = level
            image[:, max(0, row - arm) : row + arm + 1, column] = level
        if torch.rand(()) < _LINES:
            (top, bottom), (left, right) = torch.rand(2, 2) * torch.tensor([[height], [width]])
            dots = int((bottom - top).hypot(right - left) // 5) + 2
            places = zip(
                torch.linspace(float(top), float(bottom), dots).long().tolist(),
                torch.linspace(float(left), float(right), dots).long().tolist(),
                strict=True,
            )
            for row, column in places:
                image[:, min(row, height - 1), min(column, width - 1)] = level
    if torch.rand(()) < _TEXTS:
        rows, columns = _GLYPH
        letters = torch.rand(rows, columns * _integer(2, 9)) < 0.45
        letters[:, columns - 1 :: columns] = False  # between two letters
        top, left = _integer(0, height), _integer(0, width)
        place = image[:, top : top + rows, left : left + letters.shape[1]]
        place[:, letters[: place.shape[1], : place.shape[2]]] = level


def _move(images: Tensor, moves: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(moves, [*images.shape[:2], side, side], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _normal(images: Tensor, spread: float) -> Tensor:
    """One number for each image."""
    return spread * torch.randn(len(images), 1, 1, 1)


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high, ()))
