"""Faults of MONAI and MONAI Label that we work around: each test fails once one is mended."""

import importlib.util
import inspect
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from heatmask.serving.compat import MOVED_MODULE
from helpers.serving_stub import tilt_affine, write_scan

pytestmark = pytest.mark.upstream


def test_monailabel_still_needs_the_pydicom_alias():
    """When this fails, `heatmask.serving.compat.register_pydicom_alias` can go."""
    import monailabel.datastore.utils.convert as host

    assert "pydicom_seg" in vars(host)
    reader = Path(importlib.util.find_spec("pydicom_seg.reader").origin)
    assert MOVED_MODULE in reader.read_text(encoding="utf-8")
    assert not Path(pydicom.__file__).with_name("_storage_sopclass_uids.py").exists()


def test_decollating_a_batch_of_dict_outputs_still_loses_the_affine(tmp_path):
    """Why the results of the inferer are indexed and not decollated."""
    from monai.data import decollate_batch

    from heatmask.data.load import LoadSequencesd

    write_scan(tmp_path / "p1-flair.nii.gz")
    volume = LoadSequencesd("image")({"image": str(tmp_path / "p1-flair.nii.gz")})["image"]
    lost = decollate_batch({"heatmap": volume[None]})[0]["heatmap"]
    assert lost.affine.shape != (4, 4)
    np.testing.assert_allclose(volume[None][0].affine, tilt_affine(), atol=1e-4)


def test_the_hosts_bundle_task_still_loads_weights_loosely():
    """One of the reasons not to build on it, and the one that hides best."""
    from monailabel.tasks.infer.bundle import BundleInferTask

    assert inspect.signature(BundleInferTask).parameters["load_strict"].default is False


def test_the_hosts_random_strategy_still_fails_within_a_second():
    from monailabel.tasks.activelearning.random import Random

    from heatmask.serving.strategies import RandomStudy

    class Store:
        def get_unlabeled_images(self, *_):
            return ["only"]

        def get_image_info(self, _):
            return {"strategy": {"random": {"ts": int(time.time()) + 5}}}

    with pytest.raises(ValueError, match="greater than zero"):
        Random()({"strategy": "random"}, Store())
    assert RandomStudy()({"strategy": "random"}, Store()) == {"id": "only"}
