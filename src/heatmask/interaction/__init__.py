"""Correct a mask by clicks, strokes, boxes and lassos, with the heatmap as a second opinion.

Nothing here knows of a server or a viewer: scan, heatmap, mask and edits come as arrays.
"""

from heatmask.interaction.correction import Correction
from heatmask.interaction.edits import Edit

__all__ = ["Correction", "Edit"]
