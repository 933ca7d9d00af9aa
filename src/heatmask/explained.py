"""A scan that was explained: masks are made from it without asking the network again."""

import itertools
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from heatmask.errors import OptionError, reveal_reason
from heatmask.masks.settings import MaskSettings
from heatmask.options import list_options
from heatmask.result import Provenance, Result
from heatmask.transforms import HeatmapToMaskd

MASK_OPTIONS = frozenset(list_options(MaskSettings))
"""Options that change how the mask is made and nothing before it.

`calibration` is none of them: its low end fills the heatmap where a class is not shown.
"""


@dataclass(frozen=True, eq=False)
class Explained:
    """What a pipeline says of one scan before it makes the mask.

    Safe from several threads: nothing that it was given is changed.

    Attributes
    ----------
    case
        Its name.
    scan
        The scan as it was read, (1, X, Y, Z).
    heatmap
        (K, X, Y, Z), float32, raw scale, on the scan's grid.
    probabilities, slice_probabilities, shown, predicted, class_names, slice_axis
        See `heatmask.result.Result`.
    finishing
        The steps of the postprocessing that are left: the first makes the mask.
    seconds
        By stage, until here.
    provenance
        What made it.
    """

    case: str
    scan: MetaTensor
    heatmap: MetaTensor
    probabilities: Tensor
    slice_probabilities: Tensor
    shown: Tensor
    predicted: Tensor
    class_names: tuple[str, ...]
    slice_axis: int
    finishing: Sequence[Callable[..., Any]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def masker(self) -> HeatmapToMaskd:
        """The step that makes the mask, as the pipeline has it."""
        step: Any = self.finishing[0]
        return step

    @property
    def settings(self) -> MaskSettings:
        """How the pipeline makes the mask."""
        return self.masker.settings

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its volumes take."""
        return sum(t.element_size() * t.nelement() for t in (self.scan, self.heatmap))

    def make_mask(self, options: Mapping[str, Any] | None = None) -> MetaTensor:
        """Return the mask (1, X, Y, Z), uint8: 0 background, k + 1 for class k.

        Parameters
        ----------
        options
            Some of `MASK_OPTIONS`; the others are as in the pipeline.

        Raises
        ------
        OptionError
            One is no option of the mask, or has a value that it must not have.
        """
        mask: MetaTensor = self._change_masker(options or {})(self._list_volumes())["mask"]
        return mask

    def make_result(self, options: Mapping[str, Any] | None = None) -> Result:
        """Return the whole result; see `make_mask`."""
        options, start = options or {}, time.perf_counter()
        steps = [self._change_masker(options), *self.finishing[1:]]
        with reveal_reason():
            data: dict[str, Any] = dict(Compose(steps)(self._list_volumes()))
        seconds = {**self.seconds, "make mask": round(time.perf_counter() - start, 4)}
        meta, provenance = self.scan.meta, self.provenance
        return Result(
            case=self.case,
            image=str(meta.get("filename_or_obj", "")),
            **data,
            class_names=self.class_names,
            slice_axis=self.slice_axis,
            sequence=meta.get("sequence", "unknown"),
            sequences=tuple(meta.get("sequences_used", ())),
            warnings=tuple(meta.get("warnings") or ()),
            seconds=seconds,
            provenance=replace(provenance, options={**provenance.options, **options}),
        )

    def find_levels(self, options: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Return where the thresholds lie between the ends of `calibration`, 0 and 1, by class.

        Returns
        -------
        dict
            ``used``, what these options lead to (see `make_mask`), and ``otsu``. None where no
            voxel is above, and for ``used`` where there is none for the whole volume.
        """
        masker, (low, high) = self._change_masker(options or {}), self.settings.calibration
        known = masker.settings.has_threshold
        used = masker.find_thresholds(self._list_volumes()) if known else ()

        def scale(raw: float) -> float | None:
            return round((raw - low) / (high - low), 4) if math.isfinite(raw) else None

        names, otsu = self.class_names, self._otsu
        pairs = itertools.zip_longest(names, used, otsu, fillvalue=math.inf)
        return {str(name): {"used": scale(one), "otsu": scale(two)} for name, one, two in pairs}

    @cached_property
    def _otsu(self) -> list[float]:
        return self.masker.change(threshold_rule="otsu").find_thresholds(self._list_volumes())

    def _list_volumes(self) -> dict[Hashable, Any]:
        names = ("scan", "heatmap", "probabilities", "slice_probabilities", "shown", "predicted")
        return {name: getattr(self, name) for name in names}

    def _change_masker(self, options: Mapping[str, Any]) -> HeatmapToMaskd:
        unknown = sorted(options.keys() - MASK_OPTIONS)
        if unknown:
            raise OptionError(
                f"An option of the mask must be one of {', '.join(sorted(MASK_OPTIONS))}, got "
                f"{', '.join(unknown)}. Explain the scan again to change others."
            )
        return self.masker.change(**options)
