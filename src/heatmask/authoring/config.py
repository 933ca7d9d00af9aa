"""Turn a bundle's training config to a user's own task: classes, labels, images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heatmask.attribution.registry import get_method
from heatmask.authoring.task import OwnTask
from heatmask.errors import InputError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

QUICK_METHODS = ("guided_grad_cam", "guided_backprop", "multi_stage_cam", "grad_cam")
"""What a user's own bundle offers beside its own method: one pass forward and back each."""
ALL_METHODS = "all"

_OF_THE_BUNDLES_DATA = ("dataset_dir", "slice_labels", "patients", "pattern")


def adapt_training(
    parser: "ConfigParser",
    task: OwnTask,
    split_seed: int = 0,
    patient_column: str = "patient",
    start_from: str | None = None,
) -> None:
    """Turn the training config of a bundle to a task, in place.

    ``labels`` and ``images`` become its options in place of ``dataset_dir``; what the bundle says
    about optimisation, augmentation and checkpoints stays. What else changes for a user's own
    task, it names itself under ``own_task``.
    """
    for name, value in parser.config.pop("own_task", {}).items():
        parser[name] = value
    slices = "$@train#dataset.labels"
    shape = {"num_classes": len(task.class_names), "negatives": task.negatives}
    settings = {k: v for k, v in parser["settings"].items() if k not in _OF_THE_BUNDLES_DATA}
    changes: dict[str, Any] = {
        "labels": None,
        "images": None,
        "split_seed": split_seed,
        "patient_column": patient_column,
        "start_from": start_from,
        "class_names": list(task.class_names),
        "sequences": list(task.sequences),
        "table": {
            "_target_": "heatmask.data.label_table.read_label_table",
            "labels": "@labels",
            "images": "@images",
            "classes": "@class_names",
            "split_seed": "@split_seed",
            "patient_column": "@patient_column",
        },
        "network_def#num_classes": len(task.class_names),
        "network_def#in_channels": len(task.sequences),
        "started_network": {
            "_target_": "heatmask.training.fine_tune.start_network",
            "network": "$@network_def.to(@resolved_device)",
            "seed": "@seed",
            "weights": "@start_from",
        },
        "class_weights": {
            "_target_": "heatmask.training.position.balance_classes",
            "labels": slices,
            **shape,
        },
        "position_prior": {
            "_target_": "heatmask.training.position.PositionPrior",
            "_disabled_": "$not @position_offset",
            "positions": "$@train#dataset.positions",
            "labels": slices,
            "class_weights": "@class_weights",
            **shape,
        },
        "loss_function": {
            "_target_": "heatmask.training.position.PositionOffsetLoss",
            "class_weights": "@class_weights",
            "negatives": task.negatives,
        },
        "train#dataset#volumes": "$@table.select('train')",
        "validate#dataset#volumes": "$@table.select('val')",
        "validate#evaluator#additional_metrics": {
            f"val_{score}": {
                "_target_": "heatmask.training.metrics.SliceScore",
                "score": score,
                "negatives": task.negatives,
                "output_transform": "$lambda output: (output['pred'], output['label'])",
            }
            for score in ("auroc", "macro_f1")
        },
        "settings": {
            "labels": "$@table.digest",
            "images": "$str(Path(@images).resolve())",
            "split_seed": "@split_seed",
            "patient_column": "@patient_column",
            "start_from": "@start_from",
            "class_names": "@class_names",
            "sequences": "@sequences",
            **settings,
        },
    }
    if task.pictures:
        changes["position_offset"] = False
    for name, value in changes.items():
        parser[name] = value
    for name in _OF_THE_BUNDLES_DATA[1:]:  # MONAI asks every training config for dataset_dir
        parser.config.pop(name, None)
    parser["dataset_dir"] = "@images"
    adapt_preprocessing(parser["preprocessing"], task, parser["image_size"])


def choose_methods(
    parser: "ConfigParser", own: str, methods: Sequence[str] | str | None, layers: Sequence[str]
) -> None:
    """Set whose heatmaps' ranges are measured, in place: what the new bundle will offer.

    Parameters
    ----------
    own
        The method that the bundle shows first.
    methods
        `ALL_METHODS` for those of the bundle, at all of its layers; None for `own` and
        `QUICK_METHODS`.
    layers
        At which layers beside the method's own.

    Raises
    ------
    OptionError
        There is no such method.
    """
    offered = parser.get("calibrated_methods")
    if offered is None or methods == ALL_METHODS:
        return
    if methods is None:
        methods = [own, *(name for name in QUICK_METHODS if name in offered and name != own)]
    chosen = [methods] if isinstance(methods, str) else [*methods]
    for name in chosen:
        get_method(name)
    parser["calibrated_methods"], parser["calibrated_layers"] = chosen, [*layers]


def adapt_preprocessing(
    preprocessing: Mapping[str, Any], task: OwnTask, image_size: Sequence[int]
) -> None:
    """Let a bundle's preprocessing take images of one slice, in place.

    Pictures have no pixel size to keep to: each is scaled to the size that the network was
    trained on. Their numbers are those of a screen, so that no background is looked for.

    Raises
    ------
    InputError
        The bundle has other steps than the shipped ones, so that this cannot be done.
    """
    steps = preprocessing["transforms"]
    loading = _find_step(steps, "LoadSequencesd")
    loading["min_slices"] = 1
    for name in ("needed", "required", "size_mm"):  # those of the bundle's own weights
        loading.pop(name, None)
    if not task.pictures:
        return
    steps[:] = [step for step in steps if not _is_step(step, "ZeroBackgroundd")]  # black is 0
    place = steps.index(_find_step(steps, "ResampleInPlaned", "ResizeInPlaned", "Resized"))
    steps[place] = {
        "_target_": "heatmask.transforms.ResizeInPlaned",
        "keys": "image",
        "size": [*image_size],
    }


def _find_step(steps: Sequence[dict[str, Any]], *names: str) -> dict[str, Any]:
    for step in steps:
        if _is_step(step, *names):
            return step
    raise InputError(
        f"The bundle's preprocessing has no step {' or '.join(names)}, but "
        f"{', '.join(str(s.get('_target_')) for s in steps)}. Take a bundle of this project."
    )


def _is_step(step: Mapping[str, Any], *names: str) -> bool:
    return str(step.get("_target_", "")).rpartition(".")[2] in names
