"""A work folder with corrected masks, and one training."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs the extra 'serve'")

from heatmask.learning.learn import Learner, Outcome
from heatmask.learning.settings import LearnSettings
from heatmask.learning.status import begin_training, read_status
from heatmask.serving.learning import find_corrected_store, find_learned, list_learn_scans
from helpers.learning import SMALL, make_work_folder, write_blind_bundle

Learn = Callable[..., tuple[Outcome, list[str]]]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work_folder(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_blind_bundle(tmp_path / "bundles" / "stub_segmentation")


@pytest.fixture
def learn(tmp_path: Path, bundle: Path) -> Learn:
    """Train from what a work folder holds; return what came of it, and what was said."""

    def run(work: Path, labels: Path | None = None, **options) -> tuple[Outcome, list[str]]:
        store = find_corrected_store(work)
        folder = find_learned(store.flat)
        settings = LearnSettings(**{**SMALL, "way": "joint", **options})
        with begin_training(folder, "stub", {}) as training:
            scans = list_learn_scans(store, labels)
            outcome = Learner(bundle, scans, folder, settings, training, "cpu").run()
        return outcome, read_status(folder).details

    return run
