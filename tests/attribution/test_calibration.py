"""The range of a heatmap: measured from slice labels, kept beside the weights."""

import json
from pathlib import Path

import pytest

from heatmask.attribution.calibration import read_calibration, write_calibration
from heatmask.bundle import read_bundle, run_bundle
from heatmask.errors import InputError, OptionError
from heatmask.parts import find_calibration, offer_options
from heatmask.serving.options import build_panel
from heatmask.training.calibrate import list_explainers
from helpers.project import PROJECT

BUNDLES = PROJECT / "bundles"
RANGES = {"guided_backprop": (-1.5e-7, 0.107), "grad_cam": (0.0, 2.0)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_calibration(RANGES, tmp_path / "model.pt")
    assert written == tmp_path / "calibration.json"
    for method, ends in RANGES.items():
        assert read_calibration(tmp_path / "model.pt", method) == list(ends)
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.json"], "nothing half written"


def test_an_unknown_method_names_those_known(tmp_path: Path) -> None:
    write_calibration(RANGES, tmp_path / "model.pt")
    with pytest.raises(OptionError, match=r"that of lrp is not.*guided_backprop, grad_cam.*option"):
        read_calibration(tmp_path / "model.pt", "lrp")


@pytest.mark.parametrize(
    "content", [None, "{", '{"saliency": [1]}', '{"saliency": "ab"}', "[1, 2]"]
)
def test_a_file_that_is_missing_or_damaged(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "calibration.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"must have the ranges of their heatmaps in .*option"):
        read_calibration(tmp_path / "model.pt", "saliency")


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*/models/calibration.json")), ids=str)
def test_shipped_ranges_are_ranges(path: Path) -> None:
    for method, (low, high) in json.loads(path.read_text(encoding="utf-8")).items():
        assert low < high, method


@pytest.mark.parametrize(
    "bundle",
    [
        "brain_mri_gradcam_segmentation",
        "brain_mri_relevance3d_segmentation",
        "brain_mri_resnet_attribution_segmentation",
        "brain_t1ce_tumour_type_segmentation",
    ],
)
def test_every_choice_offered_has_its_range(bundle: str) -> None:
    """What the options panel lists works, and what training calibrates is what it lists."""
    inference, train, ranges = (
        json.loads((BUNDLES / bundle / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("configs/inference", "configs/train", "models/calibration")
    )
    panel = build_panel(offer_options(BUNDLES / bundle, inference))
    offered, layers = panel["method"].choices, panel["target_layer"].choices
    assert set(list_explainers(train["calibrated_methods"], train["calibrated_layers"])) == set(
        ranges
    )
    assert (offered[0], layers[0]) == (inference["method"], "auto")
    for method in offered:
        for layer in layers:
            if method != "cam" or layer == "auto":  # CAM has weights for one layer alone
                wanted = None if layer == "auto" else layer
                read_calibration(BUNDLES / bundle / "models/model.pt", method, wanted)


def test_another_layer_has_another_range(tmp_path: Path) -> None:
    write_calibration({**RANGES, "grad_cam:layer3": (0.0, 7.0)}, tmp_path / "model.pt")
    assert read_calibration(tmp_path / "model.pt", "grad_cam") == [0.0, 2.0]
    assert read_calibration(tmp_path / "model.pt", "grad_cam", "layer3") == [0.0, 7.0]
    with pytest.raises(OptionError, match=r"that of grad_cam:layer2 is not.*option"):
        read_calibration(tmp_path / "model.pt", "grad_cam", "layer2")
    # A method that looks at no layer passes it by.
    found = read_calibration(tmp_path / "model.pt", "guided_backprop", "layer2")
    assert found == list(RANGES["guided_backprop"])


def test_the_bundle_asks_for_the_range_of_its_layer() -> None:
    bundle = BUNDLES / "brain_mri_resnet_attribution_segmentation"
    parsers = [
        read_bundle(bundle, options={"method": "grad_cam", "target_layer": layer})
        for layer in ("auto", "layer2", "conv1")
    ]
    ranges = [find_calibration(run_bundle(parser, "options")) for parser in parsers[:2]]
    assert ranges[0] != ranges[1]
    with pytest.raises(OptionError, match="calibration="):
        run_bundle(parsers[2], "inferer")
    parsers[2]["calibration"] = [0.5, 1.0]
    assert run_bundle(parsers[2], "inferer").empty_value == 0.5
