"""The model card of a bundle that somebody trained for a task of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heatmask.authoring.task import OwnTask

TEMPLATE = Path(__file__).with_suffix(".md")


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


def describe_data(training: Training) -> str:
    """Return the data's name and the number of labelled slices of each split."""
    sizes = [f"{sum(by_label.values())} {split}" for split, by_label in training.counts.items()]
    return f"{training.data}: {', '.join(sizes)}"


def write_card(name: str, task: OwnTask, training: Training) -> str:
    """Return the card as Markdown."""
    labels = ["0 background", *(f"{k} {n}" for k, n in enumerate(task.class_names, start=1))]
    several = len(task.class_names) > 1
    return TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        classes=", ".join(task.class_names),
        source=training.source,
        start=", trained on from its weights" if training.fine_tuned else ", trained from scratch",
        images=_describe_images(task),
        labels=", ".join(labels),
        decision=_describe_decision(task),
        data=describe_data(training),
        split=training.split_rule,
        counts="".join(
            f"| {split} | {', '.join(f'{count} {label}' for label, count in by_label.items())} |\n"
            for split, by_label in training.counts.items()
        ),
        seed=training.seed,
        epochs=training.epochs,
        best=training.best_epoch,
        command=training.command,
        weights="The loss weighs the classes so that each counts the same." * several,
        results="".join(_format_scores(training.scores)),
        failures=_describe_failures(task),
    )


def _describe_images(task: OwnTask) -> str:
    if task.pictures:
        return (
            "one 2D image (PNG, JPEG, or a volume of one slice), scaled to the size that the "
            "network was trained on; a picture counts as 256 mm wide"
        )
    return f"one volume ({' and '.join(task.sequences)}), axial slices one by one"


def _describe_decision(task: OwnTask) -> str:
    if len(task.class_names) == 1:
        return "a slice shows it where its probability is at least `gate_probability` (a sigmoid)."
    if task.negatives:
        return (
            "on each slice the likeliest of the classes and none (a softmax in which none has the "
            "logit 0); none gives no mask."
        )
    return "on each slice the likeliest of the classes (a softmax): every slice gets one of them."


def _describe_failures(task: OwnTask) -> str:
    if task.negatives:
        return (
            "- **Images without finding.** What counts as none is what the table said; other "
            "healthy anatomy was not seen."
        )
    return (
        "- **Images without finding.** The table had none: every image, and every slice of a "
        "volume, gets one of the classes, healthy ones too."
    )


def _format_scores(scores: Mapping[str, float]) -> list[str]:
    rows = []
    for split, title in (("val", "validation (chose the epoch)"), ("test", "test")):
        if f"{split}_auroc" in scores:
            found = [scores.get(f"{split}_{name}") for name in ("loss", "auroc", "macro_f1")]
            cells = ["-" if value is None else f"{value:.3f}" for value in found]
            rows.append(f"| {title} | {' | '.join(cells)} |\n")
    return rows
