"""The standard parts of a bundle, made from its options.

A bundle's ``inference.json`` names these; what it sets at its top level are the options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc import locate
from typing import Any, cast

from monai.transforms import Compose, Invertd, Orientationd
from torch import nn

from heatmask.attribution.calibration import list_ranges, read_calibration
from heatmask.attribution.explainer import Explainer
from heatmask.block_inferer import BlockInferer
from heatmask.data.cases import Listing, list_cases
from heatmask.data.load import LoadSequencesd
from heatmask.errors import OptionError
from heatmask.inferer import HeatmapInferer
from heatmask.masks.settings import MaskSettings
from heatmask.networks.weights import load_weights
from heatmask.options import Option, check_options, list_options, option, take_options, take_part
from heatmask.transforms import (
    CalibrateHeatmapd,
    FitInPlaned,
    HeatmapToMaskd,
    NormalizeHeadd,
    ResampleInPlaned,
    ResizeInPlaned,
    ScaleByPercentilesd,
    SmoothHeatmapd,
    StackNeighboursd,
)

Options = Mapping[str, Any]
"""What a bundle's config sets, by name."""


@dataclass(frozen=True)
class ReadSettings:
    """What the network gets of a head: see `heatmask.data.load.LoadSequencesd`.

    With `image_size` the images are pictures, which have no pixel size: each slice is scaled to it,
    and black is the background. With `longest_side` a slice keeps its shape, whatever the image is.
    """

    sequences: Sequence[str] = ("FLAIR",)
    channels: Sequence[str] | None = None
    needed: str | None = None
    required: str | None = None
    min_slices: int = 2
    single_slices: bool = False
    size_mm: Sequence[float] | None = (70.0, 400.0)
    image_size: Sequence[int] | None = None
    pixel_spacing_mm: float = option(2.0, "Pixel size that the network was trained on.", low=0.01)
    longest_side: int | None = option(
        None,
        "Pixels of the longer side of a slice, in place of a pixel size.",
        low=2,
        optional=True,
    )
    intensity: str = option(
        "head",
        "Greys by the median of the head (head), or by percentiles of the whole (percentiles).",
        choices=("head", "percentiles"),
    )
    neighbours: bool = option(False, "Whether a slice comes between its neighbours, as channels.")

    def __post_init__(self) -> None:
        check_options(self)


EFFORTS = ("fast", "best")


