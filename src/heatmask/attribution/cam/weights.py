"""How the methods of the CAM family weigh the channels of a layer.

Each function takes the layer's activation A and the gradient G of one class's logit by it,
both (B, C, *spatial), and returns a map (B, *spatial).
"""

import torch
from torch import Tensor


def mix_channels(weights: Tensor, activation: Tensor) -> Tensor:
    """Return the sum of a layer's channels, each times its weight.

    Weights are (B, C) for a map (B, *spatial), or (B, M, C) for maps (B, M, *spatial).
    """
    if weights.ndim == 2:
        return torch.einsum("bc,bc...->b...", weights, activation)
    return torch.einsum("bmc,bc...->bm...", weights, activation)


def weigh_grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weigh each channel by its mean gradient."""
    return mix_channels(gradient.flatten(2).mean(2), activation)


def weigh_grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weigh each channel by its positive gradients, each divided by 2 + G sum(A).

    The paper's ratio G² / (2 G² + sum(A) G³) with G² cancelled, which is exact for small
    gradients too. Where the divisor is not positive, which takes negative activations, the
    weight is zero.
    """
    total = activation.flatten(2).sum(2, keepdim=True)
    positive = gradient.flatten(2).relu()
    divisor = 2 + positive * total
    weights = torch.where(divisor > 0, positive / divisor, 0).sum(2)
    return mix_channels(weights, activation)


def weigh_hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Multiply activation and gradient position by position."""
    return (activation * gradient).sum(1)


def weigh_xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weigh each channel by its mean gradient, weighted by the activation."""
    total = activation.flatten(2).sum(2)
    weighted = (activation * gradient).flatten(2).sum(2)
    return mix_channels(torch.where(total != 0, weighted / total, 0), activation)


def weigh_layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Multiply activation and positive gradient position by position."""
    return (activation * gradient.relu()).sum(1)
