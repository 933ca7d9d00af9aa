"""An evaluation of pictures on paper, in the files that `heatmask.evaluation.report` writes.

The lines of each picture are in per_picture.csv.
"""

from pathlib import Path
from typing import Any

from heatmask.evaluation.picture_figure import draw_pictures
from heatmask.evaluation.pictures import RIGHT_CLASS, RIM_SHARE, PictureEvaluation
from heatmask.evaluation.report import (
    RULES,
    dump_strictly,
    explain_left_out,
    explain_rules,
    format_interval,
    format_lines,
    format_row,
    summarise_row,
    write_files,
)
from heatmask.evaluation.segmentation import EMPTY_RULE

SCORE_KEYS = ("dice", "iou", "mask_pixels", "reference_pixels")


def write_pictures(evaluation: PictureEvaluation, folder: Path) -> dict[str, Path]:
    """Write all four files, as `heatmask.evaluation.report.write_evaluation` does."""
    texts = {
        "per_picture.csv": format_csv(evaluation),
        "summary.json": format_json(evaluation),
        "evaluation.md": format_markdown(evaluation),
    }
    return write_files(folder, texts, draw_pictures(evaluation))


def format_csv(evaluation: PictureEvaluation) -> str:
    """One line per picture and method; a score that is not counted is left empty."""
    names = evaluation.class_names
    cases = {
        "picture": evaluation.pictures,
        "group": evaluation.groups,
        "class": [names[k] for k in evaluation.class_idx],
        "predicted": [names[k] for k in evaluation.predicted],
    }
    return format_lines(evaluation, cases, SCORE_KEYS)


def format_json(evaluation: PictureEvaluation) -> str:
    """Everything but the pictures' rows, as strict JSON: NaN becomes null."""
    names = evaluation.class_names
    return dump_strictly(
        {
            "n_pictures": len(evaluation.pictures),
            "n_groups": len(set(evaluation.groups)),
            "rules": RULES,
            "empty_rule": EMPTY_RULE,
            "best_label_free_floor": evaluation.best_floor.name,
            "methods": [
                summarise_row(row, {"mean_dice_by_class": dict(zip(names, dice, strict=True))})
                for row in evaluation.rows
                for dice in [evaluation.find_class_dice(row.method.name)]
            ],
            "classes": _summarise_classes(evaluation),
            "notes": list(evaluation.notes),
            "left_out": dict(evaluation.left_out),
        }
    )


def format_markdown(evaluation: PictureEvaluation) -> str:
    """Return the tables of methods and of classes, and the rules they follow, as Markdown."""
    names = evaluation.class_names
    header = (
        "method", "threshold", "label-free", "pictures", "mean Dice [95 %]", "median", "mean IoU",
        *names, "difference to the best floor [95 %]",
    )  # fmt: skip
    rows = (
        format_row(row, [f"{dice:.3f}" for dice in evaluation.find_class_dice(row.method.name)])
        for row in evaluation.rows
    )
    parts = [_join_cells(header), _join_cells(["---"] * len(header)), *rows, ""]
    parts += [f"- {line}" for line in _explain_table(evaluation)]
    return "\n".join([*parts, "", *_tabulate_confusion(evaluation)]) + "\n"


def _summarise_classes(evaluation: PictureEvaluation) -> dict[str, Any]:
    scores, names = evaluation.classes, evaluation.class_names
    return {
        "classifier": evaluation.classifier,
        "names": list(names),
        "macro_f1": scores.macro_f1._asdict(),
        "accuracy": scores.accuracy._asdict(),
        "accuracy_of_the_commonest": scores.commonest,
        "f1": dict(zip(names, scores.f1.tolist(), strict=True)),
        "confusion": scores.confusion.tolist(),
        "ece": scores.ece,
    }


def _explain_table(evaluation: PictureEvaluation) -> list[str]:
    scores, names = evaluation.classes, evaluation.class_names
    f1 = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, scores.f1, strict=True))
    return [
        *explain_left_out(evaluation.left_out, evaluation.n_asked, "pictures"),
        f"Dice per picture, {len(evaluation.pictures)} pictures"
        f"{', none left out' * (not evaluation.left_out)}; intervals are "
        f"percentile bootstraps over their {len(set(evaluation.groups))} groups (what the table "
        "gives as one patient). A picture has no spacing: nothing here is in mm or ml.",
        "What a mask marks counts as tumour, whichever class it names. The columns "
        f"{', '.join(names)} are mean Dice over the pictures of that true class.",
        f"Rows '{RIGHT_CLASS}': a picture counts 0 where the network tells the wrong class (that "
        "of the largest probability), else as before. Floors tell no class.",
        *explain_rules(evaluation),
        f"{EMPTY_RULE} The column pictures holds those that are counted.",
        f"The head of the floors is without a rim of {RIM_SHARE:.1%} of the picture's longer side.",
        f"Classes told by {evaluation.classifier}: macro F1 {format_interval(scores.macro_f1)}, "
        f"accuracy {format_interval(scores.accuracy)} (always the commonest: "
        f"{scores.commonest:.3f}), calibration error {scores.ece:.3f}; F1 of {f1}.",
        *evaluation.notes,
    ]


def _tabulate_confusion(evaluation: PictureEvaluation) -> list[str]:
    names = evaluation.class_names
    lines = [["true class \\ predicted", *names], ["---"] * (len(names) + 1)]
    for name, counts in zip(names, evaluation.classes.confusion, strict=True):
        lines.append([name, *map(str, counts)])
    return [_join_cells(cells) for cells in lines]


def _join_cells(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
