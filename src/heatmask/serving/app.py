"""The MONAI Label application: which models, which data store, which order of samples."""

import logging
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
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
from heatmask.device import resolve_device
from heatmask.errors import Failures, HeatmaskError, InputError, list_reasons
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
        return load_tasks(map(Path, folders), self.conf.get("device", "auto"), self.studies)

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


def load_tasks(folders: Iterable[Path], device: str, lock_folder: str) -> dict[str, InferTask]:
    """Return a task for each bundle, in their order; log what is wrong with the others.

    Raises
    ------
    HeatmaskError
        There is no bundle that can be served, or the device is not there.
    """
    resolve_device(device)
    tasks: dict[str, InferTask] = {}
    failures = Failures()
    for bundle in find_bundles(folders, failures):
        with failures.catch(bundle.name):
            task = HeatmapInferTask(bundle, device, lock_folder)
            task.load()
            tasks[bundle.name] = task
            logger.info("Model %s %s", bundle.name, bundle.version)
            logger.info("Licence of its weights: %s", bundle.license_text)
    if not tasks:
        raise InputError(
            "There must be at least one complete bundle. Restore the files, or train the bundle "
            f"with `heatmask train`. Found: {list_reasons(failures.reasons) or 'none'}"
        )
    if failures.reasons:
        logger.warning(
            "%d models are served; these are not:%s", len(tasks), list_reasons(failures.reasons)
        )
    return tasks


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
    """Batch inference that a damaged scan does not stop, also without several GPUs.

    The host's own stops at the first error where it runs one request at a time, and divides by
    the number of GPUs, also when that is zero.
    """

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]
    ) -> dict[str, Any]:
        """Run a model on many images.

        Returns
        -------
        dict
            By image what `infer` returned, or ``{"error": text}`` where it failed.

        Raises
        ------
        HeatmaskError
            All of them failed.
        """
        failures = Failures()

        def infer_or_say_why(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
            image = str(request["image"])
            with failures.catch(image):
                return dict(infer(request, datastore))
            return {"error": failures.reasons[image]}

        several = torch.cuda.is_available() and bool(request.get("multi_gpu", False))
        single = {**request, "multi_gpu": several}
        results: dict[str, Any] = super().__call__(single, datastore, infer_or_say_why)
        _sum_up(failures.reasons, len(results))
        return results


def _sum_up(reasons: Mapping[str, str], total: int) -> None:
    """Say at the end of batch inference what failed; the client sees the last lines of the log."""
    named = "; ".join(f"{image}: {reason}" for image, reason in reasons.items())
    if reasons and len(reasons) == total:
        raise HeatmaskError(f"All of {total} images failed. {named}")
    if reasons:
        logger.warning(
            "%d of %d images failed, the labels of the others are stored. %s",
            len(reasons), total, named,
        )  # fmt: skip
