"""The pack for a bare CUDA machine: built, and its script run on the CPU; nothing is timed."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.phantom import make_phantom
from helpers.project import PROJECT

FOLDERS = PROJECT / "benchmarks", PROJECT / "benchmarks" / "gpu_pack"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of the benchmarks or of the pack, which are no packages."""
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(folder))

    def load_module(name: str) -> ModuleType:
        return import_module(name)

    yield load_module
    for folder in FOLDERS:
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)


@pytest.fixture
def case(load) -> dict:
    phantom = make_phantom(1300, shape=(60, 70, 8), spacing_mm=(3.2, 3.4, 18.0))
    volume = load("pipeline").make_volume(phantom)
    return {"case": "phantom", "image": {"FLAIR": volume, "T1-Gd": volume}}


def run_pack(pack: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the pack's script as the CUDA machine does, where python3 is the one at hand."""
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": binaries, "OUT": str(out), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    command = ["bash", str(pack / "run.sh"), "--device", "cpu", "--quick", *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow  # imports everything anew in two processes; half a minute
def test_the_pack_is_built_and_measures(load, tmp_path: Path, monkeypatch) -> None:
    build, pack, out = load("build"), tmp_path / "pack", tmp_path / "out"
    monkeypatch.setattr(build, "SCANS", 1)
    build.main(pack, data=None, wheels=False)
    assert {path.name for path in pack.iterdir()} == {
        "benchmarks", "bundles", "environment.sh", "run.sh", "scans", "src",
    }  # fmt: skip
    assert len(list(pack.glob("scans/*.npz"))) == 1
    done = run_pack(pack, out)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "results.json").read_text("utf-8"))
    assert found["machine"]["GPU"]
    assert [step["error"] for step in found["steps"]] == [None] * 5
    assert [len(step["rows"]) for step in found["steps"]] == [1, 1, 1, 2, 2]
    assert [row["halvings"] for row in found["steps"][3]["rows"]] == [1, 2]
    page = (out / "results.md").read_text("utf-8")
    assert "| brain_mri_gp_unet | float32 | 0.0e+00 |" in page


def test_the_pack_holds_what_its_script_needs(load, tmp_path: Path) -> None:
    build, pack = load("build"), tmp_path / "pack"
    build.copy_code(pack, "train.sh", "*gp_*")
    assert {path.name for path in pack.iterdir()} == {
        "benchmarks", "bundles", "environment.sh", "src", "train.sh",
    }  # fmt: skip
    assert {path.name for path in (pack / "bundles").iterdir()} == {*load("train").PUBLISHED}
    assert not list(pack.rglob("__pycache__"))


def test_a_bundle_agrees_with_itself(load, case, bundle_dir: Path) -> None:
    agreement, results = load("agreement"), {}
    (first,) = agreement.measure_on_cpu(bundle_dir, {"phantom": case}, 1, results)
    (second,) = agreement.compare_variant(bundle_dir, "float32", results, "cpu", 1)
    assert first["scan"] == second["scan"] == "phantom"
    assert (second["heatmap"], second["dice"], second["missed"]) == (0, 1, [])
    assert min(first["explain_ms"], second["explain_ms"]) > 0


def test_scans_of_patients_keep_voxels_and_affine(load, lgg: Path, tmp_path: Path) -> None:
    name, scan = next(load("build").list_scans(lgg))
    np.savez_compressed(tmp_path / f"{name}.npz", **scan)
    (case,) = load("agreement").read_scans(tmp_path).values()
    assert set(case["image"]) == {"FLAIR", "T1-Gd"}
    volume = case["image"]["T1-Gd"]
    assert volume.shape[1:] == scan["T1-Gd"].shape
    assert float(volume.max()) == scan["T1-Gd"].max()
    np.testing.assert_allclose(volume.affine, scan["affine"])


def test_training_scans_are_smaller_and_in_their_place(load, lgg: Path) -> None:
    import nibabel as nib

    path = lgg / "TCGA-CS-4942" / "TCGA-CS-4942-t2f.nii.gz"
    small, whole = load("build").shrink_scan(path), nib.load(path)
    assert small.shape == (128, 128, whole.shape[2])
    assert small.get_data_dtype() == np.uint8
    assert small.header.get_zooms() == pytest.approx((2, 2, 5), abs=1e-4)
    centres = [image.affine @ [*(np.array(image.shape) - 1) / 2, 1] for image in (small, whole)]
    np.testing.assert_allclose(*centres, atol=1.0)


