"""The MONAI Label app: wiring only. The host looks for its app class in this file."""

from heatmask.serving.app import HeatmaskApp

__all__ = ["HeatmaskApp"]
