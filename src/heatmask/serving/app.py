"""The MONAI Label application: which models, which data store, which order of samples."""

import logging
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First

from heatmask import __version__
from heatmask.bundle import list_bundles
from heatmask.errors import HeatmaskError
from heatmask.serving.bundle import find_bundles
from heatmask.serving.datastore import LinkedDatastore, check_image
from heatmask.serving.task import HeatmapInferTask

logger = logging.getLogger(__name__)


class HeatmaskApp(MONAILabelApp):
    """Every complete bundle of a folder as a model, on the scans of another.

    Parameters
    ----------
    app_dir, studies
        The app's folder and the flat folder of scans, from the host.
    conf
        ``bundles``: folders of bundles, separated as in PATH, the first choice first; by
        default `heatmask.bundle.list_bundles`. ``device``: the first choice of the options
        panel, by default ``auto``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Heatmask",
            version=__version__,
            description="Pseudo-masks from image-level classifiers, to be corrected by you. "
            "Not a medical device.",
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Load the bundles and say what their weights may be used for."""
        given = self.conf.get("bundles")
        folders = given.split(os.pathsep) if given else [b.folder for b in list_bundles()]
        tasks = {}
        for bundle in find_bundles(map(Path, folders)):
            task = HeatmapInferTask(bundle, self.conf.get("device", "auto"))
            task.load()
            tasks[bundle.name] = task
            logger.info("Model %s %s", bundle.name, bundle.version)
            logger.info("Licence of its weights: %s", bundle.license_text)
        return tasks

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the orders in which unlabelled samples come."""
        return {"random": RandomStudy(), "first": First()}

    def init_batch_infer(self) -> BatchInferTask:
        """Return batch inference that also runs without several GPUs."""
        return BatchInference()

    def init_datastore(self) -> Datastore:
        """Return the data store that leaves the user's scans alone."""
        # The folder does not change while the server runs: no watcher threads.
        return LinkedDatastore(
            self.studies, extensions=["*.nii.gz", "*.nii", "*.nrrd"], auto_reload=False
        )

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Run a model; errors name the image, which is all that the client sees of them."""
        image = request.get("image")
        if isinstance(image, str) and not self._was_sent(image):
            check_image(datastore or self.datastore(), image)
        try:
            return super().infer(request, datastore)
        except HeatmaskError as error:
            raise type(error)(f"{image or 'No image'}: {error}") from error

    def _was_sent(self, image: str) -> bool:
        """Whether this is a file that a client sent: uploaded, or kept in a session.

        The host would read any path of the machine that a request names.
        """
        path = Path(os.path.abspath(image))
        places = (Path(tempfile.gettempdir()), Path(settings.MONAI_LABEL_SESSION_PATH).resolve())
        return path.exists() and any(path.is_relative_to(place) for place in places)


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
        shown = [datastore.get_image_info(image).get("strategy", {}) for image in images]
        name, now = request["strategy"], int(time.time())
        weights = [1 + max(0, now - info.get(name, {}).get("ts", 0)) for info in shown]
        return {"id": random.choices(images, weights)[0]}


class BatchInference(BatchInferTask):
    """Batch inference whose use of several GPUs is off where there are none.

    The host's own divides by the number of GPUs, also when that is zero.
    """

    def __call__(self, request: dict[str, Any], *args: Any) -> Any:
        """Run a model on many images."""
        several = torch.cuda.is_available() and bool(request.get("multi_gpu", False))
        return super().__call__({**request, "multi_gpu": several}, *args)
