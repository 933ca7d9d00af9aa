"""The host's data store, with the user's own scans kept out of its reach."""

import re
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from heatmask.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]*")


class LinkedDatastore(LocalDatastore):
    """A flat folder of links to scans, whose targets are never written or deleted.

    The host's own store follows a link: to remove an image would delete the user's scan, and
    to upload one under the name of a study would overwrite it.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an uploaded image under a name that no study has."""
        check_name("image", image_id or Path(image_filename).name)
        if image_id in self.list_images():
            raise InputError(
                f"An uploaded image must have a new name, '{image_id}' is taken. Rename the file."
            )
        return str(super().add_image(image_id, image_filename, image_info))

    def get_image_uri(self, image_id: str) -> str:
        """Return an image's place in the flat folder, empty if there is no such image.

        The host's own store returns where the link leads to, from where the other scans of
        the study cannot be found.
        """
        return str(self._find_file(image_id)) if super().get_image_uri(image_id) else ""

    def remove_image(self, image_id: str) -> None:
        """Remove an uploaded image and its labels; a study stays."""
        if self._find_file(image_id).is_symlink():
            raise InputError(
                f"'{image_id}' is a scan in the folder of studies and is not deleted from here. "
                "Remove it there and start the server again."
            )
        super().remove_image(image_id)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Store a label of a listed image under ``labels/<tag>``."""
        check_name("tag", label_tag)
        check_image(self, image_id)
        return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def _find_file(self, image_id: str) -> Path:
        check_image(self, image_id)
        extension = self._datastore.objects[image_id].image.ext
        return Path(self._datastore.image_path(), self._filename(image_id, extension))


def check_image(datastore: LocalDatastore, image_id: str) -> None:
    """Refuse an image that the data store does not list.

    Raises
    ------
    InputError
        It is not in the list.
    """
    known = datastore.list_images()
    if image_id not in known:
        raise InputError(
            f"The image must be one of the {len(known)} that the server lists, got '{image_id}'. "
            "Ask for the next sample, or start the server again if the scan is new."
        )


def check_name(what: str, name: str) -> None:
    """Refuse a name that could lead out of the data store's folder.

    Raises
    ------
    InputError
        It is not a plain name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"The {what} must be a plain name of letters, digits and . _ + -, got {name!r}. "
            "Rename it."
        )
