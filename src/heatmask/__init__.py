"""Heatmask: image-level classifiers, explained, as segmenters.

Importing the package is cheap; the parts that need torch are imported from their own
modules (`heatmask.networks`, `heatmask.inferer`, ...).
"""

__version__ = "0.1.0"
