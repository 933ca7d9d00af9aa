"""The `heatmask` command, through its entry point."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from heatmask.attribution import list_methods
from heatmask.check import choose_image_shape
from heatmask.cli import app, main
from heatmask.command_line import read_options
from heatmask.errors import HeatmaskError, InputError, OptionError
from helpers.phantom import make_phantom, write_phantom

runner = CliRunner()


@pytest.fixture
def scan(tmp_path):
    phantom = make_phantom(77, shape=(112, 128, 20), spacing_mm=(2.0, 2.0, 6.0))
    write_phantom(phantom, tmp_path / "head_flair.nii.gz", tmp_path / "head-seg.nii.gz")
    return tmp_path / "head_flair.nii.gz"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test leaves anything in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_bundle(folder, **changes):
    """A bundle without weights whose gradients are cut: MONAI's ResNet of shortcut type A."""
    config = {
        "method": "saliency",
        "class_names": ["tumour"],
        "network": {
            "_target_": "monai.networks.nets.ResNet",
            "block": "basic",
            "layers": [1, 1, 1, 1],
            "block_inplanes": [4, 8, 8, 8],
            "spatial_dims": 2,
            "n_input_channels": 1,
            "num_classes": 1,
            "shortcut_type": "A",
        },
        "network_def": {"spatial_dims": 2, "in_channels": 1},
    }
    (folder / "configs").mkdir(parents=True)
    text = json.dumps(config | changes)
    (folder / "configs" / "inference.json").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    "command", ["demo", "segment", "serve", "bundles", "evaluate", "train", "methods", "check"]
)
def test_every_command_explains_itself(command):
    done = runner.invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert command in done.output
    assert len(done.output.splitlines()) > 8


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['heatmask', '--help']\n"
        "from heatmask.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("[]"), done.stderr


def test_segment_takes_the_options_of_the_bundle(scan, tmp_path):
    words = ["segment", str(scan), "-o", str(tmp_path / "out"), "--no-gate", "--no-snap"]
    words += ["--threshold-rule", "fixed", "--threshold-level", "0.25", "--set", "batch_size=4"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.exception
    report = json.loads((tmp_path / "out" / "head_flair" / "report.json").read_text())
    expected = {"gate": False, "snap": False, "threshold_rule": "fixed", "threshold_level": 0.25}
    assert report["parameters"].items() >= {**expected, "batch_size": 4}.items()
    assert report["finding"] in done.output.replace("\n", " ")


def test_a_threshold_level_alone_is_used(scan, tmp_path):
    words = ["segment", str(scan), "-o", str(tmp_path / "out"), "--threshold-level", "0.9"]
    done = runner.invoke(app, [*words, "--set", f"output_dir={tmp_path / 'set'}"])
    assert done.exit_code == 0, done.exception
    report = json.loads((tmp_path / "set" / "head_flair" / "report.json").read_text())
    assert report["parameters"]["threshold_rule"] == "fixed"
    assert not (tmp_path / "out").exists()
    done = runner.invoke(app, [*words, "--threshold-rule", "otsu"])
    assert isinstance(done.exception, OptionError)


@pytest.mark.fault("D")
def test_segment_says_at_the_end_what_was_passed_over(scan, tmp_path):
    """Also where a scan failed."""
    (tmp_path / "other_flair.nii").write_bytes(b"no scan")
    done = runner.invoke(app, ["segment", str(tmp_path), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, HeatmaskError)
    (report,) = tmp_path.glob("out/*/report.json")
    finding = json.loads(report.read_text())["finding"]
    output = " ".join(done.stdout.split())
    assert "1 named like masks or results (head-seg.nii.gz)" in output[output.index(finding) :]


def test_demo_shows_picture_and_dice(tmp_path):
    done = runner.invoke(app, ["demo", "--output", str(tmp_path), "--device", "cpu"])
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "overview.png").stat().st_size > 10_000
    assert "generated, not a patient" in done.output.replace("\n", " ")
    assert float(done.output.split()[-1]) >= 0.5


def test_demo_on_a_scan_of_the_users(scan, tmp_path):
    done = runner.invoke(app, ["demo", "--image", str(scan), "--output", str(tmp_path / "demo")])
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "demo" / "overview.png").is_file()
    assert "Dice against" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segment", "SCAN", "--slice-axis", "oblique"], "slice_axis must be one of"),
        (["segment", "SCAN", "--set", "batch_size"], "--set must be given as OPTION=VALUE"),
        (["segment", "SCAN", "--set", "no_option=1"], "must be an id of the bundle's config"),
    ],
)
def test_bad_options_are_named(scan, words, message):
    done = runner.invoke(app, [str(scan) if w == "SCAN" else w for w in words])
    assert isinstance(done.exception, OptionError)
    assert message in str(done.exception)


