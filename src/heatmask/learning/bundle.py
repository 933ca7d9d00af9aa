"""Write what was learnt as a bundle."""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from heatmask.attribution.calibration import FILE_NAME, read_calibration, write_calibration
from heatmask.errors import InputError
from heatmask.files import render
from heatmask.learning.settings import LearnSettings
from heatmask.learning.versions import LearnedRecord, write_record
from heatmask.networks.weights import save_weights

RANGE = (-4.0, 4.0)
"""Of the heatmap, which holds the logits of the mask: a probability of 0.02 to 0.98."""
_MASK = {
    "threshold_rule": "fixed",
    "threshold_level": 0.5,  # in the middle of `RANGE`: a logit of 0
    "snap": False,
    "smooth_mm": 0.0,
    "gate": False,
    "empty_value": RANGE[0],
}
"""What the mask of a segmentation network needs no longer: it has learnt the border of masks, and a
slice whose heatmap is below 0 has none."""
_EXPLAINED_OTHERWISE = ("method", "target_layer", "blur_mm", "preset", "displayable_configs")


@dataclass(frozen=True)
class LearnedWeights:
    """Networks' weights.

    Attributes
    ----------
    final : of the network that has seen all corrections
    folds : of those that have not seen the patients of each fold
    """

    final: Mapping[str, Tensor]
    folds: Sequence[Mapping[str, Tensor]] = ()


def find_obstacle(config: Mapping[str, Any], way: str = "auto") -> str | None:
    """Return why corrections cannot be learnt with a bundle of this config, None if they can."""
    count = len(config.get("class_names", ["finding"]))
    if "block_slices" in config:
        return "It works on blocks of slices, and learning works slice by slice."
    if count != 1:
        return f"It has {count} classes, and learning works with one so far."
    if way == "joint" and not carries_heatmap(config):
        return (
            "Its network has no heatmap of its own that could learn a mask. Choose the way "
            "segmentation, or a GP bundle."
        )
    return None


def carries_heatmap(config: Mapping[str, Any]) -> bool:
    """Return whether the network of a bundle gives its heatmap itself."""
    return config.get("method", "inherent") == "inherent"


def check_source(config: Mapping[str, Any], name: str, way: str) -> None:
    """Refuse a bundle that corrections cannot be learnt with.

    Raises
    ------
    InputError
        It works in 3D, or has several classes; or its network is to learn on and has no heatmap
        of its own.
    """
    obstacle = find_obstacle(config, way)
    if obstacle is not None:
        raise InputError(f"{name} cannot learn. {obstacle}")


def make_config(source: Mapping[str, Any], settings: LearnSettings) -> dict[str, Any]:
    """Return the ``inference.json`` of what is learnt, from that of the bundle it began with.

    Of the way joint it is the same: the heatmap is a better one of the same kind, and its mask is
    made as before.
    """
    config = copy.deepcopy(dict(source))
    if settings.way == "joint":
        return config
    for name in _EXPLAINED_OTHERWISE:
        config.pop(name, None)
    config |= _MASK
    config["calibration"] = list(RANGE)
    config["network_def"] = {
        "_target_": "heatmask.networks.gp_unet.GPUNet",
        "spatial_dims": 2,
        "in_channels": len(config.get("channels") or config.get("sequences", ["FLAIR"])),
        "num_classes": 1,
        "features": list(settings.features),
        "norm": "batch",
        "pool_at": "map",
        "pooling": "top",
        "top_fraction": 0.01,
    }
    return config


def write_learned_bundle(
    folder: Path, source: Path, weights: LearnedWeights, record: LearnedRecord, number: int
) -> None:
    """Fill a new folder with a complete bundle.

    Parameters
    ----------
    source
        The bundle that it began with.
    number
        Of the version.
    """
    settings = LearnSettings(**record.settings)
    for name in ("configs", "docs", "models/folds"):
        (folder / name).mkdir(parents=True)
    config = make_config(_read_json(source / "configs/inference.json"), settings)
    _write_json(folder / "configs/inference.json", config)
    metadata = _read_json(source / "configs/metadata.json")
    _write_json(folder / "configs/metadata.json", _adapt_metadata(metadata, record, number))
    write_record(record, folder)
    save_weights(weights.final, folder / "models/model.pt")
    write_calibration({"inherent": _find_range(source, settings)}, folder / "models/model.pt")
    for fold, state in enumerate(weights.folds):
        save_weights(state, folder / f"models/folds/{fold}.pt")
    texts = {"README.md": "card.md.j2", "data_license.txt": "data_license.txt.j2"}
    inherited = (source / "docs/data_license.txt").read_text(encoding="utf-8")
    for name, template in texts.items():
        text = render(
            __package__, template, record=record, settings=settings, number=number,
            name=folder.name, mean=mean, inherited=inherited,
        )  # fmt: skip
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    if (source / "LICENSE").is_file():
        shutil.copyfile(source / "LICENSE", folder / "LICENSE")


def _find_range(source: Path, settings: LearnSettings) -> tuple[float, float]:
    """Return the range of the heatmap: of the way joint that of the network it went on from."""
    weights = source / "models/model.pt"
    if settings.way == "segmentation" or not weights.with_name(FILE_NAME).is_file():
        return RANGE
    low, high = read_calibration(weights, "inherent")
    return low, high


def mean(dice: Mapping[str, float]) -> float:
    """Return the mean Dice over patients; NaN of none."""
    return sum(dice.values()) / len(dice) if dice else float("nan")


def _adapt_metadata(
    metadata: Mapping[str, Any], record: LearnedRecord, number: int
) -> dict[str, Any]:
    version = f"{str(metadata.get('version', '0.1.0')).partition('+')[0]}+{number}"
    patients = len(record.folds)
    description = (
        f"Learnt from {record.source} and the corrected masks of {patients} patients; Dice "
        f"{mean(record.dice):.3f} on them, each held out in turn."
    )
    return {
        **metadata,
        "version": version,
        "changelog": {version: description},
        "name": f"{metadata.get('name', record.source)}, corrected",
        "description": description,
        "task": "Segmentation from image-level labels and corrected masks",
        "eval_metrics": {
            "held_out_dice": round(mean(record.dice), 4),
            "protocol": f"{len(record.dice)} corrected patients, each held out in turn, per volume",
        },
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
