"""The MONAI Label application: which models, which data store, which order of samples."""

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from heatmask import __version__
from heatmask.bundle import BundleInfo, list_bundles
from heatmask.device import resolve_device
from heatmask.errors import Failures, HeatmaskError, InputError, list_reasons
from heatmask.learning.versions import LearnedVersions, name_bundle
from heatmask.serving.bundle import ServedBundle, find_bundles
from heatmask.serving.corrections import Corrections
from heatmask.serving.explained import Explanations
from heatmask.serving.interactive import ClicksTask, CorrectionTask, ScribblesTask
from heatmask.serving.learning import find_learned
from heatmask.serving.store import Store
from heatmask.serving.strategies import list_strategies
from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.views import HeatmapTask, LevelsTask, ViewTask
from heatmask.serving.volume_file import warm_up

logger = logging.getLogger(__name__)

ServedTask = HeatmapInferTask | CorrectionTask | ViewTask
"""A bundle, or what corrects its masks or shows its heatmap."""


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
    store
        The images and labels; by default a new one beside the studies.
    bundles
        What is known of the bundles, for those who want to see it.
    explanations
        What the models said, by default kept in memory only.

    Attributes
    ----------
    models : dict of str to HeatmapInferTask
    strategies : dict of str to Strategy
    corrections : Corrections
        Of masks, which are under way.
    evidence : dict of str to BundleInfo
    explanations : Explanations
    loading : Loading
        Which networks are in memory.
    """

    _infers: dict[str, ServedTask]
    _strategies: dict[str, Strategy]

    def __init__(
        self,
        app_dir: str,
        studies: str,
        conf: dict[str, str],
        store: Store | None = None,
        bundles: Iterable[BundleInfo] = (),
        explanations: Explanations | None = None,
    ) -> None:
        self._given_store = store
        self.explanations = explanations or Explanations()
        self.corrections = Corrections()
        self._failed: dict[str, Path] = {}
        self.evidence = {bundle.name: bundle for bundle in bundles}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Heatmask",
            version=__version__,
            description="Pseudo-masks from image-level classifiers, to be corrected by you. "
            "Not a medical device.",
        )
        self.loading = Loading(self)

    @property
    def models(self) -> dict[str, HeatmapInferTask]:
        """The bundles by name, the first choice first."""
        return {n: task for n, task in self._infers.items() if isinstance(task, HeatmapInferTask)}

    @property
    def tasks(self) -> dict[str, ServedTask]:
        """All that can be asked: the bundles, what corrects their masks and shows heatmaps."""
        return self._infers

    def info(self) -> dict[str, Any]:
        """Describe the server to clients, which make an empty segment of each of its labels."""
        labels = dict.fromkeys(label for task in self.models.values() for label in task.labels)
        return {**super().info(), "labels": list(labels)}

    @property
    def strategies(self) -> dict[str, Strategy]:
        """The orders in which unlabelled samples come."""
        return self._strategies

    def list_licences(self) -> dict[str, list[str]]:
        """Return the names of the models by what their weights may be used for."""
        names: dict[str, list[str]] = {}
        for name, task in self.models.items():
            names.setdefault(task.license_text, []).append(name)
        return names

    def remove_model(self, name: str) -> None:
        """Serve a bundle no more; the dictionary that others may be reading stays as it is."""
        gone = self._infers.get(name)
        self._infers = {
            n: task
            for n, task in self._infers.items()
            if gone not in (task, getattr(task, "base", None))
        }

    def list_learners(self) -> dict[str, Path]:
        """Return the folders of the bundles that can learn from corrected masks, by name.

        A learnt one is left out: it is learnt anew from the bundle that it began with.
        """
        learned = {name_bundle(name) for name in self.models}
        return {
            name: task.folder
            for name, task in self.models.items()
            if name not in learned and task.can_learn
        }

    def refresh_learned(self) -> None:
        """Serve what was learnt since, and the version that counts now, before its bundle."""
        versions = LearnedVersions(find_learned(Path(self.studies)))
        for name in versions.list_names():
            folder, served = versions.find_current(name), self.models.get(name)
            known = served is not None and served.folder == folder
            if folder is None or known or self._failed.get(name) == folder:
                continue
            try:
                device = self.conf.get("device", "auto")
                task = HeatmapInferTask(ServedBundle(folder), device, self.explanations)
                task.load()
            except (HeatmaskError, OSError, ValueError, KeyError) as error:
                logger.error("%s is not served: %s", name, error)
                self._failed[name] = folder
                continue
            bundles = insert_learned(self.models, name, task)
            self._infers = self._add_others(bundles)
            self.loading.ready.add(name)

    def init_infers(self) -> dict[str, ServedTask]:
        """Read the bundles; their networks are loaded by `loading`, or when first needed."""
        given = self.conf.get("bundles")
        folders = given.split(os.pathsep) if given else [b.folder for b in list_bundles()]
        device = self.conf.get("device", "auto")
        return self._add_others(make_tasks(map(Path, folders), device, self.explanations))

    def _add_others(self, bundles: Mapping[str, HeatmapInferTask]) -> dict[str, ServedTask]:
        """Return bundles, what corrects their masks, and what shows their heatmaps."""
        corrections = make_correction_tasks(bundles, self.corrections)
        return {**bundles, **corrections, **make_view_tasks(bundles)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the orders in which unlabelled samples come."""
        return list_strategies()

    def init_datastore(self) -> Datastore:
        """Return the store, which leaves the user's scans alone."""
        studies = Path(self.studies)
        return self._given_store or Store(studies, studies / "store")

    def _load_sessions(self, load: bool = False) -> None:
        """Make none of the host's sessions, which would lie in the user's home."""


