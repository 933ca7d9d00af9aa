"""Start a network from another one's weights, as far as they fit."""

import logging
from pathlib import Path

import torch
from torch import nn

from heatmask.errors import WeightsError
from heatmask.training.engine import seed_network

logger = logging.getLogger(__name__)


def start_network(network: nn.Module, seed: int, weights: str | Path | None = None) -> nn.Module:
    """Draw the initial weights of a network, or take them from a checkpoint.

    Parameters
    ----------
    network
        Filled in place and returned, channels last in memory.
    seed
        What is not in the checkpoint is drawn from it; see `seed_network`.
    weights
        Tensors of the same name and shape are taken over; others, such as the last layer of a
        network for other classes, are drawn. What is left out is logged.

    Raises
    ------
    WeightsError
        The checkpoint is missing or damaged, or nothing in it fits.
    """
    seed_network(network, seed)
    if weights is None:
        return network
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
        given = content.get("model", content)
        own = network.state_dict()
        taken = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    except Exception as error:  # torch.load raises whatever the file's bytes lead to
        raise WeightsError(
            f"The weights to start from, {weights}, cannot be read: {error}. Give those of a "
            "bundle, or train from scratch."
        ) from error
    if not any(value.is_floating_point() and value.ndim > 1 for value in taken.values()):
        raise WeightsError(
            f"Nothing in {weights} fits {type(network).__name__}. Give the weights of a bundle "
            "with this network."
        )
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in taken.items()}, strict=False)
    drawn = [name for name in own if name not in taken]
    logger.info("%d tensors are from %s; drawn anew: %s", len(taken), weights, ", ".join(drawn))
    return network
