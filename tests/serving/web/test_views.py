"""The heatmap as a volume and as segments, what is said beside them, and another mask at once."""

import runpy
import sys
from unittest.mock import MagicMock

import nibabel as nib
import nrrd
import numpy as np
import pytest
from monailabel.client import client
from monailabel.client.client import MONAILabelClientException

from heatmask.pipeline import Pipeline
from helpers.project import PROJECT
from helpers.server import MODEL, SLICER
from helpers.serving_stub import tilt_affine
from helpers.web import SLOW, Web

LEVELS, HEATMAP = f"{MODEL}_levels", f"{MODEL}_heatmap"


def ask(web: Web, model: str, **options) -> tuple[np.ndarray, dict, dict]:
    """Return volume, header and params of the scan with a lesion, as 3D Slicer asks."""
    file, params = web.client.infer(model, "p1-flair", {**SLICER, **options})
    return *nrrd.read(file), params


def test_the_heatmap_lies_on_the_scan_and_says_where_the_mask_is(web):
    heatmap, header, params = ask(web, HEATMAP)
    mask, mask_header, _ = ask(web, MODEL, threshold_rule="fixed", threshold_level=0.5)
    assert heatmap.dtype == np.float32, "whatever the client asks for"
    assert (heatmap.min(), heatmap.max()) == (0, 1)
    for key in ("space directions", "space origin", "space"):
        np.testing.assert_array_equal(header[key], mask_header[key])
    assert (heatmap[mask > 0] > 0.5).mean() > 0.95, "but for holes that were filled"
    assert params["label_names"] == {}
    as_nifti, _ = web.client.infer(HEATMAP, "p1-flair", {"result_extension": ".nii.gz"})
    image = nib.load(as_nifti)
    np.testing.assert_allclose(image.affine, tilt_affine(), atol=1e-4)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), heatmap)


def test_the_levels_are_segments_within_one_another(web):
    levels, _, params = ask(web, LEVELS)
    heatmap, *_ = ask(web, HEATMAP)
    assert levels.dtype == np.uint8
    assert params["label_names"] == {"heatmap 50%": 1, "heatmap 70%": 2, "heatmap 90%": 3}
    for value, level in ((1, 0.5), (2, 0.7), (3, 0.9)):
        np.testing.assert_array_equal(levels >= value, heatmap >= np.float32(level))
    assert set(np.unique(levels)) == {0, 1, 2, 3}


def test_all_answers_come_from_what_was_explained_once(own_web, monkeypatch):
    asked, explain = [], Pipeline.explain
    monkeypatch.setattr(
        Pipeline, "explain", lambda self, image: asked.append(image) or explain(self, image)
    )
    for model in (MODEL, LEVELS, HEATMAP):
        ask(own_web, model)
    ask(own_web, MODEL, min_volume_mm3=50, snap=True)
    assert len(asked) == 1


def test_the_facts_say_why_as_values_and_as_a_text(web):
    *_, params = ask(web, MODEL)
    (tumour,) = params["classes"]
    slices = tumour["suspicious_slices"]
    assert slices == list(range(slices[0], slices[-1] + 1))
    assert 0.5 <= tumour["confidence"] <= tumour["probability"]
    assert tumour["mask_ml"] > 0
    level = params["threshold_levels"]["tumour"]["otsu"]
    finding, why = params["text"].splitlines()
    assert finding == params["finding"]
    assert why == (
        f"tumour: confidence {tumour['confidence']:.2f}, slices {slices[0]}-{slices[-1]} (from 0); "
        f"threshold {level:.2f}, Otsu {level:.2f} (of 0 to 1)."
    )
    for model in (LEVELS, HEATMAP):
        assert ask(web, model)[2]["text"] == params["text"]


def test_the_list_of_models_stays_in_order_for_3d_slicer(web):
    """It runs the first that has a label, makes a segment of each, and lists types it knows."""
    info = web.client.info()
    assert list(info["models"])[:2] == [MODEL, SLOW]
    assert info["labels"] == ["tumour"]
    types = {name: model["type"] for name, model in info["models"].items()}
    assert (types[MODEL], types[LEVELS], types[HEATMAP]) == (
        "segmentation",
        "segmentation",
        "others",
    )
    own, shown = (info["models"][name]["config"].keys() for name in (MODEL, HEATMAP))
    assert own - shown == {
        "preset", "threshold_rule", "threshold_level", "warm_level", "min_volume_mm3", "snap",
    }  # fmt: skip


@pytest.mark.parametrize("model", [LEVELS, HEATMAP])
def test_what_is_no_mask_is_never_stored_as_one(web, model):
    answer = web.send(
        "POST", f"/infer/{model}?image=p1-flair", data={"params": '{"save_label": true}'}
    )
    assert (answer.status_code, "makes no whole mask" in answer.text) == (422, True)
    answer = web.send("POST", f"/batch/infer/{model}", json={})
    assert (answer.status_code, "makes no whole mask" in answer.text) == (422, True)
    assert not web.serving.store.list_current("p1-flair")


def test_a_rule_of_earlier_versions_is_refused_with_what_to_give(web):
    with pytest.raises(MONAILabelClientException) as failure:
        web.client.infer(MODEL, "p1-flair", {"threshold_rule": "level", "threshold_level": -1.5})
    assert "must be one of otsu, multi_otsu, fixed" in failure.value.msg
    assert "The rule level, in the heatmap's own unit, is now fixed" in failure.value.msg


def test_the_script_for_3d_slicer_lays_the_heatmap_over_the_scan(web, monkeypatch):
    """With a stand-in for what it calls of 3D Slicer, which is not at hand."""
    slicer = MagicMock()
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    monkeypatch.setitem(sys.modules, "qt", MagicMock())
    monkeypatch.setitem(sys.modules, "MONAILabelLib", client)
    script = runpy.run_path(str(PROJECT / "apps/heatmask/slicer/show_heatmap.py"))
    volume = script["show_heatmap"](MODEL, "p1-flair", web.url, lowest=0.2, gate=False)
    (file, how), _ = slicer.util.loadVolume.call_args
    assert nrrd.read(file)[0].dtype == np.float32
    assert how == {"name": "p1-flair heatmap", "show": False}
    volume.GetDisplayNode().SetThreshold.assert_called_once_with(0.2, 1.0)
    slicer.util.setSliceViewerLayers.assert_called_once_with(
        foreground=volume, foregroundOpacity=0.5
    )
    assert slicer.util.infoDisplay.call_args[0][0].startswith("Tumour predicted")