class Loading:
    """Networks brought into memory while the server answers already.

    Parameters
    ----------
    app
        Where the models are; one whose weights are wrong is taken out.

    Attributes
    ----------
    ready : set of str
    failures : dict of str to str
        Why a model was taken out.
    is_over : bool
    """

    def __init__(self, app: HeatmaskApp) -> None:
        self._app = app
        self.ready: set[str] = set()
        self.failures: dict[str, str] = {}
        self.is_over = False

    def start(self) -> threading.Thread:
        """Load all networks in a thread of its own, the first choice first."""
        thread = threading.Thread(target=self.run, name="loading", daemon=True)
        thread.start()
        return thread

    def run(self) -> None:
        """Load all networks."""
        failures = Failures()
        self.failures = failures.reasons
        for name, task in self._app.models.items():
            with failures.catch(name):
                task.load()
                self.ready.add(name)
            if name in failures.reasons:
                self._app.remove_model(name)
        warm_up()
        self.is_over = True
        if failures.reasons:
            logger.warning(
                "%d models are served; these are not:%s",
                len(self.ready), list_reasons(failures.reasons),
            )  # fmt: skip


def insert_learned(
    tasks: dict[str, HeatmapInferTask], name: str, task: HeatmapInferTask
) -> dict[str, HeatmapInferTask]:
    """Return the models with a learnt one before the bundle that it was learnt from."""
    found: dict[str, HeatmapInferTask] = {}
    for other, served in tasks.items():
        if name_bundle(other) == name:
            found[name] = task
        if other != name:
            found[other] = served
    return {**found, name: task}


def make_tasks(
    folders: Iterable[Path], device: str, explanations: Explanations | None = None
) -> dict[str, HeatmapInferTask]:
    """Return a task for each bundle, in their order; log what is wrong with the others.

    Raises
    ------
    HeatmaskError
        There is no bundle that can be served, or the device is not there.
    """
    resolve_device(device)
    tasks: dict[str, HeatmapInferTask] = {}
    failures = Failures()
    for bundle in find_bundles(folders, failures):
        with failures.catch(bundle.name):
            tasks[bundle.name] = HeatmapInferTask(bundle, device, explanations)
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


def make_correction_tasks(
    bundles: Mapping[str, HeatmapInferTask], corrections: Corrections
) -> dict[str, CorrectionTask]:
    """Return the tasks that correct the masks of bundles, by name."""
    kinds: dict[str, type[CorrectionTask]] = {"scribbles": ScribblesTask, "clicks": ClicksTask}
    return {
        f"{name}_{kind}": make(task, corrections)
        for kind, make in kinds.items()
        for name, task in bundles.items()
    }


def make_view_tasks(bundles: Mapping[str, HeatmapInferTask]) -> dict[str, ViewTask]:
    """Return the tasks that show the heatmaps of bundles, by name."""
    kinds: dict[str, type[ViewTask]] = {"levels": LevelsTask, "heatmap": HeatmapTask}
    return {
        f"{name}_{kind}": make(task)
        for kind, make in kinds.items()
        for name, task in bundles.items()
    }
