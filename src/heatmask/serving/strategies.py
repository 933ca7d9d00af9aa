"""The orders in which unlabelled scans come: what Next Sample brings."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First

from heatmask.report.score import measure_difference
from heatmask.serving.store.labels import ORIGINAL


def list_strategies() -> dict[str, Strategy]:
    """Return all orders by the name that clients show."""
    return {
        "random": RandomStudy(),
        "first": First(),
        "least_certain": ByScore("The mask of the lowest quality first", "quality", -1),
        "largest_lesion": ByScore("The largest predicted lesion first", "mask_ml"),
        "most_disagreement": ByScore("Where the models' masks differ most first", "disagreement"),
        "most_different": MostDifferent(),
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


class ByScore(Strategy):
    """The unlabelled scan of which the models' results say the most.

    What counts is its score (`heatmask.serving.web.scoring`), or what its stored label says where
    there is none yet. Scans of which nothing is known come last, in the store's order.

    Parameters
    ----------
    description
        For clients.
    name, sign
        The number of a score whose largest times `sign` comes first.
    """

    def __init__(self, description: str, name: str, sign: int = 1) -> None:
        super().__init__(description)
        self._name, self._sign = name, sign

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id of the next scan, or None when all are labelled."""
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        return {"id": max(images, key=lambda image: self._rank(datastore, image))}

    def _rank(self, datastore: Datastore, image: str) -> float:
        scores = datastore.get_score(image), read_label_score(datastore, image)
        number = next((s[self._name] for s in scores if s.get(self._name) is not None), None)
        return -float("inf") if number is None else self._sign * number


class MostDifferent(Strategy):
    """The unlabelled scan that looks least like any that is labelled; first the most typical."""

    def __init__(self) -> None:
        super().__init__("The scan least like those labelled first")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id of the next scan, or None when all are labelled."""
        images, labelled = datastore.get_unlabeled_images(), datastore.get_labeled_images()
        if not images:
            return None
        scores = {image: datastore.get_score(image) for image in (*images, *labelled)}
        features = {i: score["features"] for i, score in scores.items() if score.get("features")}
        far = measure_difference(features, labelled)
        return {"id": max(images, key=lambda image: far.get(image, -float("inf")))}


def read_label_score(datastore: Datastore, image: str) -> dict[str, float]:
    """Return the numbers of a score that the stored label of a model says.

    Clients may have written anything there.
    """
    params = datastore.get_label_info(image, ORIGINAL).get("params")
    classes = params.get("classes") if isinstance(params, dict) else None
    known = [c for c in classes if isinstance(c, dict)] if isinstance(classes, list) else []
    qualities, volumes = (_list_numbers(known, name) for name in ("quality", "mask_ml"))
    found = {"quality": min(qualities)} if qualities else {}
    return {**found, "mask_ml": sum(volumes)} if volumes else found


def _list_numbers(classes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [c[name] for c in classes if isinstance(c.get(name), int | float)]