@dataclass(frozen=True)
class ExplainSettings:
    """How the classifier is explained."""

    method: str = option("inherent", "The attribution method.", in_panel=True)
    target_layer: str | Sequence[str] = option(
        "auto", "Layer that the method looks at; auto for the method's own.", in_panel=True
    )
    effort: str = option(
        "fast",
        "fast: one look at each slice; best: the mean with its mirror image, in twice the time.",
        choices=EFFORTS,
        in_panel=True,
    )
    blur_mm: float = option(
        0.0,
        "Standard deviation of a blur of the heatmap within its slices.",
        low=0.0,
        in_panel=True,
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def layer(self) -> str | Sequence[str] | None:
        """The target layer; None for the method's own."""
        return None if self.target_layer == "auto" else self.target_layer


def list_parts(options: Options) -> tuple[type, ...]:
    """Return the classes whose fields are the options of a config.

    That of a training names its own; of the inferers only the one in 3D has blocks.
    """
    if named := options.get("options", {}).get("parts"):
        return ReadSettings, *(cast(type, locate(name)) for name in named)
    inferer = BlockInferer if "block_slices" in options else HeatmapInferer
    return ReadSettings, ExplainSettings, MaskSettings, inferer


def list_all_options(options: Options) -> dict[str, Option]:
    """Return every option of a bundle by name, each with the bundle's own default."""
    found = list_options(*list_parts(options))
    return {n: replace(o, default=options[n]) if n in options else o for n, o in found.items()}


def offer_options(folder: str | Path, config: Options) -> dict[str, Option]:
    """Return the options of a bundle that a viewer offers, by name.

    The methods are those with a known range (`heatmask.attribution.calibration`). The preset is for
    networks that explain themselves and are explained by nothing else. The effort is offered where
    the config sets it.

    Parameters
    ----------
    folder, config
        Of the bundle, the latter as it is written in ``inference.json``.
    """
    offered = {name: o for name, o in list_all_options(config).items() if o.in_panel}
    if "options" not in config:  # a bundle trained with Heatmask 0.1 spells out all it has
        offered = {name: o for name, o in offered.items() if name in config}
    methods, layers = list_ranges(Path(folder) / "models" / "model.pt")
    explained = set(methods) - {"inherent"}
    left_out = ["preset"] if explained else ["method", "target_layer", "blur_mm"]
    left_out += ["slice_axis"] if config.get("image_size") else []
    left_out += [] if "effort" in config else ["effort"]
    choices = {"method": methods, "target_layer": ["auto", *layers]}
    return {
        name: replace(o, choices=tuple(choices.get(name, o.choices)))
        for name, o in offered.items()
        if name not in left_out
    }


def resolve_options(options: Options) -> dict[str, Any]:
    """Return the value of every option, for the report."""
    values = {name: found.default for name, found in list_all_options(options).items()}
    return {**values, "calibration": list(find_calibration(options))}


def find_calibration(options: Options) -> tuple[float, float]:
    """Return the range (low, high) of the raw heatmap: as set, or that of the method."""
    if "calibration" in options:
        low, high = options["calibration"]
        return low, high
    explain = take_part(ExplainSettings, options)
    low, high = read_calibration(options["weights"], explain.method, explain.layer)
    return low, high


def load_network(options: Options, network_def: nn.Module) -> nn.Module:
    """Return the classifier with the bundle's weights."""
    return load_weights(network_def, options["weights"])


def make_preprocessing(options: Options) -> Compose:
    """Return the steps from ``{"image": scans}`` to the network's volume and ``scan``."""
    read = take_part(ReadSettings, options)
    load = LoadSequencesd(
        "image",
        read.sequences,
        channels=read.channels,
        needed=read.needed,
        required=read.required,
        min_slices=read.min_slices,
        single_slices=read.single_slices,
        size_mm=read.size_mm,
        zero_air=read.image_size is None,
    )
    orient, axis = Orientationd("image", axcodes="RAS", labels=None), options.get("slice_axis", 2)
    scale = ScaleByPercentilesd if read.intensity == "percentiles" else NormalizeHeadd
    stack = [StackNeighboursd("image", axis)] if read.neighbours else []
    return Compose([load, orient, _make_grid_step(read, axis), scale("image"), *stack])


def _make_grid_step(read: ReadSettings, slice_axis: int) -> ResampleInPlaned:
    """Return what brings the slices to the network's grid."""
    if read.longest_side is not None:
        return FitInPlaned("image", read.longest_side, slice_axis)
    if read.image_size is not None:
        return ResizeInPlaned("image", read.image_size)
    return ResampleInPlaned("image", read.pixel_spacing_mm, slice_axis)


def make_inferer(
    options: Options, explainer: Mapping[str, Any] | None = None, **settings: Any
) -> HeatmapInferer:
    """Return what explains the network.

    Parameters
    ----------
    explainer
        Further arguments of `Explainer`, such as options of the method.
    settings
        Further arguments of the inferer.
    """
    if wrong := {"method", "target_layer"} & {*(explainer or {})}:
        raise OptionError(
            f"{' and '.join(sorted(wrong))} must be set as an option of the bundle, such as --set "
            "method=saliency, and not below inferer#explainer: the heatmap's range is that of the "
            "option."
        )
    explain = take_part(ExplainSettings, options)
    flips = {"flips": (0,)} if explain.effort == "best" else {}
    method = {"method": explain.method, "target_layer": explain.layer, **flips, **(explainer or {})}
    inferer = BlockInferer if "block_slices" in options else HeatmapInferer
    given = {"empty_value": find_calibration(options)[0], **take_options(options, inferer)}
    return inferer(explainer=Explainer(**method), **{**given, **settings})


def make_masker(options: Options, **settings: Any) -> HeatmapToMaskd:
    """Return the step from the heatmap on the scan's grid to the mask, with settings changed."""
    given = {**take_options(options, MaskSettings), "calibration": find_calibration(options)}
    return HeatmapToMaskd(
        "heatmap", slice_axis=options.get("slice_axis", 2), **{**given, **settings}
    )


def make_postprocessing(options: Options, preprocessing: Compose) -> Compose:
    """Return the steps from the heatmap on the network's grid to heatmap and mask on the scan's."""
    back = Invertd("heatmap", preprocessing, orig_keys="image", nearest_interp=False)
    blur_mm = take_part(ExplainSettings, options).blur_mm
    smooth = [SmoothHeatmapd("heatmap", blur_mm, options.get("slice_axis", 2))] if blur_mm else []
    display = CalibrateHeatmapd("heatmap", find_calibration(options))
    return Compose([*smooth, back, make_masker(options), display])


def list_dataset(options: Options) -> Listing[dict[str, Any]]:
    """Return the cases below ``input``, or ``dataset_dir``, which are two names of one option."""
    read = take_part(ReadSettings, options)
    path, pattern = options.get("dataset_dir"), options.get("pattern")
    return list_cases(path, pattern, read.sequences, options.get("input"))
