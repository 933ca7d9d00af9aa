"""The wheel alone, in an environment of its own: no checkout, no working directory of ours."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.phantom import make_phantom
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

Run = Callable[..., str]
NAME = "brain_mri_gp_unet_segmentation"


def call(words: list[str | Path], folder: Path) -> str:
    """Run a command in a folder, without this environment's own paths; return what it says."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HEATMASK_"))}
    done = subprocess.run(
        words, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment ``env`` in it that holds the wheel.

    The libraries are those of the tests' environment, through a .pth file, so that nothing is
    downloaded. Their own .pth files are not followed, so that an editable install of this
    checkout stays out.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, PROJECT]
    call([*pip, *build], folder)
    call([sys.executable, "-m", "venv", "--without-pip", folder / "env"], folder)
    libraries = Path(sysconfig.get_paths()["purelib"])
    own = folder / "env" / libraries.relative_to(sys.prefix)
    (own / "a_libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    # distutils, which Python 3.12 has only through setuptools, and MONAI Label needs
    (own / "b_distutils.pth").write_text("import setuptools\n", encoding="utf-8")
    (wheel,) = folder.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", wheel]
    call([*pip, "--python", folder / "env/bin/python", *install], folder)
    return folder


def run(installed: Path, code: str) -> str:
    """Run Python code with the wheel."""
    return call([installed / "env/bin/python", "-c", code], installed)


def test_the_wheel_is_what_is_imported(installed: Path) -> None:
    code = "import sys, heatmask; print(heatmask.__file__, *sys.path, sep='\\n')"
    file, *path = run(installed, code).split()
    assert Path(file).is_relative_to(installed / "env")
    assert not [place for place in path if Path(place).is_relative_to(PROJECT / "src")]


def test_bundles_come_with_it(installed: Path) -> None:
    words = call([installed / "env/bin/heatmask", "bundles"], installed)
    shipped = {path.name for path in PROJECT.glob("bundles/*")}
    assert shipped <= set(words.split())
    where = call([installed / "env/bin/heatmask", "bundles", "--where", NAME], installed)
    assert Path(where.strip()).is_relative_to(installed / "env")


def test_the_demo_runs_and_then_monais_own_command(installed: Path) -> None:
    heatmask = installed / "env/bin/heatmask"
    words = call([heatmask, "demo", "--device", "cpu"], installed)
    assert float(words.split()[-1]) > 0.5
    assert (installed / "demo/overview.png").is_file()

    bundle = Path(call([heatmask, "bundles", "--where", NAME], installed).strip())
    scan = installed / "demo/input/phantom_flair.nii.gz"
    config = ["--config_file", bundle / "configs/inference.json", "--bundle_root", bundle]
    options = ["--input", scan, "--output_dir", installed / "output", "--device", "cpu"]
    python = installed / "env/bin/python"
    call([python, "-m", "monai.bundle", "run", *config, *options], installed)
    assert (installed / "output/phantom_flair/phantom_flair_mask.nii.gz").is_file()


def test_the_server_serves_the_bundles_of_the_wheel(installed: Path) -> None:
    from helpers.server import run_server  # skips where monailabel is not installed

    studies, scan = installed / "studies", make_phantom(0)
    studies.mkdir()
    write_nifti(studies / "p1-t2f.nii.gz", scan.image, scan.affine)
    python = installed / "env/bin/python"
    with run_server(studies, None, installed, python=python) as server:
        models = list(server.client.info()["models"])
    assert {path.name for path in PROJECT.glob("bundles/*")} <= set(models)
    assert models[0] == "brain_mri_gp_shuffle_unet_segmentation"
