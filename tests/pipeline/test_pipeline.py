"""One pipeline, whoever calls it: Python, the command line, `monai.bundle run` and the server."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.block_inferer import BlockInferer
from heatmask.bundle import find_bundle
from heatmask.cli import app
from heatmask.errors import InputError, OptionError
from heatmask.masks.settings import MaskSettings
from heatmask.options import Option, list_options
from heatmask.parts import ExplainSettings, ReadSettings
from heatmask.pipeline import Pipeline
from heatmask.result import Result
from helpers.phantom import make_phantom, write_phantom

BUNDLE = "brain_mri_gradcam_segmentation"
OPTIONS = {"gate": False, "snap": False, "min_volume_mm3": 50.0, "method": "grad_cam"}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(5, shape=(96, 112, 14), spacing_mm=(2.0, 2.0, 6.0))
    write_phantom(phantom, folder / "head_flair.nii.gz", folder / "head-seg.nii.gz")
    return folder / "head_flair.nii.gz"


@pytest.fixture(scope="module")
def result(scan: Path) -> Result:
    return Pipeline.from_bundle(BUNDLE, OPTIONS, device="cpu")(str(scan), "head_flair")


def check_same(folder: Path, result: Result) -> dict:
    mask, heatmap = (nib.load(folder / f"head_flair_{n}.nii.gz") for n in ("mask", "heatmap"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(result.mask[0]))
    np.testing.assert_array_equal(np.asarray(heatmap.dataobj), np.asarray(result.display[0]))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (found,) = report["classes"]
    assert found["name"] == result.class_names[0]
    assert found["probability"] == round(float(result.probabilities[0]), 6)
    assert report["parameters"].items() >= OPTIONS.items()
    return report


def test_the_result_is_typed_and_says_what_made_it(result: Result, scan: Path) -> None:
    assert (result.case, result.image) == ("head_flair", str(scan))
    assert result.mask.any()
    assert result.slice_probabilities.shape == result.shown.shape == (14, 1)
    assert (result.sequence, result.sequences) == ("FLAIR", ("FLAIR",))
    made = result.provenance
    assert (made.bundle, made.device) == (BUNDLE, "cpu")
    assert len(made.weights_sha256) == 64
    assert made.options.items() >= {**OPTIONS, "keep": "strongest", "batch_size": 16}.items()


def test_the_command_line_gives_the_same(result: Result, scan: Path, tmp_path: Path) -> None:
    words = ["segment", str(scan), "--bundle", BUNDLE, "-o", str(tmp_path), "--device", "cpu"]
    for name, value in OPTIONS.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = check_same(tmp_path / "head_flair", result)
    assert report["weights_sha256"] == result.provenance.weights_sha256


def test_monai_bundle_run_gives_the_same(result: Result, scan: Path, tmp_path: Path) -> None:
    """From another folder, without ``bundle_root``, with options that its config leaves out."""
    config = find_bundle(BUNDLE).resolve() / "configs" / "inference.json"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
    places = {"input": scan, "output_dir": tmp_path, "device": "cpu"}
    for name, value in {**places, **OPTIONS}.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    check_same(tmp_path / "head_flair", result)


def test_the_server_gives_the_same(result: Result, scan: Path, tmp_path: Path) -> None:
    pytest.importorskip("monailabel", reason="needs the extra 'serve'")
    from heatmask.serving.bundle import ServedBundle
    from heatmask.serving.task import HeatmapInferTask

    task = HeatmapInferTask(ServedBundle(find_bundle(BUNDLE)), "cpu")
    request = {"image": str(scan), "result_extension": ".nii.gz", **OPTIONS}
    for _ in range(2):  # nothing is left over from the request before
        file, facts = task(request, folder=tmp_path)
        mask = np.asarray(nib.load(file).dataobj)
        np.testing.assert_array_equal(mask, np.asarray(result.mask[0]))
        assert facts["probabilities"] == {"tumour": round(float(result.probabilities[0]), 6)}
        assert facts["weights_sha256"] == result.provenance.weights_sha256


def test_options_below_an_item_go_into_the_record(scan: Path) -> None:
    nested = {"method": "occlusion", "inferer#explainer#window": 8, "inferer#check": False}
    pipeline = Pipeline.from_bundle(BUNDLE, nested, device="cpu")
    assert pipeline.inferer.explainer.options["window"] == 8
    assert pipeline.options.items() >= nested.items()


def test_a_network_that_is_loaded_serves_several_pipelines(result: Result, scan: Path) -> None:
    first = Pipeline.from_bundle(BUNDLE, device="cpu")
    second = Pipeline.from_bundle(BUNDLE, OPTIONS, device="cpu", network=first.network)
    assert second.network is first.network
    np.testing.assert_array_equal(second(str(scan)).mask, result.mask)
    assert "network" not in second.options


def test_a_pipeline_refuses_what_the_command_line_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bundle must be"):
        Pipeline.from_bundle("no_such_bundle")
    with pytest.raises(OptionError, match=r"got 'treshold_rule'. Try: threshold_rule"):
        Pipeline.from_bundle(BUNDLE, {"treshold_rule": "otsu"})
    with pytest.raises(OptionError, match="snap must be true or false, got 'no'"):
        Pipeline.from_bundle(BUNDLE, {"snap": "no"}, device="cpu")
    with pytest.raises(InputError, match="There is no scan"):
        Pipeline.from_bundle(BUNDLE, device="cpu")("/nowhere/scan.nii.gz")


# --- options -------------------------------------------------------------------------------


def test_every_option_is_defined_once_and_says_what_it_is() -> None:
    parts = ReadSettings, ExplainSettings, BlockInferer, MaskSettings
    names = [name for part in parts for name in list_options(part)]
    assert len(names) == len(set(names))
    for name, option in list_options(*parts).items():
        assert option.help.endswith("."), name
        option.check(option.default)


@pytest.mark.parametrize(
    ("option", "good", "bad", "words"),
    [
        (Option("x", True), [True, False], ["true", 2, None], "true or false"),
        (Option("x", 3, low=1), [1, 9], [0, 2.5, True, "3"], "a whole number of at least 1"),
        (Option("x", 0.5, low=0, high=1), [0, 1.0], [-0.1, float("nan"), "0.5"], "a number from"),
        (Option("x", 1.0), [-1e9, 3], [float("inf"), None], "a number"),
        (Option("x", None, low=0.0, optional=True), [None, 2], [-1], "at least 0 or none"),
        (Option("x", "a", choices=("a", "b")), ["b"], ["c", ["a"], 1], "one of a, b"),
        (Option("x", 0, choices=(0, 1, 2)), [2], [3, False, "1"], "one of 0, 1, 2"),
        (Option("x", "auto"), ["layer4", ["a", "b"]], [3, None], "text"),
    ],
)
def test_an_option_takes_its_kind_alone(option: Option, good: list, bad: list, words: str) -> None:
    for value in good:
        option.check(value)
    for value in bad:
        with pytest.raises(OptionError, match=f"^x must be {words}.*, got "):
            option.check(value)


class StoppedError(Exception):
    """What a listener raises."""


def test_progress_is_told_and_changes_nothing(scan: Path, result: Result) -> None:
    told: list[tuple[int, int]] = []
    pipeline = Pipeline.from_bundle(BUNDLE, OPTIONS, device="cpu")
    again = pipeline(str(scan), "head_flair", progress=lambda *numbers: told.append(numbers))
    np.testing.assert_array_equal(again.mask, result.mask)
    assert told[0] == (0, 0)
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told), "neither number falls"


@pytest.mark.parametrize("method", ["grad_cam", "occlusion", "score_cam", "integrated_gradients"])
def test_a_run_is_stopped_by_its_listener_and_leaves_no_trace(
    scan: Path, result: Result, method: str
) -> None:
    options = {**OPTIONS, "method": method, "batch_size": 4}
    pipeline = Pipeline.from_bundle(BUNDLE, options, device="cpu")
    calls = 0

    def stop_early(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        pipeline(str(scan), progress=stop_early)
    assert calls == 6
    whole = Pipeline.from_bundle(BUNDLE, OPTIONS, device="cpu", network=pipeline.network)(str(scan))
    np.testing.assert_array_equal(whole.mask, result.mask)
