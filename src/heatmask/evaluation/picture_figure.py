"""The picture of an evaluation of pictures: Dice beside the floors, and which class was told."""

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from heatmask.evaluation.figure import INK, METHOD, draw_dice, finish, make_panels
from heatmask.evaluation.pictures import PictureEvaluation

_SHADES = LinearSegmentedColormap.from_list("shares", ["white", METHOD])


def draw_pictures(evaluation: PictureEvaluation) -> Figure:
    """Draw both panels, as `heatmask.evaluation.figure.draw_evaluation` does."""
    figure, left, right = make_panels(len(evaluation.rows))
    n_groups = len(set(evaluation.groups))
    title = f"Dice per picture, {len(evaluation.pictures)} pictures in {n_groups} groups"
    draw_dice(left, evaluation, title)
    _draw_confusion(right, evaluation)
    return figure


def _draw_confusion(axes: Axes, evaluation: PictureEvaluation) -> None:
    """One square per true and predicted class: how many pictures, and the share of the true."""
    counts, names = evaluation.classes.confusion, evaluation.class_names
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    for (row, column), count in zip(_list_places(len(names)), counts.flat, strict=True):
        share = shares[row, column]
        axes.text(
            column, row, f"{count}\n{share:.0%}", ha="center", va="center", fontsize=11,
            color="white" if share > 0.6 else INK,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel("true class", color=INK)
    macro_f1, accuracy = evaluation.classes.macro_f1.mean, evaluation.classes.accuracy.mean
    title = f"Macro F1 {macro_f1:.2f}, accuracy {accuracy:.2f}"
    finish(axes, title, "predicted class")
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _list_places(n_classes: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(n_classes) for column in range(n_classes)]
