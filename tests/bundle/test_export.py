"""What the bundles have in common, and `python -m monai.bundle ckpt_export`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ckpt_export

from heatmask.bundle import read_bundle, run_bundle
from helpers.project import PROJECT

BUNDLES = sorted(path.parents[1] for path in PROJECT.glob("bundles/*/configs/inference.json"))
GP_UNET = PROJECT / "bundles" / "brain_mri_gp_unet_segmentation" / "configs"
TWO_STAGES = {"brain_mri_relevance3d_segmentation", "brain_t1ce_tumour_type_segmentation"}
"""Trained in two stages, of which several GPUs help in the first."""
SELF_TRAINED = {
    "brain_mri_flair_selftrained_segmentation",
    "brain_t1ce_tumour_type_selftrained_segmentation",
    "breast_us_lesion_segmentation",
}
"""Trained on labels and on their own masks, in one process."""
MAX_DIFFERENT_LINES = 45
"""Of an inference config from the GP-UNet's; half of them list methods and layers."""


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda folder: folder.name)
def bundle_dir(request: pytest.FixtureRequest) -> Path:
    """Every bundle in turn."""
    return request.param


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_bundle_has_every_part(bundle_dir: Path) -> None:
    configs = {"inference.json", "logging.conf", "metadata.json", "train.json"}
    if bundle_dir.name not in SELF_TRAINED:
        configs |= {"multi_gpu_train.json"}
    assert {p.name for p in (bundle_dir / "configs").iterdir()} == configs
    assert {"README.md", "data_license.txt", "training.png"} <= {
        p.name for p in (bundle_dir / "docs").iterdir()
    }
    assert {p.name for p in (bundle_dir / "models").iterdir()} == {"calibration.json", "model.pt"}
    assert (bundle_dir / "LICENSE").is_file()


# What the second stage of the others asks for has a test of its own.
@pytest.mark.parametrize(
    "bundle_dir",
    [b for b in BUNDLES if b.name not in TWO_STAGES | SELF_TRAINED],
    ids=lambda path: path.name,
    indirect=True,
)
def test_training_differs_in_the_network_and_its_explanation_alone(bundle_dir: Path) -> None:
    first, other = read(GP_UNET / "train.json"), read(bundle_dir / "configs" / "train.json")
    own = {"network_def", "learning_rate", "explainers", "calibrated_methods", "calibrated_layers",
           "output_dir"}  # fmt: skip
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in other.items() if k not in own
    }
    name = "multi_gpu_train.json"
    assert (GP_UNET / name).read_text() == (bundle_dir / "configs" / name).read_text()


def test_all_log_alike(bundle_dir: Path) -> None:
    name = "logging.conf"
    assert (GP_UNET / name).read_text() == (bundle_dir / "configs" / name).read_text()


@pytest.mark.parametrize(
    "bundle_dir",
    [b for b in BUNDLES if b.name not in SELF_TRAINED],
    ids=lambda path: path.name,
    indirect=True,
)
def test_several_gpus_train_the_first_stage_the_same_way(bundle_dir: Path) -> None:
    first, other = (
        read(folder / "multi_gpu_train.json") for folder in (GP_UNET, bundle_dir / "configs")
    )
    if bundle_dir.name in TWO_STAGES:
        assert other.pop("run") == read(bundle_dir / "configs" / "train.json")["run"][:1]
    assert other == first


def test_training_and_inference_build_one_network(bundle_dir: Path) -> None:
    train, inference = (read(bundle_dir / "configs" / f"{n}.json") for n in ("train", "inference"))
    for name in ("network_def", "sequences", "pixel_spacing_mm"):
        assert train.get(name) == inference.get(name)


def test_inference_configs_differ_in_few_lines(bundle_dir: Path) -> None:
    first, other = (
        set((folder / "inference.json").read_text().splitlines())
        for folder in (GP_UNET, bundle_dir / "configs")
    )
    assert len(other - first) <= MAX_DIFFERENT_LINES


def test_exported_networks_give_the_same_logits(bundle_dir: Path, tmp_path: Path) -> None:
    """TorchScript holds the classifier: any size of image, no heatmap. One as a command."""
    path = tmp_path / "network.ts"
    configs = bundle_dir / "configs"
    words = {
        "filepath": str(path),
        "ckpt_file": str(bundle_dir / "models" / "model.pt"),
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
    }
    if configs == GP_UNET:
        command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def"]
        command += [word for name, value in words.items() for word in (f"--{name}", value)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
    else:
        ckpt_export("network_def", **words)
    network = run_bundle(read_bundle(bundle_dir), "network")
    network_def = read(configs / "inference.json")["network_def"]
    depth = (5,) * (network_def.get("spatial_dims") == 3)
    images = torch.rand(2, 3 if bundle_dir.name in SELF_TRAINED else 2, 72, 60, *depth)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(path)).eval()(images), network(images))


def test_the_card_says_what_a_reader_must_know(bundle_dir: Path) -> None:
    card = (bundle_dir / "docs" / "README.md").read_text(encoding="utf-8")
    for word in ("## Data", "## Training", "## Results", "## Known failures", "## Licence",
                 "heatmask train", "training.png", "ckpt_export"):  # fmt: skip
        assert word in card, word
    assert re.search(r"0\.\d+ \[0\.\d+, 0\.\d+\]", card), "Dice with its interval"
    assert re.search(r"seed 0", card, re.IGNORECASE)