def test_training_without_data_is_refused(load, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the LGG set is needed"):
        load("build").main(tmp_path / "pack", data=tmp_path, wheels=False, training=True)
    assert not (tmp_path / "pack").exists()


def test_a_difference_is_seen(load) -> None:
    agreement = load("agreement")
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    mask[0, 1:3] = 1
    expected = SimpleNamespace(
        heatmap=torch.linspace(-1, 4, 64).view(1, 4, 4, 4), mask=mask,
        slice_probabilities=torch.tensor([[0.2]]), shown=torch.tensor([[False]]),
    )  # fmt: skip
    same = agreement.compare_results(expected, expected)
    assert (same["heatmap"], same["probability"], same["dice"]) == (0, 0, 1)
    assert agreement.list_missed("x", same) == []
    changes = {"heatmap": expected.heatmap + 0.4, "mask": mask * 2}
    other = SimpleNamespace(**{**vars(expected), **changes})
    found = agreement.compare_results(expected, other)
    assert found["heatmap"] == pytest.approx(0.1)
    assert found["dice"] == 0  # another label is no overlap
    assert len(agreement.list_missed("x", found)) == 2
    nan = SimpleNamespace(**{**vars(expected), "heatmap": expected.heatmap * float("nan")})
    assert agreement.list_missed("x", agreement.compare_results(expected, nan))


def test_halved_batches_are_counted(load, case, bundle_dir: Path, monkeypatch) -> None:
    halving = load("halving")
    monkeypatch.setattr(halving, "SHARES", (0.5, 10.0))
    halved, whole = halving.measure_halving(bundle_dir, case, "cpu")
    assert halved["halvings"] == 1
    assert halved["missed"] == []
    assert halved["heatmap"] < 1e-5
    assert whole["missed"] == [f"{bundle_dir.name} with 1000% of the memory: no batch was halved"]


def test_a_gpu_is_left_a_share_of_the_memory(load, monkeypatch) -> None:
    shares: list[float] = []
    properties = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    with load("halving").limit_memory(torch.device("cuda"), share=0.5, peak=400, slices=8):
        assert shares == [0.5]
    assert shares == [0.5, 1.0]


def test_a_step_that_fails_does_not_stop_the_others(load, tmp_path: Path) -> None:
    journal = load("journal").Journal(tmp_path, {}, minutes=1, write_page=load("page").write_page)

    def fail():
        yield {"what": "first", "missed": ["bar"]}
        raise SystemExit("no such thing")

    journal.run("bad", fail)
    journal.run("good", lambda: iter([{"what": "second"}]))
    assert journal.problems == ["bad failed", "bar"]
    steps = json.loads((tmp_path / "results.json").read_text("utf-8"))["steps"]
    assert [len(step["rows"]) for step in steps] == [1, 1]
    assert "no such thing" in steps[0]["error"]
    assert "bad failed: SystemExit: no such thing" in (tmp_path / "results.md").read_text("utf-8")


def test_no_step_begins_after_the_time_is_up(load, tmp_path: Path) -> None:
    journal = load("journal").Journal(tmp_path, {}, minutes=0, write_page=load("page").write_page)
    journal.run("late", lambda: iter([{"what": "row"}]))
    (step,) = journal.steps
    assert (step["rows"], step["complete"], journal.problems) == ([], False, [])


def test_the_published_widths_are_those_of_the_papers(load) -> None:
    from heatmask.bundle import find_bundle, read_bundle, run_bundle
    from heatmask.command_line import read_options

    counts = {}
    for name, options in load("train").PUBLISHED.items():
        parser = read_bundle(find_bundle(name), ("train",), read_options(options))
        network = run_bundle(parser, "network_def")
        counts[name.split("_mri_")[1]] = sum(p.numel() for p in network.parameters())
    assert counts == {
        "gp_shuffle_unet_segmentation": 21_922_353,
        "gp_unet_segmentation": 1_883_841,
        "gp_recon_resnet_segmentation": 17_282_132,
    }
