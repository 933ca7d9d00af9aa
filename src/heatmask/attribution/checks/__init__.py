"""What must hold before a method is believed on a network.

A detached shortcut, a ReLU that no rule sees, a norm that mixes the images of a batch: each
leaves a heatmap that looks like one. The checks find them on a small synthetic image, never a
patient's, in double precision, and refuse the method.
"""

from heatmask.attribution.checks.check import Check
from heatmask.attribution.checks.inspection import inspect_network, judge_methods, require_sound

__all__ = ["Check", "inspect_network", "judge_methods", "require_sound"]
