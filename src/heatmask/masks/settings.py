"""How a heatmap becomes a mask: the options."""

from dataclasses import dataclass

from heatmask.errors import OptionError
from heatmask.options import check_options, option

THRESHOLD_RULES = ("otsu", "multi_otsu", "fixed", "warm", "level_sets")
POLARITIES = ("bright", "dark")
KEEP = ("strongest", "largest", "all")
PRESETS = ("default", "paper")


@dataclass(frozen=True)
class MaskSettings:
    """How a heatmap becomes a mask. Every unit is physical, nothing counts voxels.

    `calibration` is the bundle's fixed range (low, high) of the raw heatmap. The others say in
    their own words what they are.
    """

    calibration: tuple[float, float]
    preset: str = option(
        "default",
        "default, or the published steps of the GP networks (paper), which pass by all others.",
        choices=PRESETS,
        in_panel=True,
    )
    threshold_rule: str = option(
        "otsu",
        "otsu, multi_otsu (stricter), fixed, warm (all above warm_level), or level_sets: heatmap "
        "and scan together place the border. Only bright lesions are then snapped to the scan, and "
        "small slices at the ends are dropped where the heatmap is low.",
        choices=THRESHOLD_RULES,
        in_panel=True,
        hint="The rule level, in the heatmap's own unit, is now fixed, with a level from 0 to 1.",
    )
    threshold_level: float = option(
        0.5,
        "Threshold of the rule fixed: 0 is usual without a finding, 1 very high on a finding.",
        low=0.0,
        high=1.0,
        in_panel=True,
    )
    warm_level: float = option(
        0.35,
        "Where the rules warm and level_sets begin: 0 is the heatmap's median, 1 its peak.",
        low=0.0,
        high=1.0,
        in_panel=True,
    )
    polarity: str = option(
        "bright",
        "Whether lesions are bright or dark against what surrounds them, for the rule level_sets.",
        choices=POLARITIES,
    )
    min_volume_mm3: float = option(
        200.0, "Objects smaller than this are dropped.", low=0.0, in_panel=True
    )
    keep: str = option(
        "strongest", "Which object stays: the strongest, the largest or all.", choices=KEEP
    )
    snap: bool = option(True, "Fit the mask's border to the scan.", in_panel=True)
    snap_distance_mm: float = option(8.0, "How far the border may move to fit the scan.", low=0.0)
    # Chosen on the synthetic brains, whose lesions are known, not on any reference mask.
    smooth_mm: float = option(
        2.0, "Radius of the disc that the mask must hold: thinner bridges and fringes go.", low=0.0
    )
    otsu_offset: float = option(
        0.3, "What the preset paper takes off its threshold, in the heatmap's unit."
    )

    def __post_init__(self) -> None:
        check_options(self)
        check_calibration(self.calibration)

    @property
    def has_threshold(self) -> bool:
        """Whether the mask begins with one threshold for the whole volume."""
        return self.preset != "paper"


def check_calibration(calibration: tuple[float, float]) -> None:
    """Refuse a range whose high end is not above its low end."""
    low, high = calibration
    if not low < high:
        raise OptionError(f"calibration must be (low, high) with low < high, got {calibration}.")
