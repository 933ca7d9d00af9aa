"""The dictionary transforms that bundle configs name, beside MONAI's own."""

from heatmask.transforms.heatmap import CalibrateHeatmapd, HeatmapToMaskd
from heatmask.transforms.in_plane import (
    FitInPlaned,
    ResampleInPlaned,
    ResizeInPlaned,
    SmoothHeatmapd,
    StackNeighboursd,
)
from heatmask.transforms.intensity import NormalizeHeadd, ScaleByPercentilesd, ZeroBackgroundd

__all__ = [
    "CalibrateHeatmapd",
    "FitInPlaned",
    "HeatmapToMaskd",
    "NormalizeHeadd",
    "ResampleInPlaned",
    "ResizeInPlaned",
    "ScaleByPercentilesd",
    "SmoothHeatmapd",
    "StackNeighboursd",
    "ZeroBackgroundd",
]
