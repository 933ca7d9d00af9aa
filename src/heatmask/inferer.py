"""From a volume to a heatmap on its grid, slice by slice in batches.

MONAI's `SliceInferer` stitches tensors that all have spatial axes; logits have none, so the
loop is our own.
"""

import contextlib

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import Tensor, nn

from heatmask.attribution.batches import classify_in_batches
from heatmask.attribution.channels import explain_present_channels
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.attribution.preflight import require_sound
from heatmask.errors import InputError, OptionError


class HeatmapInferer(Inferer):
    """Explain a classifier's decision on every slice of volumes.

    Parameters
    ----------
    slice_axis
        Spatial axis of the volume along which the slices lie (0, 1 or 2; 2 is axial in RAS).
    batch_size
        Slices a forward; changes memory and speed, not the result.
    gate
        Show a class only on slices where the classifier predicts it: for one class where
        its probability is at least `gate_probability`, for several where it is the largest.
        Without it a class is shown on every slice that is not all zero.
    gate_probability
        The probability a one-class gate asks for, in [0, 1].
    empty_value
        Heatmap value where a class is not shown: the low end of the bundle's calibration.
        All-zero slices are not run at all.
    amp
        Mixed precision: float16 on CUDA, bfloat16 on the CPU.
    explainer
        The attribution method; None for the heatmap of a network that explains itself.
    max_memory_gb
        Memory that a batch may take, in 10^9 bytes; batches are smaller where `batch_size`
        slices would need more.
    none_logit
        With several classes: a slice may show none of them, which takes part in the softmax with
        the logit 0.
    check
        Refuse a method that would be wrong on the network, before the first volume (see
        `heatmask.attribution.preflight`).

    Notes
    -----
    The inferer holds no state between calls, so that threads may share it.
    """

    def __init__(
        self,
        slice_axis: int = 2,
        batch_size: int = 16,
        gate: bool = True,
        gate_probability: float = 0.5,
        empty_value: float = 0.0,
        amp: bool = False,
        explainer: Explainer | None = None,
        max_memory_gb: float | None = None,
        check: bool = True,
        none_logit: bool = False,
    ) -> None:
        super().__init__()
        if slice_axis not in (0, 1, 2):
            raise OptionError(f"slice_axis must be 0, 1 or 2, got {slice_axis!r}.")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(
                f"batch_size must be a whole number of at least 1, got {batch_size!r}."
            )
        if not 0 <= gate_probability <= 1:
            raise OptionError(f"gate_probability must lie in [0, 1], got {gate_probability!r}.")
        self.explainer = explainer or Explainer("inherent")
        self.max_memory_gb, self.check, self.none_logit = max_memory_gb, check, none_logit
        self.slice_axis, self.batch_size, self.gate = slice_axis, batch_size, gate
        self.gate_probability, self.empty_value, self.amp = gate_probability, empty_value, amp

    def __call__(
        self, inputs: Tensor, network: nn.Module, *args: object, **kwargs: object
    ) -> dict[str, Tensor]:
        """Explain volumes (B, C, X, Y, Z).

        Returns
        -------
        dict
            ``heatmap`` (B, K, X, Y, Z), float32, raw scale, with the inputs' affine and history
            if they are MetaTensors; ``shown`` (B, slices, K), bool: where the heatmap holds an
            attribution; ``slice_probabilities`` (B, slices, K), 0 for all-zero slices;
            ``probabilities`` (B, K), the maximum over the slices.

        Raises
        ------
        InputError
            The inputs are not five-dimensional, or the network wants other channels.
        MethodError
            The method cannot explain this network, or would be wrong on it.
        """
        if inputs.ndim != 5:
            raise InputError(
                f"Volumes must come as (batch, channel, X, Y, Z), got shape {tuple(inputs.shape)}."
            )
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if self.check:
            one_slice = plain[0].select(self.slice_axis + 1, 0)
            require_sound(self.explainer, network, one_slice.shape)
        results = [self._explain_volume(volume, network) for volume in plain]
        heatmap, slices, shown = (torch.stack(parts) for parts in zip(*results, strict=True))
        if isinstance(inputs, MetaTensor):
            heatmap = convert_to_dst_type(heatmap, inputs, dtype=torch.float32)[0]
        return {
            "heatmap": heatmap,
            "shown": shown,
            "slice_probabilities": slices,
            "probabilities": slices.amax(dim=1),
        }

    def _explain_volume(self, volume: Tensor, network: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        slices = volume.movedim(self.slice_axis + 1, 0)  # (slices, C, H, W)
        kept = slices.flatten(1).ne(0).any(dim=1).nonzero().flatten()
        if len(kept) == 0:
            raise InputError("A volume must have at least one slice that is not all zero.")
        logits, attribution, explained = self._explain_slices(slices[kept], network)
        kept_probabilities, kept_shown = self._predict(logits)
        probabilities = logits.new_zeros(len(slices), logits.shape[1])
        probabilities[kept] = kept_probabilities
        shown = torch.zeros_like(probabilities, dtype=torch.bool)
        shown[kept] = kept_shown
        grid = slices.shape[2:]
        heatmap = logits.new_full((len(slices), logits.shape[1], *grid), self.empty_value)
        heatmap[shown] = attribution[kept_shown[explained]]
        return heatmap.movedim(0, self.slice_axis + 1), probabilities, shown

    def _explain_slices(self, slices: Tensor, network: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of all slices, attribution of those explained, and which these are.

        Only slices that will be shown are explained, unless that costs no more than the logits.
        """
        autocast = (
            torch.autocast(slices.device.type, torch.float16 if slices.is_cuda else torch.bfloat16)
            if self.amp
            else contextlib.nullcontext()
        )
        look_first = self.gate and not self.explainer.method.in_one_forward
        with autocast:
            if not look_first:
                everything = torch.ones(len(slices), dtype=torch.bool, device=slices.device)
                explanation = self._explain(slices, network)
                return explanation.logits, explanation.attribution, everything
            logits = classify_in_batches(network, slices, self.batch_size, self.max_memory_gb)
            explained = self._predict(logits)[1].any(dim=1)
            if not explained.any():
                return logits, logits.new_zeros(0, logits.shape[1], *slices.shape[2:]), explained
            return logits, self._explain(slices[explained], network).attribution, explained

    def _explain(self, slices: Tensor, network: nn.Module) -> Explanation:
        return explain_present_channels(
            self.explainer,
            network,
            slices,
            batch_size=self.batch_size,
            max_memory_gb=self.max_memory_gb,
        )

    def _predict(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and which classes are shown, both (B, K)."""
        if logits.shape[1] == 1:
            probabilities = logits.sigmoid()
            predicted = probabilities >= self.gate_probability
        else:
            scores = nn.functional.pad(logits, (0, 1)) if self.none_logit else logits
            probabilities = scores.softmax(dim=1)
            predicted = probabilities == probabilities.amax(dim=1, keepdim=True)
            classes = logits.shape[1]
            probabilities, predicted = probabilities[:, :classes], predicted[:, :classes]
        return probabilities, predicted if self.gate else torch.ones_like(predicted)
