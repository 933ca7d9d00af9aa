"""Turn a bundle's training config to a user's own task: classes, labels, images."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from heatmask.attribution.registry import get_method
from heatmask.authoring.task import OwnTask
from heatmask.errors import InputError, OptionError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

QUICK_METHODS = ("guided_grad_cam", "guided_backprop", "multi_stage_cam", "grad_cam")
"""What a user's own bundle offers beside its own method: one pass forward and back each."""
ALL_METHODS = "all"


def adapt_training(
    parser: "ConfigParser",
    task: OwnTask,
    split_seed: int = 0,
    patient_column: str = "patient",
    options: Collection[str] = (),
) -> None:
    """Turn the training config of a bundle to a task, in place.

    What the bundle says about optimisation, augmentation and checkpoints stays. What else changes
    for a user's own task, it names itself under ``own_task``, where the user's `options` do not.

    Raises
    ------
    InputError
        The bundle's training config is that of an earlier version.
    OptionError
        Its network takes one sequence, and there are several.
    """
    config = parser.get()
    if "options" not in config:
        raise InputError(
            "The bundle must be one of this version: its train.json must have options. Take a "
            "bundle that comes with Heatmask."
        )
    for name in ("slice_labels", "patients", "pattern"):
        config.pop(name, None)
    usual = {**config.pop("own_task", {}), "position_offset": not task.pictures}
    own: dict[str, Any] = {
        **{name: value for name, value in usual.items() if name not in options},
        "labels": "$(@dataset_dir or '.') + '/labels.csv'",
        "split_seed": split_seed,
        "patient_column": patient_column,
        "class_names": list(task.class_names),
        "negatives": task.negatives,
        "sequences": list(task.sequences),
        "network_def#num_classes": len(task.class_names),
        "pictures": task.pictures,
    }
    if "in_channels" in config["network_def"]:
        own["network_def#in_channels"] = len(task.sequences)
    elif len(task.sequences) > 1:
        raise OptionError(
            f"This bundle's network takes one sequence, got {', '.join(task.sequences)}. Train on "
            "a table for each, or take a bundle for several: --bundle "
            "brain_mri_gp_unet_segmentation."
        )
    parser.update(own)
    adapt_reading(config, task, config["image_size"])


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


def adapt_reading(options: dict[str, Any], task: OwnTask, image_size: Sequence[int]) -> None:
    """Let what a bundle reads be images of one slice, in place.

    Pictures have no pixel size to keep to: each is scaled to the size that the network was
    trained on. Their numbers are those of a screen, so that no background is looked for.

    Parameters
    ----------
    options
        As `heatmask.parts.ReadSettings`.
    """
    for name in ("needed", "required"):  # of the bundle's own weights
        options.pop(name, None)
    options |= {"min_slices": 1, "size_mm": None}
    if task.pictures:
        options["image_size"] = [*image_size]