@pytest.mark.fault("H")
def test_values_are_read_as_json_or_python():
    """As `monai.bundle run` reads them; a text "False" would count as true."""
    texts = {
        "a=false": False, "a=False": False, "a=None": None, "a=null": None, "a=8": 8,
        "a=['T1-Gd', 'FLAIR']": ["T1-Gd", "FLAIR"], 'a=["x"]': ["x"], "a=T1-Gd": "T1-Gd",
        "a=*-t2f.nii.gz": "*-t2f.nii.gz", "a=x=y": "x=y", "a=": "",
    }  # fmt: skip
    for text, value in texts.items():
        assert read_options([text]) == {"a": value}, text


def test_bundle_that_is_not_there(scan):
    done = runner.invoke(app, ["segment", str(scan), "--bundle", "nothing"])
    assert isinstance(done.exception, InputError)
    assert "brain_mri_gp_unet_segmentation" in str(done.exception)


def test_methods_are_listed():
    done = runner.invoke(app, ["methods"])
    assert done.exit_code == 0, done.exception
    assert {"saliency", "guided_backprop", "occlusion", "inherent"} <= set(done.output.split())


def test_methods_as_json():
    done = runner.invoke(app, ["methods", "--json"])
    methods = {method["name"]: method for method in json.loads(done.output)}
    assert set(methods) == {method.name for method in list_methods()}
    words = {"name", "family", "needs", "invariants", "cost", "paper", "source", "summary"}
    assert all(set(method) == words for method in methods.values())
    assert methods["guided_backprop"]["needs"] == ["gradients", "relu"]
    assert methods["integrated_gradients"]["invariants"] == ["completeness"]


def test_check_on_the_bundle():
    done = runner.invoke(app, ["check", "brain_mri_gp_unet_segmentation", "--device", "cpu"])
    assert done.exit_code == 0, done.exception
    assert "inherent with brain_mri_gp_unet_segmentation: sound" in done.output
    assert "14 ReLUs gated" in done.output
    assert "cam needs global average pooling" in " ".join(
        done.output.lower().replace("│", " ").split()
    )


def test_check_refuses_the_bundles_own_method(tmp_path):
    bundle = make_bundle(tmp_path / "type_a")
    done = runner.invoke(app, ["check", bundle, "--json", "--device", "cpu"])
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert (found["bundle"], found["method"], found["sound"]) == ("type_a", "saliency", False)
    methods = {method["name"]: method for method in found["methods"]}
    assert set(methods) == {method.name for method in list_methods()}
    assert not methods["saliency"]["sound"]
    assert methods["grad_cam"]["sound"]
    assert "off finite differences by" in methods["saliency"]["reason"]
    assert "Use grad_cam or" in methods["saliency"]["advice"]
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["input gradient"]["measured"] > checks["input gradient"]["limit"]
    assert checks["heatmap"]["measured"] is None


