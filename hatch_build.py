"""Build hook: what lies beside the package in a checkout lies inside it in a wheel."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedFolders(BuildHookInterface):
    """Put bundles and app into the wheel; an editable install finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders, as `heatmask.bundle.find.find_shipped` looks for them."""
        if version == "standard":
            folders = {name: f"heatmask/shipped/{name}" for name in ("bundles", "apps")}
            build_data["force_include"].update(folders)
