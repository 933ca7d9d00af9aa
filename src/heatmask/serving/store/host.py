"""The store as MONAI Label's apps, tasks and strategies ask for it."""

import io
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from heatmask.data.paths import split_scan_name
from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store.labels import FINAL, ORIGINAL, Version
from heatmask.serving.store.links import SERIES, split_link


class HostDatastore(Datastore):
    """MONAI Label's `Datastore` on what a `Store` knows.

    The id of a label is that of its image, as in the host's own store. There is no client in this
    interface, so images that were sent for one client only are not listed, but found by our id.
    """

    @abstractmethod
    def find_image(self, image_id: str) -> Path:
        """Return the file of an image, or raise `NotFoundError`."""

    @abstractmethod
    def open_volume(self, image_id: str) -> Path:
        """Return the file in which viewers get an image."""

    @abstractmethod
    def list_current(self, image_id: str) -> dict[str, Version]:
        """Return the current label of an image under each tag."""

    @abstractmethod
    def prelabel(
        self, image_id: str, file: Path, info: Mapping[str, Any], model: str, params: Any
    ) -> Version:
        """Store a model's label."""

    @abstractmethod
    def send_image(self, file: Path, name: str, client: str, shared: bool = False) -> str:
        """Store an image."""

    @abstractmethod
    def get_notes(self, image_id: str) -> dict[str, Any]:
        """Return what clients and strategies said of an image."""

    def name(self) -> str:
        """Return the name of the store."""
        return "Heatmask"

    def set_name(self, name: str) -> None:
        """Refuse another name."""
        raise InputError("The store's name cannot be changed.")

    def description(self) -> str:
        """Return what the store holds."""
        return "Studies, images sent by clients, and versions of their labels"

    def set_description(self, description: str) -> None:
        """Refuse another description."""
        raise InputError("The store's description cannot be changed.")

    def datalist(self) -> list[dict[str, Any]]:
        """Return the paths of labelled images and their submitted labels."""
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.get_labeled_images()
        ]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return the label's id under each tag."""
        return dict.fromkeys(self.list_current(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return a label's id, empty if there is none."""
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_image(self, image_id: str, params: Any = None) -> io.BytesIO | None:
        """Return an image's file, None if there is no such image."""
        if not self.get_image_uri(image_id):
            return None
        return io.BytesIO(self.open_volume(image_id).read_bytes())

    def get_image_uri(self, image_id: str) -> str:
        """Return an image's path, empty if there is no such image.

        It is the place in the flat folder and not where the link leads to, from where the other
        scans of the study cannot be found.
        """
        try:
            return str(self.find_image(image_id))
        except NotFoundError:
            return ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known of an image, empty if there is no such image."""
        path = self.get_image_uri(image_id)
        if not path:
            return {}
        return {**self.get_notes(image_id), "name": name_volume(Path(path)), "path": path}

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> io.BytesIO | None:
        """Return the current label's file, None if there is none."""
        path = self.get_label_uri(label_id, label_tag)
        return io.BytesIO(Path(path).read_bytes()) if path else None

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of the current label, empty if there is none."""
        version = self.list_current(label_id).get(label_tag)
        return str(version.path) if version else ""

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what is known of the current label, empty if there is none."""
        version = self.list_current(label_id).get(label_tag)
        return describe_version(version) if version else {}

    def get_labeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Return the images with a submitted label, of any kind, as in the host."""
        return [image for image in self.list_images() if FINAL in self.list_current(image)]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Return the images without a submitted label."""
        return [image for image in self.list_images() if FINAL not in self.list_current(image)]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Refuse to hand out everything at once."""
        raise InputError("The store is not handed out as a whole. Use `heatmask labels --export`.")

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store an image that everybody sees; return our id."""
        return self.send_image(Path(image_filename), image_id, "", shared=True)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Store a model's label; a submitted one is stored by `Store.submit` alone.

        Raises
        ------
        InputError
            It shall become another label than `ORIGINAL`.
        """
        if label_tag != ORIGINAL:
            raise InputError(
                f"label_tag must be '{ORIGINAL}' for what a model makes, got {label_tag!r:.40}. "
                "A corrected label is stored by Submit alone."
            )
        info = dict(label_info)
        model, params = str(info.pop("model", "")), info.pop("params", {})
        return self.prelabel(image_id, Path(label_filename), info, model, params).image

    def status(self) -> dict[str, Any]:
        """Return how many images there are, and how many have labels."""
        images = self.list_images()
        tags = [tag for image in images for tag in self.list_current(image)]
        return {
            "total": len(images),
            "completed": tags.count(FINAL),
            "label_tags": {tag: tags.count(tag) for tag in sorted(set(tags))},
        }

    def json(self) -> dict[str, Any]:
        """Return all images and their current labels, without paths."""
        return {
            "name": self.name(),
            "description": self.description(),
            "objects": {image: self._describe(image) for image in self.list_images()},
        }

    def _describe(self, image: str) -> dict[str, Any]:
        info = self.get_image_info(image)
        extension = split_scan_name(info["name"])[1]
        del info["path"]
        labels = {
            tag: {"ext": "".join(version.path.suffixes), "info": describe_version(version)}
            for tag, version in self.list_current(image).items()
        }
        return {"image": {"ext": extension, "info": info}, "labels": labels}


def name_volume(place: Path) -> str:
    """Return the name of the file in which viewers get the image at a place."""
    case, suffix = split_link(place)
    return f"{case}.nii.gz" if suffix == SERIES else place.name


def describe_version(version: Version) -> dict[str, Any]:
    """Return what clients may know of a version: all but where its file lies."""
    return {
        **version.info,
        "ts": int(datetime.fromisoformat(version.time).timestamp()) if version.time else 0,
        "name": f"{version.image}{''.join(version.path.suffixes)}",
        "version": version.number,
        "time": version.time,
        "person": version.person,
        "model": version.model,
        "conflict": version.conflict,
    }
