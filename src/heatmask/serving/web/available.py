"""What of the store a strategy may choose from."""

from typing import Any

from heatmask.errors import InputError
from heatmask.serving.store import Store


class Available:
    """A store without the images that somebody else is at work on, as strategies see it.

    Parameters
    ----------
    store
        All of it.
    client
        Who asks for a sample.

    Attributes
    ----------
    unusable : dict of str to InputError
        Images whose scan is gone or cannot be read, and why.
    """

    def __init__(self, store: Store, client: str) -> None:
        self._store, self._client = store, client
        self.unusable: dict[str, InputError] = {}

    def get_unlabeled_images(self, *_: Any, **__: Any) -> list[str]:
        """Return the images without a submitted label that this client may have."""
        images = (i for i in self._store.get_unlabeled_images() if i not in self.unusable)
        return [image for image in images if not self._store.leased(image, self._client)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
