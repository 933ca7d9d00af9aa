"""Faults of MONAI and MONAI Label that we work around: each test fails once one is mended."""

import importlib.util
import inspect
import os
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from heatmask.serving.app import BatchInference
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


def test_the_host_still_cannot_start_on_half_a_session(tmp_path):
    from monailabel.utils.sessions import Sessions

    (tmp_path / "half").mkdir()
    with pytest.raises(AttributeError, match="NoneType"):
        Sessions(str(tmp_path)).remove_expired()


def test_the_host_still_lets_every_web_page_read():
    from fastapi.middleware.cors import CORSMiddleware
    from monailabel.app import app

    options = [m.kwargs for m in app.user_middleware if m.cls is CORSMiddleware]
    assert [o["allow_origins"] for o in options] == [["*"]]


def test_the_hosts_random_strategy_still_fails_within_a_second():
    from monailabel.tasks.activelearning.random import Random

    from heatmask.serving.app import RandomStudy

    class Store:
        def get_unlabeled_images(self, *_):
            return ["only"]

        def get_image_info(self, _):
            return {"strategy": {"random": {"ts": int(time.time()) + 5}}}

    with pytest.raises(ValueError, match="greater than zero"):
        Random()({"strategy": "random"}, Store())
    assert RandomStudy()({"strategy": "random"}, Store()) == {"id": "only"}


def test_the_hosts_batch_inference_still_divides_by_no_gpu():
    from monailabel.interfaces.tasks.batch_infer import BatchInferTask

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")

    class Store:
        def list_images(self):
            return ["a"]

    def infer(request, _):
        return {"params": request["device"]}

    with pytest.raises(ZeroDivisionError):
        BatchInferTask()({"multi_gpu": True}, Store(), infer)
    results = BatchInference()({"multi_gpu": True}, Store(), infer)
    assert results == {"a": {"params": "cpu"}}


def test_the_hosts_own_store_follows_links(tmp_path):
    """When this fails, `remove_image` and `get_image_uri` here can go."""
    from monailabel.datastore.local import LocalDatastore

    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"the user's")
    (tmp_path / "flat").mkdir()
    os.symlink(scan, tmp_path / "flat/scan.nii.gz")
    store = LocalDatastore(str(tmp_path / "flat"))
    assert store.get_image_uri("scan") == str(scan.resolve())
    store.remove_image("scan")
    assert not scan.exists()
