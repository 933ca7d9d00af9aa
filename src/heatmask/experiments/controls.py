"""Networks that have forgotten: all of their weights drawn anew, or those nearest to the output.

Adebayo et al. 2018 (arXiv 1810.03292): what an attribution shows without the learnt weights is not
what the classifier has learnt.
"""

import copy
from typing import Any

from torch import Tensor, nn

from heatmask.errors import OptionError
from heatmask.inferer import HeatmapInferer
from heatmask.training.engine import seed_network


def make_control(network: nn.Module, control: str) -> nn.Module | None:
    """Return a copy of a network as `control` says, in eval mode; None for ``""``.

    Parameters
    ----------
    network
        With trained weights; left as it is.
    control
        ``"random:SEED"`` draws all weights anew; ``"cascade:DEPTH"`` those of the last DEPTH
        stages (`list_stages`), with seed 0.
    """
    if not control:
        return None
    kind, _, number = control.partition(":")
    if kind not in ("random", "cascade") or not number.isdecimal():
        raise OptionError(f"control must be random:SEED or cascade:DEPTH, got {control!r}.")
    forgetful = copy.deepcopy(network)
    if kind == "random":
        return seed_network(forgetful, int(number)).eval()
    stages = list_stages(forgetful)
    for stage in stages[len(stages) - int(number) :]:
        seed_network(forgetful.get_submodule(stage), 0)
    return forgetful.eval()


def list_stages(network: nn.Module) -> list[str]:
    """Return the parts of a network that have weights, from the input to the output.

    A list of modules and a classifier within a larger network stand for their own parts; a gate
    explains nothing.
    """
    names = []
    for name, child in network.named_children():
        if name == "gate" or not any(True for _ in child.parameters()):
            continue
        opened = name == "classifier" or isinstance(child, nn.ModuleList)
        inner = list_stages(child) if opened else []
        names += [f"{name}.{part}" for part in inner] or [name]
    return names


class _ShownByControl(HeatmapInferer):
    """Lets one network decide, and shows the attribution of another."""

    control: nn.Module

    def _explain_slices(
        self, slices: Tensor, network: nn.Module, present: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with self._autocast(slices):
            logits = self._classify(slices, network)
            explained = self._predict(logits, present)[2].any(dim=1)
            attribution = logits.new_zeros(0, logits.shape[1], *slices.shape[2:])
            if explained.any():
                attribution = self._explain(slices, self.control, explained).attribution
            return logits, attribution, explained


def show_control(inferer: Any, control: nn.Module) -> Any:
    """Return an inferer that shows a control's attribution where the classifier's would be.

    On the slices that the classifier lets through, so that both are compared like with like.

    Parameters
    ----------
    inferer
        A `heatmask.inferer.HeatmapInferer`; left as it is.
    control
        A network of the same build.
    """
    twin = copy.copy(inferer)
    twin.__class__ = type("ShownByControl", (_ShownByControl, type(inferer)), {})
    twin.control = control
    return twin
