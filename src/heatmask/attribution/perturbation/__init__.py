"""Methods that take parts of the image away."""

from heatmask.attribution.perturbation import methods

__all__ = ["methods"]
