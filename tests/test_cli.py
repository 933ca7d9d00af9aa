"""The `heatmask` command, through its own door."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from heatmask.cli import app, main
from heatmask.data.phantom import make_phantom, write_phantom
from heatmask.errors import InputError, OptionError

runner = CliRunner()


@pytest.fixture
def scan(tmp_path):
    phantom = make_phantom(77, shape=(112, 128, 20), spacing_mm=(2.0, 2.0, 6.0))
    write_phantom(phantom, tmp_path / "head_flair.nii.gz", tmp_path / "head-seg.nii.gz")
    return tmp_path / "head_flair.nii.gz"


@pytest.mark.parametrize("command", ["demo", "segment", "serve", "evaluate", "train"])
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
    words += ["--threshold-rule", "level", "--threshold-level", "1.5", "--set", "batch_size=4"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.exception
    report = json.loads((tmp_path / "out" / "head_flair" / "report.json").read_text())
    expected = {"gate": False, "snap": False, "threshold_rule": "level", "threshold_level": 1.5}
    assert report["parameters"].items() >= {**expected, "batch_size": 4}.items()
    assert report["finding"] in done.output.replace("\n", " ")


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
    assert "Dice" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segment", "SCAN", "--slice-axis", "oblique"], "slice_axis must be one of"),
        (["segment", "SCAN", "--set", "batch_size"], "--set must be given as KNOB=VALUE"),
        (["segment", "SCAN", "--set", "no_knob=1"], "must be an id of the bundle's config"),
    ],
)
def test_bad_options_are_named(scan, words, message):
    done = runner.invoke(app, [str(scan) if w == "SCAN" else w for w in words])
    assert isinstance(done.exception, OptionError)
    assert message in str(done.exception)


def test_bundle_that_is_not_there(scan):
    done = runner.invoke(app, ["segment", str(scan), "--bundle", "nothing"])
    assert isinstance(done.exception, InputError)
    assert "brain_mri_gp_unet_segmentation" in str(done.exception)


def test_main_prints_the_reason_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heatmask", "segment", "/nowhere/scan.nii.gz"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("heatmask: error: The scan must exist")
