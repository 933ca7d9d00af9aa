"""Masks of tumour types, where every picture has a finding: rarity shows a head where to look.

``python benchmarks/mask_trials_rarity.py DATA CACHE``, with the folders of `mask_trials.py`. What
it gave: section 5 of ``docs/explanation/mask-quality.md``. Only validation masks.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
import typer
from mask_trials import (
    compute_features,
    draw_interval,
    learn_sign,
    score_units,
    train_head,
)
from mask_trials_data import Pictures, read_pictures
from scipy import ndimage as ndi
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional as F

SIDE = 32  # of the grid
STAGES = {1: 1.0, 2: 1.0, 3: 0.7}  # of the encoder, with their weights: strides 8, 16, 32
COMPONENTS = 48
SIMILAR = 8  # pictures of each class
NEAREST = 5  # of all these pictures
PLACE = 2.0  # a step of half the grid, in typical norms of a feature
RARE = 0.9  # quantile of a picture's rarity above which a head looks


def reduce_features(pictures: Pictures, stages: list[Tensor]) -> Tensor:
    """Return the principal components (2, N, places, components) of picture and mirror image."""

    def join(view: int, at: np.ndarray) -> Tensor:
        parts = []
        for stage, weight in STAGES.items():
            part = stages[stage][view, at].float() * weight / stages[stage].shape[2] ** 0.5
            if part.shape[-1] == SIDE:  # as coarse as the others
                part = F.avg_pool2d(part, 3, 1, 1, count_include_pad=False)
            parts.append(F.interpolate(part, size=(SIDE, SIDE), mode="bilinear"))
        return torch.cat(parts, 1).flatten(2).transpose(1, 2)

    sample = join(0, np.flatnonzero(pictures.train)[::6])[:, ::3].flatten(0, 1)
    mean = sample.mean(0)
    axes = torch.linalg.eigh((sample - mean).T @ (sample - mean)).eigenvectors[:, -COMPONENTS:]
    chunks = np.array_split(np.arange(len(pictures.image)), len(pictures.image) // 64 + 1)
    return torch.stack(
        [torch.cat([((join(v, at) - mean) @ axes).half() for at in chunks]) for v in (0, 1)]
    )


def measure_rarity(pictures: Pictures, reduced: Tensor) -> np.ndarray:
    """Return how far each place (N, 32, 32) is from any like it in similar training pictures.

    Similar pictures, either way round, are those whose features agree on an 8 x 8 grid, as many of
    each class, and two of a group at most. A place's coordinates are part of its features. Labels
    of the picture itself are not used, nor others of its group.
    """
    train = np.flatnonzero(pictures.train)
    memory = [(view, number) for view in (0, 1) for number in train]
    codes = F.normalize(torch.cat([encode_layout(reduced[view, train]) for view in (0, 1)]))
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    scale = reduced[0, train[::20]].float().pow(2).sum(2).mean().sqrt()
    place = torch.from_numpy(np.stack([rows, columns], 1) / (SIDE / 2)).float() * PLACE * scale
    sparse = torch.from_numpy(np.flatnonzero(rows % 2 & columns % 2))
    rarity = np.zeros((len(pictures.image), SIDE, SIDE), np.float32)
    for number in range(len(rarity)):
        order = (codes @ encode_layout(reduced[0, [number]])[0]).argsort(descending=True)
        ranked = [memory[int(entry)] for entry in order]
        own = torch.cat([reduced[0, number].float(), place], 1)
        distances = []
        for view, other in choose_similar(pictures, ranked, number):
            theirs = torch.cat([reduced[view, other], place], 1)[sparse]
            distances.append(torch.cdist(own, theirs).amin(1))
        nearest = torch.stack(distances).sort(0).values[:NEAREST].mean(0)
        rarity[number] = ndi.gaussian_filter(nearest.reshape(SIDE, SIDE).numpy(), 0.6)
    return rarity


def encode_layout(reduced: Tensor) -> Tensor:
    """Return what pictures (n, places, components) look like on an 8 x 8 grid, centred."""
    maps = reduced.float().transpose(1, 2).unflatten(2, (SIDE, SIDE))
    flat = F.adaptive_avg_pool2d(maps, 8).flatten(1)
    return flat - flat.mean(1, keepdim=True)


def choose_similar(
    pictures: Pictures, ranked: list[tuple[int, int]], number: int
) -> list[tuple[int, int]]:
    """Return the first `SIMILAR` of each class, not of a picture's own group."""
    chosen: list[tuple[int, int]] = []
    classes, groups = Counter[int](), Counter[str]()
    kinds = pictures.target.argmax(1)
    for view, other in ranked:
        kind, group = int(kinds[other]), pictures.subject[other]
        if group == pictures.subject[number] or classes[kind] == SIMILAR or groups[group] == 2:
            continue
        classes[kind] += 1
        groups[group] += 1
        chosen.append((view, other))
        if len(chosen) == SIMILAR * pictures.target.shape[1]:
            break
    return chosen


def sharpen(heat: np.ndarray) -> np.ndarray:
    """Return the third power of maps (N, h, w) that are 0 at their median and 1 at their peak."""
    median = np.median(heat, axis=(1, 2), keepdims=True)
    return ((heat - median).clip(0) / (heat.max((1, 2), keepdims=True) - median)) ** 3


def main(data: Path, cache: Path, epochs: int = 8, seed: int = 0, level: float = 0.35) -> None:
    """Train a head that looks at rare places, and print what its map times rarity reaches."""
    pictures = read_pictures(data, "figshare")
    features = compute_features(pictures, cache / "figshare")
    rarity = measure_rarity(pictures, reduce_features(pictures, features))
    searched = rarity >= np.quantile(rarity, RARE, axis=(1, 2), keepdims=True)
    maps, logits = train_head(pictures, features, [1, 2, 3], epochs, seed, searched)
    held_out, kind = ~pictures.train, pictures.target.argmax(1)
    value = f1_score(kind[held_out], logits.argmax(1)[held_out], average="macro")
    print(f"macro F1 {value:.3f}")
    heat = maps[np.arange(len(maps)), kind]
    heat = (heat - np.median(heat, axis=(1, 2), keepdims=True)) / heat.std()
    heat = sharpen(rarity / (1 + np.exp(-heat)))
    np.save(cache / "figshare" / "teacher.npy", heat)
    sign = learn_sign(pictures, heat)
    dice, subjects = score_units(pictures, heat, sign, level)
    low, high = draw_interval(dice, subjects)
    each = ", ".join(f"{dice[kind[held_out] == number].mean():.3f}" for number in range(3))
    print(f"sign {sign:+.0f}, Dice {dice.mean():.3f} [{low:.3f}, {high:.3f}], by class {each}")


if __name__ == "__main__":
    typer.run(main)
