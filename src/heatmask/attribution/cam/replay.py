"""Run again only what lies above a layer, on other activations of it."""

from collections import defaultdict, deque
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.layers import find_layer
from heatmask.errors import MethodError


class Replay:
    """A network's part above a layer, to be run on many activations of one image.

    Every module that finished before the layer's last call keeps its output, unless a module
    around it does, and returns it in a replay instead of working. So whatever the way from
    the layer to the logits, with skips around the layer or not, only that way is run. For the
    last stage of a ResNet it is a thousandth of the whole.

    Parameters
    ----------
    network
        A frozen private copy: its modules stay patched.
    target_layer
        Dotted module path. Of a layer that is called several times the last call counts.
    """

    def __init__(self, network: nn.Module, target_layer: str) -> None:
        self.network, self.target_layer = network, target_layer
        self._target = find_layer(network, target_layer)
        self._calls: list[tuple[nn.Module, Tensor]] = []
        self._kept: list[tuple[nn.Module, Tensor]] = []
        self._queues: dict[nn.Module, deque[Tensor]] = {}
        self._recording, self._copying = False, False
        for module in network.modules():
            if module is not network:
                self._patch(module)

    @torch.no_grad()
    def record(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run an image (1, C, *spatial) and return its logits and the layer's activation.

        Raises
        ------
        MethodError
            The layer was not called, or the network gives other logits in a replay.
        """
        self._calls.clear()
        self._kept.clear()
        self._recording = True
        logits = self.network(image)
        self._recording = False
        if not self._kept or self._kept[-1][0] is not self._target:
            raise MethodError(
                "target_layer must be part of the forward pass and give a tensor, and "
                f"{self.target_layer!r} does not."
            )
        self._image, activation = image, self._kept[-1][1]
        self._settle(logits, activation)
        return logits, activation

    @torch.no_grad()
    def __call__(self, activations: Tensor) -> Tensor:
        """Return the logits (n, K) of the recorded image with these activations of the layer."""
        count = len(activations)
        self._queues = defaultdict(deque)
        for module, output in self._kept[:-1]:
            self._queues[module].append(self._repeat(output, count))
        self._queues[self._target].append(activations)
        try:
            return self.network(self._repeat(self._image, count))
        finally:
            self._queues = {}

    def _settle(self, logits: Tensor, activation: Tensor) -> None:
        """Choose views over copies of what is kept, if nothing above works in place on them."""
        twice, expected = activation.repeat_interleave(2, 0), logits.repeat_interleave(2, 0)
        near = torch.finfo(logits.dtype).eps ** 0.5
        for self._copying in (False, True):
            try:
                again = self(twice)
            except RuntimeError:
                continue
            if again.shape == expected.shape and torch.allclose(again, expected, near, near):
                return
        raise MethodError(
            f"{type(self.network).__name__} must give the same logits when only what lies above "
            f"{self.target_layer!r} is run again, and it does not."
        )

    def _repeat(self, tensor: Tensor, count: int) -> Tensor:
        view = tensor.expand(count, *tensor.shape[1:]) if len(tensor) == 1 else tensor
        return view.clone() if self._copying else view

    def _patch(self, module: nn.Module) -> None:
        work = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._queues.get(module):
                return self._queues[module].popleft()
            start = len(self._calls)
            output = work(*args, **kwargs)
            if self._recording and isinstance(output, Tensor):
                del self._calls[start:]  # what ran within is not called in a replay
                self._calls.append((module, output.clone()))
                if module is self._target:
                    self._kept = list(self._calls)
            return output

        module.forward = forward