def test_the_earlier_name_of_check_works_and_is_not_shown():
    assert runner.invoke(app, ["doctor", "--help"]).exit_code == 0
    assert "doctor" not in runner.invoke(app, ["--help"]).output


def test_check_on_one_method(tmp_path):
    bundle = make_bundle(tmp_path / "type_a")
    words = ["check", bundle, "--device", "cpu", "--method"]
    done = runner.invoke(app, [*words, "grad_cam"])
    assert done.exit_code == 0, done.exception
    assert "grad_cam with type_a: sound" in done.output
    assert "ReLU" not in done.output
    done = runner.invoke(app, [*words, "saliency"])
    assert done.exit_code == 1
    assert "saliency with type_a: refused" in done.output
    assert isinstance(runner.invoke(app, [*words, "gradcam"]).exception, OptionError)


@pytest.mark.parametrize(
    ("class_names", "channels", "sound"),
    [
        (["tumour"], {"0": "background", "1": "tumour"}, True),
        (["tumour"], {"0": "tumour"}, True),
        (["tumour"], None, True),
        (["tumour", "oedema"], None, False),
        (["tumour"], {"0": "background", "1": "tumour", "2": "oedema"}, False),
        (["tumour"], {"0": "background", "1": "oedema"}, False),
    ],
)
def test_check_compares_classes_and_logits(tmp_path, class_names, channels, sound):
    bundle = make_bundle(tmp_path / "bundle", class_names=class_names, method="occlusion")
    if channels:
        data = {"inputs": {}, "outputs": {"pred": {"channel_def": channels}}}
        text = json.dumps({"network_data_format": data})
        (tmp_path / "bundle" / "configs" / "metadata.json").write_text(text, encoding="utf-8")
    words = ["check", bundle, "--method", "occlusion", "--json", "--device", "cpu"]
    done = runner.invoke(app, words)
    assert done.exit_code == (0 if sound else 1)
    (check,) = [c for c in json.loads(done.output)["checks"] if c["name"] == "class outputs"]
    assert check["passed"] == sound
    assert "1 logit(s) an image" in check["finding"]
    assert bool(check["advice"]) != sound


def test_check_on_a_network_without_logits(tmp_path):
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 3}
    bundle = make_bundle(tmp_path / "bundle", network=network)
    done = runner.invoke(app, ["check", bundle, "--json", "--device", "cpu"])
    assert done.exit_code == 1
    (check,) = json.loads(done.output)["checks"]
    assert check["name"] == "logits"
    assert "must return logits of shape (batch, classes)" in check["finding"]


@pytest.mark.parametrize(
    ("image", "arguments", "shape"),
    [
        ({"num_channels": 4, "spatial_shape": ["8*n", "24 * n"]}, {}, (4, 128, 144)),
        ({"num_channels": 1, "spatial_shape": [96, "*", "2**p"]}, {}, (1, 96, 64, 64)),
        ({}, {"spatial_dims": 3, "in_channels": 2}, (2, 64, 64, 64)),
        ({}, {}, (1, 128, 128)),
    ],
)
def test_the_image_that_check_takes(image, arguments, shape):
    metadata = {"network_data_format": {"inputs": {"image": image}}} if image else {}
    assert choose_image_shape(metadata, arguments) == shape


def test_check_names_what_is_wrong_with_metadata(tmp_path):
    image = {"num_channels": 1, "spatial_shape": [1, 2, 3, 4]}
    metadata = {"network_data_format": {"inputs": {"image": image}}}
    with pytest.raises(InputError, match="spatial_shape in the metadata must have 1 to 3 entries"):
        choose_image_shape(metadata, {})
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("{", encoding="utf-8")
    done = runner.invoke(app, ["check", bundle])
    assert isinstance(done.exception, InputError)
    assert "metadata must be JSON" in str(done.exception)


def test_main_prints_the_reason_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heatmask", "segment", "/nowhere/scan.nii.gz"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("heatmask: error: There is no scan at")
