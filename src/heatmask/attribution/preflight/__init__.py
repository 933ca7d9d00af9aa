"""Refuse a method that would give a plausible wrong map on a network.

A detached shortcut, a ReLU that no rule sees, a norm that mixes the images of a batch: each
leaves a heatmap that looks like one. The preflight finds them on a small synthetic image,
never a patient's, in double precision and within about a second.
"""

from heatmask.attribution.preflight.inspection import (
    inspect_network,
    judge_methods,
    require_sound,
)

__all__ = ["inspect_network", "judge_methods", "require_sound"]
