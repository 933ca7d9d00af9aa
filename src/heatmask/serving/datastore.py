"""The host's data store, with the user's own scans kept out of its reach."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore

from heatmask.data.readers.nifti import read_itk_grid
from heatmask.data.readers.reference import read_reference
from heatmask.errors import InputError
from heatmask.files import write_atomically
from heatmask.geometry import match_voxels

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]*")


class LinkedDatastore(LocalDatastore):
    """A flat folder of links to scans, whose targets are never written or deleted.

    The host's own store follows a link: to remove an image would delete the user's scan, and
    to upload one under the name of a study would overwrite it. Nor is a label lost to a file that
    is none.
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
        """Store a label of a listed image under ``labels/<tag>``, all of it or nothing.

        The host's own store copies whatever comes over the label that is there.

        Raises
        ------
        InputError
            It is no label of this image; see `check_label`.
        OutputError
            It cannot be written.
        """
        check_name("tag", label_tag)
        image = self._find_file(image_id)
        check_label(Path(label_filename), image)
        extension = self._to_id(Path(label_filename).name)[1]
        target = Path(self._datastore.label_path(label_tag), self._filename(image_id, extension))
        self._init_from_datastore_file()  # Batch inference writes it from a process of its own
        with FileLock(self._lock_file):
            with write_atomically(target) as draft:
                shutil.copyfile(label_filename, draft)
            info = {**(label_info or {}), "ts": int(time.time()), "name": target.name}
            labels = self._datastore.objects[image_id].labels
            labels[label_tag] = DataModel(info=info, ext=extension)
            self._update_datastore_file(lock=False)
        return image_id

    def _find_file(self, image_id: str) -> Path:
        check_image(self, image_id)
        extension = self._datastore.objects[image_id].image.ext
        return Path(self._datastore.image_path(), self._filename(image_id, extension))


def check_label(label: Path, image: Path) -> None:
    """Refuse a label that cannot be read, is no label map, or lies on other voxels than its image.

    A label that marks nothing is one too: "no tumour". Places are compared as ITK reads them, and
    so the viewer.

    Raises
    ------
    InputError
        With the reason; what is stored stays.
    """
    try:
        mask, _ = read_reference(label)
        match_voxels(mask, read_itk_grid(label)[1], *read_itk_grid(image))
    except InputError as error:
        raise InputError(f"This label was not stored, an earlier one is kept. {error}") from error


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
