"""Class activation maps: methods that look at the maps of a layer."""

from heatmask.attribution.cam import channel, combined, perturbed

__all__ = ["channel", "combined", "perturbed"]
