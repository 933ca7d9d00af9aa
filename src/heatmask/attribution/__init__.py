"""Attribution: which pixels a classifier's decision rests on.

>>> from heatmask.attribution import explain
>>> logits, attribution = explain(network, images, "grad_cam")  # doctest: +SKIP
"""

from heatmask.attribution.batches import explain
from heatmask.attribution.explainer import Explainer, Explanation
from heatmask.attribution.registry import get_method, list_methods, register

__all__ = ["Explainer", "Explanation", "explain", "get_method", "list_methods", "register"]
