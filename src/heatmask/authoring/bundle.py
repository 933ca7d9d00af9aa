"""Write a bundle for a user's own task: the copy of another one, with weights of its own."""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatmask.attribution.calibration import FILE_NAME
from heatmask.authoring.config import adapt_reading
from heatmask.authoring.model_card import Training, describe_data, write_card
from heatmask.authoring.task import OwnTask
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.errors import OutputError
from heatmask.files import render

_SEEN_ALIKE = (
    "network_def", "sequences", "pixel_spacing_mm", "longest_side", "intensity", "neighbours",
    "block_slices",
)  # fmt: skip
"""What the network sees, which must be the same in training and later."""


@dataclass(frozen=True)
class OwnBundle:
    """What a bundle is made from.

    Attributes
    ----------
    source : folder of the bundle that was trained
    task : what it was trained for
    training : how, and what came out
    train_config : its training config as adapted, without paths of this machine
    weights : the checkpoint; the calibration lies beside it
    curve : picture of the training curve
    """

    source: Path
    task: OwnTask
    training: Training
    train_config: Mapping[str, Any]
    weights: Path
    curve: Path


def check_output(output: str | Path) -> Path:
    """Return the folder of a new bundle, or refuse one that is there.

    Raises
    ------
    OutputError
        It exists, or its parent cannot be written.
    """
    output = Path(os.path.abspath(Path(output).expanduser()))
    if output.exists():
        raise OutputError(f"{output} exists. Give another --output, or move that folder away.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {output}: {error.strerror}. Give another --output."
        ) from error
    return output


def write_bundle(output: Path, made: OwnBundle) -> Path:
    """Write the bundle's folder, all of it or nothing, and return it.

    Raises
    ------
    OutputError
        The folder exists by now, or cannot be written.
    """
    check_output(output)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as partial:
            folder = Path(partial) / output.name
            _write_files(folder, made)
            os.rename(folder, output)
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {output}: {error}. Check space and permissions. The "
            f"trained weights are in {made.weights}."
        ) from error
    return output


def _write_files(folder: Path, made: OwnBundle) -> None:
    source = made.source
    # What earlier bundles say there of their evaluation is read no more.
    unread = shutil.ignore_patterns("evaluate.json")
    shutil.copytree(source / "configs", folder / "configs", ignore=unread)
    for name, change in (("inference", adapt_inference), ("metadata", adapt_metadata)):
        config = _read_json(source / "configs" / f"{name}.json")
        _write_json(folder / "configs" / f"{name}.json", change(config, made))
    _write_json(folder / "configs" / "train.json", made.train_config)
    (folder / "models").mkdir()
    shutil.copyfile(made.weights, folder / "models" / "model.pt")
    shutil.copyfile(made.weights.with_name(FILE_NAME), folder / "models" / FILE_NAME)
    (folder / "docs").mkdir()
    shutil.copyfile(made.curve, folder / "docs" / "training.png")
    card = write_card(folder.name, made.task, made.training)
    (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
    inherited = ""
    if made.training.fine_tuned:
        inherited = (source / "docs" / "data_license.txt").read_text(encoding="utf-8")
    terms = render(__package__, "data_license.txt.j2", training=made.training, inherited=inherited)
    (folder / "docs" / "data_license.txt").write_text(terms, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("LICENSE.txt"), folder / "LICENSE")


def adapt_inference(config: Mapping[str, Any], made: OwnBundle) -> dict[str, Any]:
    """Return the inference config of the source, for the task that was trained."""
    out, trained, task = copy.deepcopy(dict(config)), made.train_config, made.task
    for name in ("image_size", "single_slices", "none_logit"):  # of the source's own task
        out.pop(name, None)
    out |= {name: copy.deepcopy(trained[name]) for name in _SEEN_ALIKE if name in trained}
    out["channels"] = list(task.sequences)
    out["class_names"] = list(task.class_names)
    adapt_reading(out, task, trained["image_size"])
    methods = trained.get("calibrated_methods", ())
    if methods and out.get("method") not in methods:
        out["method"] = methods[0]
    if task.none_logit:
        out["none_logit"] = True
    if task.pictures and not task.negatives:  # it would see a finding in every slice of a volume
        out["single_slices"] = True
    return out | dict(made.training.learnt)


def adapt_metadata(metadata: Mapping[str, Any], made: OwnBundle) -> dict[str, Any]:
    """Return the source's metadata with what is different about the task."""
    out, task, training = copy.deepcopy(dict(metadata)), made.task, made.training
    names, version = ", ".join(task.class_names), "0.1.0"
    images = "2D images" if task.pictures else "volumes"
    channels = {str(i): "image" if s == UNKNOWN else s for i, s in enumerate(task.sequences)}
    labels = {"0": "background"} | {str(k): n for k, n in enumerate(task.class_names, start=1)}
    out |= {
        "version": version,
        "changelog": {version: f"Trained from image-level labels of {training.data}."},
        "name": f"Pseudo-masks of {names}",
        "task": f"Weakly supervised segmentation of {names}",
        "description": f"The network of {training.source}, trained on {images} with image-level "
        f"labels alone ({describe_data(training)}); its heatmap becomes a pseudo-mask to correct.",
        "authors": "Trained by the owner of this folder with Heatmask",
        "copyright": "Code: Copyright the Heatmask authors, Apache-2.0. Weights: see "
        "docs/data_license.txt.",
        "data_source": f"{training.data}; its licence is to be stated in docs/data_license.txt",
        "image_classes": f"{images}, {' and '.join(channels.values())}",
        "label_classes": f"image level: {'none, ' * task.negatives}{names}",
        "pred_classes": ", ".join(f"{value} {name}" for value, name in labels.items()),
        "eval_metrics": training.scores,
        "intended_use": "Research: a first mask to be corrected by a radiologist. Not a diagnosis, "
        "not a medical device.",
    }
    if made.train_config.get("neighbours"):
        (name,) = channels.values()
        channels = {"0": "the slice before, or the same", "1": name, "2": "the slice after"}
    _adapt_formats(out["network_data_format"], channels, labels)
    return out


def _adapt_formats(
    formats: dict[str, Any], channels: Mapping[str, str], labels: Mapping[str, str]
) -> None:
    image = formats["inputs"]["image"]
    image |= {"num_channels": len(channels), "channel_def": dict(channels)}
    output = next(iter(formats["outputs"].values()))
    output |= {"num_channels": len(labels) - 1, "channel_def": dict(labels)}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
