"""From a volume to the heatmap of the one class that it shows, on the slices that show any."""

from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.batches import classify_in_batches
from heatmask.attribution.explainer import Explanation
from heatmask.errors import OptionError
from heatmask.inferer import HeatmapInferer


class TypeInferer(HeatmapInferer):
    """Explain one class of a volume, with a second classifier that says where there is any.

    A classifier that was trained on images of a finding alone finds one in every image. So a gate
    is asked first. Of the classes only that is predicted whose probabilities on the slices that
    the gate lets through have the largest sum. A volume of one slice needs no gate: somebody has
    chosen the slice.

    A slice's probability of a class is the gate's times the classifier's. Everything else is as in
    `HeatmapInferer`; its `none_logit` has no meaning here.

    Parameters
    ----------
    gate_network
        Images (B, C, H, W) to the logit (B, 1) of any class.
    gate_probability
        What the gate asks for, in [0, 1].
    channels
        How many channels, the first, the explained network takes; the gate takes all.
    options
        As of `HeatmapInferer`.
    """

    def __init__(self, gate_network: nn.Module, channels: int = 1, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(channels, int) or channels < 1:
            raise OptionError(f"channels must be a whole number from 1, got {channels!r}.")
        self.gate_network, self.channels = gate_network.eval(), channels

    def _get_image_shape(self, slices: Tensor) -> torch.Size:
        return super()._get_image_shape(slices[:, : self.channels])

    def _classify(self, slices: Tensor, network: nn.Module) -> Tensor:
        return super()._classify(slices[:, : self.channels], network)

    def _explain(self, slices: Tensor, network: nn.Module, chosen: Tensor) -> Explanation:
        return super()._explain(slices[:, : self.channels], network, chosen)

    def _predict(self, logits: Tensor, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        classes, present = logits.softmax(dim=1), self._find_any(slices)
        passes = present >= self.gate_probability
        votes = classes[passes] if passes.any() else classes
        chosen = nn.functional.one_hot(votes.sum(dim=0).argmax(), logits.shape[1]).bool()
        predicted = chosen & passes[:, None]
        shown = predicted if self.gate else chosen.expand_as(predicted)
        return present[:, None] * classes, predicted, shown

    def _find_any(self, slices: Tensor) -> Tensor:
        """Return the probability (N,) that slices (N, C, H, W) show any class."""
        if len(slices) == 1:
            return slices.new_ones(1)
        network = self.gate_network.to(slices.device)
        logits = classify_in_batches(network, slices, self.batch_size, self.max_memory_gb)
        return logits[:, 0].sigmoid()
