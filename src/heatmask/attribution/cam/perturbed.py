"""CAMs that ask the network again instead of taking gradients."""

import torch
from torch import Tensor, nn

from heatmask.attribution.cam.layers import (
    TargetLayer,
    check_map,
    mix_channels,
    read_layers,
    view_layers,
    widen,
)
from heatmask.attribution.cam.replay import Replay
from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.images import resize_to
from heatmask.attribution.registry import Explained, check_count, register
from heatmask.progress import advance


@register(
    "score_cam", family="cam", needs=("layer",), cost="n forwards (channels of the layer)",
    paper="Wang et al. 2020, arXiv 1910.01279",
    source="Heatmask: any number of axes, all classes at once, bounded memory",
)  # fmt: skip
@torch.no_grad()
def explain_by_score_cam(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    chunk: int = 32,
    target_layer: TargetLayer = None,
) -> Explained:
    """The layer's channels, weighed by the logit of the image seen through each of them.

    The weights are a softmax over the channels, in which the paper's baseline cancels; ends
    in a ReLU. Channels that are flat over the image count for nothing and are not run.
    `chunk` masked images go into a forward. The weights sum to 1 whatever the logit, so a
    healthy image is about as hot as any other.
    """
    check_count("chunk", chunk)
    logits, (activation,) = view_layers(network, images, target_layer)
    classes = index_classes(logits, class_idx)
    weights = []
    for image, maps, chosen in zip(images, widen(activation), classes, strict=True):
        telling = maps.flatten(1).amax(1) > maps.flatten(1).amin(1)
        scores = maps.new_full((len(maps), logits.shape[1]), -torch.inf)
        if telling.any():
            scores[telling] = _score_channels(network, image, maps[telling], chunk)
        weights.append(scores[:, chosen].softmax(0).nan_to_num(0.0).T)
    with torch.autocast(images.device.type, enabled=False):
        return logits, mix_channels(torch.stack(weights), widen(activation)).relu()


@register(
    "ablation_cam", family="cam", needs=("layer",),
    cost="2 forwards, n forwards above the layer (its channels)",
    paper="Desai and Ramaswamy 2020, WACV",
    source="Heatmask: runs again only what lies above the layer",
)  # fmt: skip
@torch.no_grad()
def explain_by_ablation_cam(
    network: nn.Module,
    images: Tensor,
    class_idx: ClassIdx,
    chunk: int = 64,
    target_layer: TargetLayer = None,
    signed: bool = False,
) -> Explained:
    """The layer's channels, weighed by how far the logit falls without each of them.

    Ends in a ReLU unless `signed`. The paper divides the fall by the logit, which turns the
    map round where the logit is negative; here it stays in logit units. `chunk` ablated
    activations go into a run of what lies above the layer.
    """
    check_count("chunk", chunk)
    (layer,) = read_layers(network, images, target_layer)
    replay = Replay(network, layer)
    everything, weights, activations = [], [], []
    for image in images.split(1):
        logits, activation = replay.record(image)
        check_map(layer, activation, image)
        falls = _measure_falls(replay, logits, activation, chunk)  # (channels, K)
        everything.append(logits)
        weights.append(falls.T)
        activations.append(activation)
    logits = torch.cat(everything)
    chosen = index_classes(logits, class_idx)
    picked = torch.stack([by_class[at] for by_class, at in zip(weights, chosen, strict=True)])
    with torch.autocast(images.device.type, enabled=False):
        maps = mix_channels(picked, widen(torch.cat(activations)))
    return logits, maps if signed else maps.relu()


def _score_channels(network: nn.Module, image: Tensor, maps: Tensor, chunk: int) -> Tensor:
    """Logits (channels, K) of an image (C, *spatial) times each map, scaled to [0, 1]."""
    scores = []
    for part in maps.split(chunk):
        advance(0)
        masks = resize_to(part[:, None], image.shape[1:])
        spatial = tuple(range(2, masks.ndim))
        low, high = masks.amin(spatial, keepdim=True), masks.amax(spatial, keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=torch.finfo(masks.dtype).tiny)
        scores.append(widen(network(masks.to(image.dtype) * image)))
    return torch.cat(scores)


def _measure_falls(replay: Replay, logits: Tensor, activation: Tensor, chunk: int) -> Tensor:
    """How far each logit falls (channels, K) when one channel of (1, C, *spatial) is zero."""
    active = activation[0].flatten(1).any(dim=1).nonzero().flatten()
    falls = widen(logits).new_zeros(activation.shape[1], logits.shape[1])
    for part in active.split(chunk):
        advance(0)
        ablated = activation.repeat_interleave(len(part), dim=0)
        ablated[torch.arange(len(part), device=part.device), part] = 0
        falls[part] = widen(logits) - widen(replay(ablated))
    return falls
