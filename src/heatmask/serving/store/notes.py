"""What clients and strategies say of an image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatmask.serving.store.durable import open_draft, publish, read_json, write_json

RESERVED = frozenset("id name display_name path image ts base_dir checksum".split())
"""What the store says of an image; a client cannot."""


class Notes:
    """Notes on images, a file each.

    Parameters
    ----------
    folder, drafts
        ``about`` and ``drafts`` of a store; they need not exist.
    """

    def __init__(self, folder: Path, drafts: Path) -> None:
        self._folder, self._drafts = folder, drafts
        self._notes = {
            path.name.removesuffix(".json"): read_json(path) for path in folder.glob("*")
        }

    def get(self, image: str) -> dict[str, Any]:
        """Return what was noted."""
        return dict(self._notes.get(image, {}))

    def update(self, image: str, notes: Mapping[str, Any]) -> None:
        """Add to what was noted; what is `RESERVED` is passed over."""
        free = {name: value for name, value in notes.items() if name not in RESERVED}
        merged = {**self.get(image), **free}
        with open_draft(self._drafts) as draft:
            write_json(draft / "notes.json", merged)
            publish(draft / "notes.json", self._folder / f"{image}.json")
        self._notes[image] = merged

    def remove(self, image: str) -> None:
        """Forget what was noted."""
        self._notes.pop(image, None)
        (self._folder / f"{image}.json").unlink(missing_ok=True)
