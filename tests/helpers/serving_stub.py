"""A small bundle and scans for the tests of the server.

The bundle's network is planted: its heatmap is 4 x (intensity - 2), so that after the
normalisation (head at 1) whatever is at least twice as bright as the head is the lesion.
"""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.weights import save_weights

# Whoever needs this module needs the host, which not every installation has.
pytest.importorskip("monailabel", reason="needs the extra 'serve'")

NETWORK = {
    "features": [1],
    "norm": "none",
    "pool_at": "map",
    "pooling": "top",
    "top_fraction": 0.001,
}


def make_config() -> dict[str, Any]:
    parts = {
        "options": ("bundle.read_options", {"bundle_root": "@bundle_root"}),
        "network": ("parts.load_network", {"options": "@options", "network_def": "@network_def"}),
        "preprocessing": ("parts.make_preprocessing", {"options": "@options"}),
        "inferer": ("parts.make_inferer", {"options": "@options", "explainer": {}}),
        "postprocessing": (
            "parts.make_postprocessing",
            {"options": "@options", "preprocessing": "@preprocessing"},
        ),
        "dataset": ("parts.list_dataset", {"options": "@options"}),
        "evaluator": (
            "pipeline.make_pipeline",
            {
                name: f"@{name}"
                for name in (
                    "options", "network", "inferer", "preprocessing", "postprocessing", "dataset",
                )
            },
        ),
    }  # fmt: skip
    return {
        "bundle_root": ".",
        "input": None,
        "dataset_dir": "@input",
        "sequences": ["FLAIR"],
        "size_mm": None,
        "pixel_spacing_mm": 2.0,
        "calibration": [-6.0, 4.0],
        "min_volume_mm3": 100.0,
        "snap": False,
        "class_names": ["tumour"],
        "device": "cpu",
        "network_def": {"_target_": "heatmask.networks.gp_unet.GPUNet", **NETWORK},
        **{n: {"_target_": f"heatmask.{target}", **given} for n, (target, given) in parts.items()},
    }


def make_metadata() -> dict[str, Any]:
    return {
        "version": "0.0.1",
        "description": "A planted classifier.",
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "tumour"}}},
        },
    }


def plant_network() -> GPUNet:
    """A network whose heatmap is 4 x (intensity - 2)."""
    network = GPUNet(**NETWORK)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for layer in (network.encoder[0][0], network.encoder[0][2]):
            layer.weight[0, 0, 1, 1] = 1.0
        network.head.weight.fill_(4.0)
        network.head.bias.fill_(-8.0)
    return network


def write_bundle(folder: Path) -> Path:
    """Write the stub bundle and return its folder."""
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(make_config()))
    (folder / "configs/metadata.json").write_text(json.dumps(make_metadata()))
    (folder / "docs/data_license.txt").write_text("Nobody's data:\nfree, non-commercial.\n\nMore.")
    save_weights(plant_network().state_dict(), folder / "models/model.pt")
    return folder


def tilt_affine() -> np.ndarray:
    """Anisotropic, rotated, axes in the order superior, left, posterior."""
    turn = np.deg2rad(9.0)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    axes = np.array([[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ axes @ np.diag([4.0, 1.25, 1.5])
    affine[:3, 3] = (31.0, -17.0, 8.0)
    return affine


def write_scan(path: Path, lesion: bool = True, affine: np.ndarray | None = None) -> np.ndarray:
    """Write a head (a box of 100) with a bright lesion and return the lesion's mask."""
    image = np.zeros((14, 60, 52), np.float32)
    image[1:13, 6:54, 5:47] = 100 + np.random.default_rng(0).normal(0, 3, (12, 48, 42))
    mask = np.zeros(image.shape, bool)
    mask[4:8, 30:46, 8:20] = lesion
    image[mask] += 250
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, tilt_affine() if affine is None else affine), path)
    return mask
