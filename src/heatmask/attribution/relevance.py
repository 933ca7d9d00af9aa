"""Layer-wise relevance propagation (LRP): the logit handed back, layer by layer, to the pixels.

The rules are zennit's, which sets them on modules. What a network does outside of modules is
put right first (`heatmask.attribution.canonical`), so that no canonizer for its architecture
is needed: MONAI's ResNet adds its skips in ``forward``, works in place, and keeps batch norms
apart from convolutions, on which plain zennit gives up to 250 times the logit.

What biases add to a logit is nobody's share: relevance and what biases keep sum to the logit,
which is checked on every call.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.attribution.canonical import BatchNorm, Layer, Shares, fold_batch_norms, stabilize
from heatmask.attribution.classes import ClassIdx, differentiate, select_logits
from heatmask.attribution.registry import Explained, register
from heatmask.errors import MethodError, OptionError

TOLERANCE = 0.01
"""Largest error of the sum of relevance and the biases' share, relative to either."""


@register(
    "lrp_epsilon", family="relevance", needs=("gradients", "zennit"),
    invariants=("conservation",), cost="1 forward, 1 backward; 2.6 times saliency", passes=2,
    paper="Bach et al. 2015, doi 10.1371/journal.pone.0130140",
    source="zennit, on a canonical form of the network by Heatmask",
)  # fmt: skip
def explain_by_lrp_epsilon(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, epsilon: float = 0.25
) -> Explained:
    """The logit handed back by each input's share of every sum, small sums damped.

    `epsilon` is the damping of convolutions, relative to the root mean square of their output;
    the default is that of Montavon et al. 2019 (doi 10.1007/978-3-030-28954-6_10). With 0 and
    ReLU activations the result is input x gradient.

    Raises
    ------
    MethodError
        zennit is not installed, or see `propagate_relevance`.
    """
    if not isinstance(epsilon, int | float) or not 0 <= epsilon < float("inf"):
        raise OptionError(f"epsilon must be a number of at least 0, got {epsilon!r}.")
    composites, rules, types = _load_zennit()
    damped, exact = rules.Epsilon(partial(stabilize, epsilon=epsilon)), rules.Epsilon(stabilize)
    composite = composites.LayerMapComposite(
        [
            (types.Activation, rules.Pass()),
            (types.Convolution, damped),
            ((types.Linear, types.BatchNorm), exact),
        ]
    )
    logits = fold_batch_norms(network, images)
    return propagate_relevance(network, images, class_idx, composite, logits)


@register(
    "lrp_epsilon_plus", family="relevance", needs=("gradients", "zennit"),
    invariants=("conservation",), cost="1 forward, 1 backward; 3.6 times saliency", passes=2,
    paper="Montavon et al. 2019, doi 10.1007/978-3-030-28954-6_10",
    source="zennit, on a canonical form of the network by Heatmask",
)  # fmt: skip
def explain_by_lrp_epsilon_plus(
    network: nn.Module, images: Tensor, class_idx: ClassIdx
) -> Explained:
    """The logit handed back by each input's share of what is positive in a convolution.

    This is zennit's EpsilonPlus: z+ for convolutions, epsilon for linear layers.

    Raises
    ------
    MethodError
        zennit is not installed; a batch norm does not directly follow a convolution or a
        linear layer (DenseNet), so that what counts as positive is not what raises the
        activation; or see `propagate_relevance`.
    """
    composites, _, _ = _load_zennit()
    logits = fold_batch_norms(network, images)
    left = [name for name, module in network.named_modules() if isinstance(module, BatchNorm)]
    if left:
        raise MethodError(
            "lrp_epsilon_plus needs every batch norm right after a convolution or a linear "
            f"layer, and {len(left)} of {type(network).__name__} are not, such as {left[0]!r}."
        )
    composite = composites.EpsilonPlus(epsilon=stabilize, stabilizer=stabilize)
    return propagate_relevance(network, images, class_idx, composite, logits)


def _load_zennit() -> tuple[Any, Any, Any]:
    try:
        from zennit import composites, rules, types
    except ImportError as error:
        raise MethodError(
            "LRP needs the package zennit, which is not installed. Install it: "
            'pip install "heatmask[relevance]"'
        ) from error
    return composites, rules, types


def propagate_relevance(
    network: nn.Module, images: Tensor, class_idx: ClassIdx, composite: Any, first_logits: Tensor
) -> Explained:
    """Return logits (B, K) and relevance (B, M, *spatial) by the rules of a zennit composite.

    Parameters
    ----------
    network
        A canonical private copy.
    composite
        A `zennit.core.Composite`.
    first_logits
        Logits of the first image before the network was made canonical.

    Raises
    ------
    MethodError
        The network holds something without a rule, or uses a layer twice.
    """
    ledger = _Ledger(network, len(images))
    images = images.detach().requires_grad_()
    with composite.context(network):
        with Shares():
            logits = network(images)
        if not torch.allclose(logits[:1], first_logits, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise _refuse(network, "its logits change when batch norms and sums are made explicit")
        scores = select_logits(logits, class_idx)
        (relevance,) = differentiate(scores * scores.detach(), [images])
    _check_conserved(network, relevance, scores.detach(), ledger.kept)
    return logits.detach(), relevance.sum(2)


def _check_conserved(network: nn.Module, relevance: Tensor, scores: Tensor, kept: Tensor) -> None:
    found = relevance.flatten(1)
    reach, size = found.abs().sum(1), scores.abs().sum(1)
    rounding = 100 * torch.finfo(found.dtype).eps * (reach + size)
    errors = (found.sum(1) + kept - scores.sum(1)).abs() - rounding
    errors = errors / torch.minimum(reach, size)
    wrong = float(errors.nan_to_num(0.0).max())
    if wrong > TOLERANCE:
        raise _refuse(
            network,
            "relevance and the biases' share must sum to the logit, and miss it by "
            f"{wrong:.2g} of it",
        )


def _refuse(network: nn.Module, reason: str) -> MethodError:
    return MethodError(
        "LRP needs a network of convolutions, linear layers, batch norms, activations, pooling "
        f"and sums, each layer used once, and {type(network).__name__} is not: {reason}."
    )


class _Ledger:
    """Books what layers keep of the relevance: the share of their biases and of damping."""

    def __init__(self, network: nn.Module, batch: int) -> None:
        self.kept = torch.zeros(())
        self._batch = batch
        self._network = network
        self._seen: set[nn.Module] = set()
        for module in network.modules():
            if isinstance(module, Layer | BatchNorm):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def _enter(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        if module in self._seen:  # zennit would take the last call's input for every call's
            raise _refuse(self._network, f"it calls one {type(module).__name__} twice")
        self._seen.add(module)
        passed = inputs[0].view_as(inputs[0])  # the module's own, whatever else reads the input
        if passed.requires_grad:
            passed.register_hook(partial(self._book, sign=-1))
        return passed

    def _leave(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(partial(self._book, sign=1))

    def _book(self, relevance: Tensor, sign: int) -> None:
        self.kept = self.kept + sign * relevance.reshape(self._batch, -1).sum(1)
