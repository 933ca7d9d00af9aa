"""MONAI Bundles: found by name, opened with options overridden."""

from heatmask.bundle.config import CONFIG_SYMBOLS, read_bundle, run_bundle
from heatmask.bundle.find import DEFAULT_BUNDLE, PROJECT, find_bundle

__all__ = [
    "CONFIG_SYMBOLS",
    "DEFAULT_BUNDLE",
    "PROJECT",
    "find_bundle",
    "read_bundle",
    "run_bundle",
]
