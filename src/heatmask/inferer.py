"""From a volume to a heatmap on its grid, slice by slice in batches.

MONAI's `SliceInferer` stitches tensors that all have spatial axes; logits have none, so the
loop is our own.
"""

import contextlib
from dataclasses import dataclass, field

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import Tensor, nn

from heatmask.attribution.batches import classify_in_batches, explain_present_channels
from heatmask.attribution.checks import require_sound
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.device import use_full_float32
from heatmask.errors import InputError, OptionError
from heatmask.geometry import find_slice_axis
from heatmask.options import check_options, option


@dataclass(eq=False)
class HeatmapInferer(Inferer):
    """Explain a classifier's decision on every slice of volumes.

    Parameters
    ----------
    slice_axis
        A volume of a single slice has only one (see `heatmask.geometry.find_slice_axis`).
    gate, gate_probability
        For one class the gate asks for its probability, for several for the largest one. Without
        the gate a class is shown on every slice that is not all zero.
    empty_value
        Heatmap value where a class is not shown: the low end of the bundle's calibration.
        All-zero slices are not run at all.
    explainer
        The attribution method; by default the heatmap of a network that explains itself.
    none_logit
        With several classes: a slice may show none of them, which takes part in the softmax with
        the logit 0.
    one_class
        With several classes: a volume shows one of them at most, on the slices that the network's
        own gate lets through, its submodule ``gate`` (see `heatmask.networks.gated_cnn`). It is
        the class whose probabilities have the largest sum there. A slice's probability of a class
        is the gate's times the classifier's. A volume of one slice needs no gate: somebody has
        chosen that slice.
    check
        Refuse a method that would be wrong on the network, before the first volume (see
        `heatmask.attribution.checks`).

    Notes
    -----
    The inferer holds no state between calls, so that threads may share it.
    """

    slice_axis: int = option(
        2,
        "Axis of the volume along which the slices lie; 2 is axial in RAS.",
        choices=(0, 1, 2),
        in_panel=True,
    )
    batch_size: int = option(
        16, "Slices a forward; changes memory and speed, not the result.", low=1
    )
    gate: bool = option(True, "Mask only slices predicted to hold the finding.", in_panel=True)
    gate_probability: float = option(
        0.5, "Probability that the gate asks for.", low=0.0, high=1.0, in_panel=True
    )
    gate_scope: str = option(
        "slice",
        "What the gate lets through: single slices, or the whole volume if one of them passes.",
        choices=("slice", "volume"),
    )
    empty_value: float = 0.0
    amp: bool = option(
        False, "Mixed precision: float16 on CUDA, bfloat16 on the CPU.", in_panel=True
    )
    explainer: Explainer = field(default_factory=lambda: Explainer("inherent"))
    max_memory_gb: float | None = option(
        None,
        "Memory that a batch may take, in 10^9 bytes; batches are smaller where need be.",
        low=0.0,
        optional=True,
    )
    check: bool = True
    none_logit: bool = option(False, "Whether a slice may show none of several classes.")
    one_class: bool = option(False, "Whether a volume shows one of several classes at most.")

    def __post_init__(self) -> None:
        super().__init__()
        check_options(self)
        if self.one_class and self.none_logit:
            raise OptionError(
                "one_class must not be given with none_logit: the gate says where there is none. "
                "Leave one of them out."
            )

    @use_full_float32()
    def __call__(
        self, inputs: Tensor, network: nn.Module, *args: object, **kwargs: object
    ) -> dict[str, Tensor]:
        """Explain volumes (B, C, X, Y, Z).

        Returns
        -------
        dict
            ``heatmap`` (B, K, X, Y, Z), float32, raw scale, with the inputs' affine and history
            if they are MetaTensors; ``shown`` (B, slices, K), bool: where the heatmap holds an
            attribution; ``predicted`` (B, slices, K), bool: what the gate lets through;
            ``slice_probabilities`` (B, slices, K), 0 for all-zero slices; ``probabilities`` (B, K),
            the maximum over the slices.

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
            slices = plain[0].movedim(self._find_axis(plain[0]), 0)
            require_sound(self.explainer, network, self._get_image_shape(slices))
        results = [self._explain_volume(volume, network) for volume in plain]
        out = {name: torch.stack([result[name] for result in results]) for name in results[0]}
        if isinstance(inputs, MetaTensor):
            out["heatmap"] = convert_to_dst_type(out["heatmap"], inputs, dtype=torch.float32)[0]
        return {**out, "probabilities": out["slice_probabilities"].amax(dim=1)}

    def _explain_volume(self, volume: Tensor, network: nn.Module) -> dict[str, Tensor]:
        axis = self._find_axis(volume)
        slices = volume.movedim(axis, 0)  # (slices, C, H, W)
        kept = slices.flatten(1).ne(0).any(dim=1).nonzero().flatten()
        if len(kept) == 0:
            raise InputError("A volume must have at least one slice that is not all zero.")
        present = self._find_any(slices[kept], network, len(slices)) if self.one_class else None
        logits, attribution, explained = self._explain_slices(slices[kept], network, present)
        probabilities, predicted, shown = (
            _fill(values, kept, len(slices)) for values in self._predict(logits, present)
        )
        grid = slices.shape[2:]
        heatmap = logits.new_full((len(slices), logits.shape[1], *grid), self.empty_value)
        heatmap[shown] = attribution[shown[kept][explained]]
        return {
            "heatmap": heatmap.movedim(0, axis),
            "shown": shown,
            "predicted": predicted,
            "slice_probabilities": probabilities,
        }

    def _find_axis(self, volume: Tensor) -> int:
        """Return the axis of the slices of a volume (C, X, Y, Z)."""
        return find_slice_axis(volume.shape[1:], self.slice_axis) + 1

    def _autocast(self, slices: Tensor) -> contextlib.AbstractContextManager[object]:
        if not self.amp:
            return contextlib.nullcontext()
        dtype = torch.float16 if slices.is_cuda else torch.bfloat16
        return torch.autocast(slices.device.type, dtype)

    def _find_any(self, slices: Tensor, network: nn.Module, count: int) -> Tensor:
        """Return the probability (N,) that slices (N, C, H, W) of a volume show any class."""
        gate = getattr(network, "gate", None)
        if not isinstance(gate, nn.Module):
            raise OptionError(
                f"With one_class the network must have a gate, and {type(network).__name__} has "
                "none. Give it one (heatmask.networks.gated_cnn), or leave out one_class."
            )
        if count == 1:
            return slices.new_ones(1)
        with self._autocast(slices):
            logits = classify_in_batches(gate, slices, self.batch_size, self.max_memory_gb)
        return logits[:, 0].float().sigmoid()

    def _explain_slices(
        self, slices: Tensor, network: nn.Module, present: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of all slices, attribution of those explained, and which these are.

        Only slices that will be shown are explained, unless that costs no more than the logits.
        """
        look_first = self.gate and not self.explainer.method.in_one_forward
        with self._autocast(slices):
            if not look_first:
                everything = torch.ones(len(slices), dtype=torch.bool, device=slices.device)
                explanation = self._explain(slices, network, everything)
                return explanation.logits, explanation.attribution, everything
            logits = self._classify(slices, network)
            explained = self._predict(logits, present)[2].any(dim=1)
            if not explained.any():
                return logits, logits.new_zeros(0, logits.shape[1], *slices.shape[2:]), explained
            return logits, self._explain(slices, network, explained).attribution, explained

    def _get_image_shape(self, slices: Tensor) -> torch.Size:
        """Return the shape (C, ...) of what the network gets of slices (N, C, H, W)."""
        return slices.shape[1:]

    def _classify(self, slices: Tensor, network: nn.Module) -> Tensor:
        """Return the logits (N, K) of slices (N, C, H, W)."""
        return classify_in_batches(network, slices, self.batch_size, self.max_memory_gb)

    def _explain(self, slices: Tensor, network: nn.Module, chosen: Tensor) -> Explanation:
        """Explain the chosen (N,) of the slices."""
        return self._explain_images(slices[chosen], network)

    def _explain_images(self, images: Tensor, network: nn.Module) -> Explanation:
        return explain_present_channels(
            self.explainer,
            network,
            images,
            batch_size=self.batch_size,
            max_memory_gb=self.max_memory_gb,
        )

    def _predict(self, logits: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the probabilities, which classes are predicted and which shown, all (N, K)."""
        if present is not None:
            return self._predict_one_class(logits.softmax(dim=1), present)
        if logits.shape[1] == 1:
            probabilities = logits.sigmoid()
            predicted = probabilities >= self.gate_probability
        else:
            scores = nn.functional.pad(logits, (0, 1)) if self.none_logit else logits
            probabilities = scores.softmax(dim=1)
            predicted = probabilities == probabilities.amax(dim=1, keepdim=True)
            classes = logits.shape[1]
            probabilities, predicted = probabilities[:, :classes], predicted[:, :classes]
        if not self.gate:
            return probabilities, predicted, torch.ones_like(predicted)
        if self.gate_scope == "volume":
            return probabilities, predicted, predicted.any(dim=0).expand_as(predicted)
        return probabilities, predicted, predicted

    def _predict_one_class(self, classes: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        passes = present >= self.gate_probability
        support = classes[passes] if passes.any() else classes
        best = nn.functional.one_hot(support.sum(dim=0).argmax(), classes.shape[1]).bool()
        predicted = best & passes[:, None]
        shown = predicted if self.gate else best.expand_as(predicted)
        return present[:, None] * classes, predicted, shown


def _fill(values: Tensor, places: Tensor, count: int) -> Tensor:
    """Return `count` rows, zero but those of `values` (N, K) at `places` (N,)."""
    rows = values.new_zeros(count, values.shape[1])
    rows[places] = values
    return rows
