"""Methods that weigh the maps of a layer by what they mean to the logit.

`target_layer` is where they look; None takes the last map before the network loses its
spatial axes (``layer4`` of a ResNet). Maps keep the layer's resolution. Nothing is divided
by an image's own maximum: a healthy image would be as hot as any other.

Methods whose paper ends in a ReLU end in one here; ``signed=True`` leaves it out, to show
evidence against the class as well.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.cam.layers import (
    TargetLayer,
    Weigh,
    mix_channels,
    view_layers,
    weigh_classes,
    widen,
)
from heatmask.attribution.classes import ClassIdx, index_classes
from heatmask.attribution.registry import Explained, register
from heatmask.errors import MethodError

GRADIENT_CAMS: dict[str, Weigh] = {}
"""The methods that weigh a layer by its gradient, by name."""


def register_gradient_cam(
    name: str, signed: bool = False, **entry: Any
) -> Callable[[Weigh], Weigh]:
    """Register a method that weighs a layer by its gradient, as a decorator of how it does.

    The docstring of the decorated function is the method's. `signed` is the default of the
    option.
    """
    by_default = signed

    def add(weigh: Weigh) -> Weigh:
        def explain(
            network: nn.Module,
            images: Tensor,
            class_idx: ClassIdx,
            target_layer: TargetLayer = None,
            signed: bool = by_default,
        ) -> Explained:
            logits, activations = view_layers(network, images, target_layer)
            (maps,) = weigh_classes(logits, activations, class_idx, weigh)
            return logits.detach(), maps if signed else maps.relu()

        explain.__doc__ = weigh.__doc__
        source = "Heatmask: all classes from one forward, backward above the layer only"
        shared = {"family": "cam", "needs": ("gradients", "layer"), "source": source}
        register(name, **{**shared, **entry}, passes=2, in_one_forward=True)(explain)
        GRADIENT_CAMS[name] = weigh
        return weigh

    return add


@register(
    "cam", family="cam", needs=("layer", "pooled head"), passes=1,
    paper="Zhou et al. 2016, arXiv 1512.04150",
    source="Heatmask: MONAI's wants the names of the head's layers and takes any head",
    in_one_forward=True,
)  # fmt: skip
@torch.no_grad()
def explain_by_cam(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, target_layer: TargetLayer = None
) -> Explained:
    """The last map's channels, weighed by the linear layer that reads their means.

    Signed, in logit units: its mean plus the layer's bias is the logit. A network whose
    logits are anything else than a linear layer of the means is refused.
    """
    logits, (activation,) = view_layers(network, images, target_layer)
    weights = find_pooled_head(network, activation, logits).weight
    with torch.autocast(logits.device.type, enabled=False):
        chosen = widen(weights)[index_classes(logits, class_idx)]
        return logits, mix_channels(chosen, widen(activation))


@register_gradient_cam(
    "grad_cam",
    paper="Selvaraju et al. 2017, arXiv 1610.02391",
    source="Heatmask: MONAI's is wrong for batches, Captum's 2.7 times slower for 3 classes",
)
def weigh_grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """The layer's channels, weighed by their mean gradient.

    Ends in a ReLU unless `signed`.
    """
    return mix_channels(gradient.flatten(2).mean(2), activation)


@register_gradient_cam(
    "grad_cam_plus_plus",
    paper="Chattopadhay et al. 2018, arXiv 1710.11063",
    source="Heatmask: MONAI's is wrong for batches, and where gradients are small",
    size_power=0,  # weights are summed over the map, others' are its mean
)
def weigh_grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """The layer's channels, weighed by their positive gradients as if each object were one.

    Ends in a ReLU unless `signed`, which matters for layers that may be negative: it is meant
    for those after a ReLU. The paper's factor exp(logit), one number for the whole map, is left
    out: it overflows, and sets slices of a volume orders of magnitude apart.
    """
    # The paper's ratio G² / (2 G² + sum(A) G³) with G² cancelled, which is exact for small
    # gradients too. A divisor that is not positive takes negative activations.
    total = activation.flatten(2).sum(2, keepdim=True)
    positive = gradient.flatten(2).relu()
    divisor = 2 + positive * total
    weights = torch.where(divisor > 0, positive / divisor, 0).sum(2)
    return mix_channels(weights, activation)


@register_gradient_cam("hires_cam", signed=True, paper="Draelos and Carin 2020, arXiv 2011.08891")
def weigh_hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """The layer times its gradient, position by position, summed over channels.

    Where only linear layers follow, it sums to the logit minus the bias.
    """
    return (activation * gradient).sum(1)


@register_gradient_cam("xgrad_cam", paper="Fu et al. 2020, arXiv 2008.02312")
def weigh_xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """The layer's channels, weighed by their mean gradient where they are active.

    Ends in a ReLU unless `signed`. For layers that are not negative, that is after a ReLU.
    """
    total = activation.flatten(2).sum(2)
    weighted = (activation * gradient).flatten(2).sum(2)
    return mix_channels(torch.where(total != 0, weighted / total, 0), activation)


@register_gradient_cam("layer_cam", paper="Jiang et al. 2021, IEEE TIP 30:5875")
def weigh_layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """The layer times its positive gradient, position by position, summed over channels.

    Ends in a ReLU unless `signed`, which matters for layers that may be negative. For early
    layers too; the signed counterpart is hires_cam.
    """
    return (activation * gradient.relu()).sum(1)


@register(
    "eigen_cam", family="cam", needs=("layer",), cost="1 forward, 1 eigenvector of the layer",
    passes=1, paper="Muhammad and Yeasin 2020, arXiv 2008.00299",
    source="Heatmask: batched, with a settled sign", in_one_forward=True,
)  # fmt: skip
@torch.no_grad()
def explain_by_eigen_cam(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, target_layer: TargetLayer = None
) -> Explained:
    """The layer's positions, projected on their first right singular vector.

    The same map for every class: what the layer sees most of, not why the network decides,
    so a healthy image has one too. The sign is the one with a positive sum. As in the paper
    the channels' means are not taken away.
    """
    logits, (activation,) = view_layers(network, images, target_layer)
    projection = project_on_first_vector(widen(activation))
    classes = index_classes(logits, class_idx).shape[1]
    return logits, projection[:, None].expand(-1, classes, *projection.shape[1:])


def find_pooled_head(network: nn.Module, activation: Tensor, logits: Tensor) -> nn.Linear:
    """Return the linear layer that makes the logits out of the means of an activation.

    Raises
    ------
    MethodError
        None does.
    """
    mean = widen(activation).flatten(2).mean(2)
    with torch.autocast(logits.device.type, enabled=False):
        for module in network.modules():
            if isinstance(module, nn.Linear) and module.weight.shape == (
                logits.shape[1],
                mean.shape[1],
            ):
                weight = widen(module.weight)
                bias = mean.new_zeros(()) if module.bias is None else widen(module.bias)
                magnitude = mean.abs() @ weight.abs().T + bias.abs()
                distance = (mean @ weight.T + bias - logits).abs()
                if (distance <= magnitude * torch.finfo(logits.dtype).eps ** 0.5).all():
                    return module
    raise MethodError(
        f"CAM needs global average pooling of target_layer followed by one linear layer, and the "
        f"logits of {type(network).__name__} are something else. Choose the layer that is pooled."
    )


def project_on_first_vector(activation: Tensor) -> Tensor:
    """Return the first principal direction's share (B, *spatial) of (B, C, *spatial)."""
    flat = activation.flatten(2).double()
    by_position = flat.shape[2] < flat.shape[1]  # the smaller of the two Gram matrices
    gram = flat.mT @ flat if by_position else flat @ flat.mT
    values, vectors = torch.linalg.eigh(gram)
    first = vectors[..., -1:]
    projection = (
        first * values[:, None, -1:].clamp(min=0).sqrt() if by_position else flat.mT @ first
    )
    projection = projection[..., 0].to(activation.dtype)
    sign = torch.where(projection.sum(1, keepdim=True) < 0, -1, 1)
    return (sign * projection).reshape(-1, *activation.shape[2:])
