"""The orders in which unlabelled scans come: what Next Sample brings."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First

from heatmask.serving.store.labels import ORIGINAL


def list_strategies() -> dict[str, Strategy]:
    """Return all orders by the name that clients show."""
    return {
        "random": RandomStudy(),
        "first": First(),
        "least_certain": ByPrelabel("The mask of the lowest quality first", measure_doubt),
        "largest_lesion": ByPrelabel("The largest predicted lesion first", measure_volume_ml),
    }


class RandomStudy(Strategy):
    """A random unlabelled scan, those not shown for long first.

    The host's own strategy weighs scans by the seconds since they were shown, and fails when
    all of them were shown within the same second, for instance the only one twice.
    """

    def __init__(self) -> None:
        super().__init__("Random Strategy")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id of the next scan, or None when all are labelled."""
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        name, now = request["strategy"], int(time.time())
        infos = [datastore.get_image_info(image).get("strategy") for image in images]
        weights = [1 + max(0, now - _find_time(info, name)) for info in infos]
        return {"id": random.choices(images, weights)[0]}


def _find_time(info: Any, strategy: str) -> float:
    """Return when a strategy showed an image last; clients may have written anything there."""
    shown = info.get(strategy) if isinstance(info, dict) else None
    time_s = shown.get("ts") if isinstance(shown, dict) else 0
    return time_s if isinstance(time_s, int | float) else 0


class ByPrelabel(Strategy):
    """The unlabelled scan of which a model's stored label says the most.

    Scans that no model has labelled yet come last, in the store's order.

    Parameters
    ----------
    description
        For clients.
    measure
        What the largest of comes first: a number of the classes in a label's params, or None.
    """

    def __init__(
        self, description: str, measure: Callable[[Sequence[Mapping[str, Any]]], float | None]
    ) -> None:
        super().__init__(description)
        self._measure = measure

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id of the next scan, or None when all are labelled."""
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        return {"id": max(images, key=lambda image: self._score(datastore, image))}

    def _score(self, datastore: Datastore, image: str) -> float:
        params = datastore.get_label_info(image, ORIGINAL).get("params")
        classes = params.get("classes") if isinstance(params, dict) else None
        known = [c for c in classes if isinstance(c, dict)] if isinstance(classes, list) else []
        score = self._measure(known)
        return -float("inf") if score is None else score


def measure_doubt(classes: Sequence[Mapping[str, Any]]) -> float | None:
    """Return how far the worst mask is from the best quality; None if there is no mask."""
    return max((1 - quality for quality in _list_numbers(classes, "quality")), default=None)


def measure_volume_ml(classes: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the volume of all masks; None if nothing is known."""
    volumes = _list_numbers(classes, "mask_ml")
    return sum(volumes) if volumes else None


def _list_numbers(classes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return a number of each class; clients may have written anything there."""
    return [c[name] for c in classes if isinstance(c.get(name), int | float)]
