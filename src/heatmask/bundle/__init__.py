"""MONAI Bundles: found by name, chosen by evidence, opened with options overridden."""

from heatmask.bundle.choose import choose_bundle, pick_bundle
from heatmask.bundle.config import (
    CONFIG_SYMBOLS,
    describe_bundle,
    find_bundle_root,
    list_overrides,
    read_bundle,
    read_options,
    run_bundle,
)
from heatmask.bundle.evidence import BundleInfo, list_bundles, list_sequences, order_bundles
from heatmask.bundle.find import (
    DEFAULT_BUNDLE,
    OWN_DATA_BUNDLE,
    find_bundle,
    find_shipped,
    list_folders,
    read_metadata,
)

__all__ = [
    "CONFIG_SYMBOLS",
    "DEFAULT_BUNDLE",
    "OWN_DATA_BUNDLE",
    "BundleInfo",
    "choose_bundle",
    "describe_bundle",
    "find_bundle",
    "find_bundle_root",
    "find_shipped",
    "list_bundles",
    "list_folders",
    "list_overrides",
    "list_sequences",
    "order_bundles",
    "pick_bundle",
    "read_bundle",
    "read_metadata",
    "read_options",
    "run_bundle",
]
