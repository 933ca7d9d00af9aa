"""The model card of a bundle that somebody trained for a task of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heatmask.authoring.task import OwnTask
from heatmask.files import render


@dataclass(frozen=True)
class Training:
    """How a bundle was trained, and what came out.

    Attributes
    ----------
    source : name of the bundle whose network it is
    data : name of the folder of images
    counts : labelled slices by split and label
    split_rule : how the images came into their splits
    seed, epochs, best_epoch : as they were
    command : what was typed, with names in place of paths
    fine_tuned : whether training began from the source's weights
    scores : name to value; ``val_...`` of validation, ``test_...`` of the test split
    learnt : options that training has found; empty unless the network learnt from its own masks
    """

    source: str
    data: str
    counts: Mapping[str, Mapping[str, int]]
    split_rule: str
    seed: int
    epochs: int
    best_epoch: int
    command: str
    fine_tuned: bool
    scores: Mapping[str, float]
    learnt: Mapping[str, Any] = field(default_factory=dict)


def describe_data(training: Training) -> str:
    """Return the data's name and the number of labelled slices of each split."""
    sizes = [f"{sum(by_label.values())} {split}" for split, by_label in training.counts.items()]
    return f"{training.data}: {', '.join(sizes)}"


def write_card(name: str, task: OwnTask, training: Training) -> str:
    """Return the card as Markdown."""
    labels = ["0 background", *(f"{k} {n}" for k, n in enumerate(task.class_names, start=1))]
    return render(
        __package__,
        "model_card.md.j2",
        name=name,
        task=task,
        training=training,
        labels=labels,
        data=describe_data(training),
    )
